"""Other keys for every role, and fresh expiries, while a device goes on updating."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from tuf.ngclient import Updater, UpdaterConfig
from tuf.ngclient.urllib3_fetcher import Urllib3Fetcher

from tests.cli.conftest import DIGITS
from tests.cli.operator import Operator

Fresh = Callable[..., Operator]


class Reader:
    """A device's view: pinned to the first root, it must find the version after every change."""

    def __init__(self, pw: Operator, folder: Path) -> None:
        self._pw = pw
        self._folder = folder
        self._root = (pw.keys / "root.json").read_bytes()

    def sees(self, target: str, *, cached: bool = True) -> bool:
        folder = self._folder / ("cache" if cached else "fresh")
        if not cached:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        updater = Updater(
            str(folder),
            f"{self._pw.url}/tuf/metadata/",
            fetcher=Urllib3Fetcher(),
            config=UpdaterConfig(),
            bootstrap=self._root,
        )
        updater.refresh()
        return updater.get_targetinfo(target) is not None


@pytest.fixture
def rotating(fresh: Fresh, tmp_path: Path) -> tuple[Operator, Reader]:
    """A fleet of its own with one version, and a device that has seen it."""
    pw = fresh()
    pw("keys", "init", "--plain")
    pw("models", "create", "detector", "--publisher", pw.keys / "publisher.pem")
    pw("publish", "detector", "1.0.0", "--variant", f"onnx={DIGITS / '1.0.0'}")
    reader = Reader(pw, tmp_path / "device")
    assert reader.sees("models/detector/1.0.0.json")
    return pw, reader


def _holders(pw: Operator) -> dict[str, set[str]]:
    return {row["role"]: set(row["keys"]) for row in pw.json("keys", "show")}


def test_every_role_gets_other_keys_and_no_device_is_left_behind(
    rotating: tuple[Operator, Reader],
) -> None:
    pw, reader = rotating
    first = _holders(pw)
    for words in (
        ("online",),
        ("director",),
        ("root", "--plain"),
        ("targets", "--plain"),
        ("publisher", "--model", "detector", "--plain"),
    ):
        assert "rotated" in pw("keys", "rotate", *words)
        for cached in (True, False):
            assert reader.sees("models/detector/1.0.0.json", cached=cached), words
    now = _holders(pw)
    for role, keys in first.items():
        assert not keys & now[role], role

    old = ("publish", "detector", "1.1.0", "--variant", f"onnx={DIGITS / '1.1.0'}")
    assert "not the publisher key of detector" in pw.fails(*old, "--key", pw.keys / "publisher.pem")
    pw(*old)
    assert reader.sees("models/detector/1.1.0.json")
    for role in ("root", "targets"):  # the new keys are the ones that work from now on
        pw("keys", "rotate", role, "--plain")
    pw("renew")
    assert reader.sees("models/detector/1.1.0.json")


def test_the_old_director_key_is_listed_until_it_is_retired(
    rotating: tuple[Operator, Reader],
) -> None:
    pw, _ = rotating
    assert "no old director key" in pw.fails("keys", "rotate", "director", "--retire-old")
    (first,) = _holders(pw)["director"]
    assert "listed until" in pw("keys", "rotate", "director", "--keep-old")
    both = _holders(pw)["director"]
    assert first in both
    assert len(both) == 2
    assert director_order(pw)[0] == first
    assert "listed until" in pw("keys", "rotate", "director", "--keep-old")
    order = director_order(pw)
    assert [order[0], order[1]] == [first, *(both - {first})]
    pw("keys", "rotate", "director", "--retire-old")
    assert _holders(pw)["director"] == {order[2]}
    assert director_order(pw) == []


def test_an_old_director_key_is_retired_unless_it_is_to_be_kept(
    rotating: tuple[Operator, Reader],
) -> None:
    pw, _ = rotating
    (first,) = _holders(pw)["director"]
    assert "no longer valid" in pw("keys", "rotate", "director")
    (second,) = _holders(pw)["director"]
    assert second != first
    for words in (
        ("director", "--retire-old", "--keep-old"),
        ("online", "--keep-old"),
        ("root", "--fresh-key"),
        ("director", "--retire-old", "--fresh-key"),
    ):
        pw.fails("keys", "rotate", *words, status=2)


@pytest.mark.parametrize("kind", ["online", "director"])
def test_a_key_that_waited_on_a_stolen_server_is_passed_over(
    rotating: tuple[Operator, Reader], kind: str
) -> None:
    """A thief of the server has the key that waits to follow, and may have made it wait."""
    pw, reader = rotating
    headers = {"Authorization": f"Bearer {pw.token}"}
    staged = httpx.post(f"{pw.url}/api/v1/trust/{kind}-key", headers=headers, timeout=30).json()
    role = {"online": "timestamp"}.get(kind, kind)
    pw("keys", "rotate", kind, "--fresh-key")
    (now,) = _holders(pw)[role]
    assert now != staged["keyid"]
    assert reader.sees("models/detector/1.0.0.json")
    pw("publish", "detector", "1.1.0", "--variant", f"onnx={DIGITS / '1.1.0'}")
    assert reader.sees("models/detector/1.1.0.json")


def director_order(pw: Operator) -> list[str]:
    """The listed director keys from the oldest to the newest, as the targets keys signed it."""
    headers = {"Authorization": f"Bearer {pw.token}"}
    url = f"{pw.url}/api/v1/trust/metadata/targets"
    signed = httpx.get(url, headers=headers, timeout=30).json()["signed"]
    order: list[str] = signed["targets"]["fleet/director"]["custom"].get("order", [])
    return order


def test_a_root_is_signed_by_people_who_hold_one_key_each(
    rotating: tuple[Operator, Reader], tmp_path: Path
) -> None:
    pw, reader = rotating
    homes = {}
    for number in (1, 2):
        homes[number] = tmp_path / f"holder-{number}"
        homes[number].mkdir()
        for suffix in ("pem", "keyid"):
            shutil.copy(pw.keys / f"root-{number}.{suffix}", homes[number])
    draft = tmp_path / "root.draft.json"
    first = pw.but(keys=homes[1])
    said = first("keys", "rotate", "root", "--plain", "--out", draft)
    assert "root lacks 1 signature" in said
    assert "root lacks 1 signature" in pw.fails("keys", "submit", draft)

    offline = pw.but(url="", token="")
    said = offline("keys", "sign", draft, "--key", homes[2] / "root-2.pem")
    assert "root gains" in said
    assert "root loses" in said
    assert "signed root by" in said
    assert "all its signatures" in offline("keys", "show", draft)
    pw("keys", "submit", draft)
    assert reader.sees("models/detector/1.0.0.json")
    assert "rotated" in first(
        "keys", "rotate", "root", "--plain"
    )  # the new keys are with the first
    assert "accepted before; no change" in pw("keys", "submit", draft)


def test_a_change_that_lacks_signatures_is_written_down_and_not_lost(
    rotating: tuple[Operator, Reader], tmp_path: Path
) -> None:
    pw, _ = rotating
    mine = tmp_path / "mine"
    mine.mkdir()
    shutil.copy(pw.keys / "targets-1.pem", mine)
    line = pw.but(keys=mine).fails("renew", "--role", "targets")
    assert "targets lacks 1 signature" in line
    draft = mine / "targets.draft.json"
    assert str(draft) in line
    pw("keys", "sign", draft, "--key", pw.keys / "targets-3.pem")
    pw("keys", "submit", draft)
    versions = {row["role"]: row["version"] for row in pw.json("status")["roles"]}
    assert versions["targets"] == 3


def test_renewing_changes_the_expiry_and_nothing_else(rotating: tuple[Operator, Reader]) -> None:
    pw, reader = rotating
    before = {row["role"]: row["version"] for row in pw.json("status")["roles"]}
    said = pw("renew")
    for role in ("root", "targets", "models-detector"):
        assert f"{role} is renewed" in said
    after = {row["role"]: row["version"] for row in pw.json("status")["roles"]}
    for role in ("root", "targets", "models-detector"):
        assert after[role] == before[role] + 1
    assert reader.sees("models/detector/1.0.0.json")
    draft = pw.home / "d.json"
    assert "no role" in pw.fails("renew", "--role", "models-nope", status=2)
    assert "no role" in pw.fails("renew", "--role", "timestamp", "--out", draft, status=2)


def test_a_draft_that_was_tampered_with_goes_nowhere_else(
    rotating: tuple[Operator, Reader], tmp_path: Path
) -> None:
    pw, _ = rotating
    mine = tmp_path / "mine"
    mine.mkdir()
    shutil.copy(pw.keys / "targets-1.pem", mine)
    pw.but(keys=mine).fails("renew", "--role", "targets")
    text = (mine / "targets.draft.json").read_text()
    for odd, said in (
        (text.replace('"/trust/targets"', '"/devices/cam-1/decommission"'), "handed in"),
        (text.replace('"/trust/targets"', '"/models/../../tokens/metadata"'), "handed in"),
        (text.replace('"targets"', '"root"'), "draft"),
        (text[: len(text) // 2], "draft"),
        ("[]", "draft"),
        ("", "draft"),
    ):
        (tmp_path / "odd.json").write_text(odd)
        assert said in pw.fails("keys", "submit", tmp_path / "odd.json", status=2)
    changed = tmp_path / "changed.json"
    changed.write_text(text.replace('"threshold": 2', '"threshold": 1', 1))
    pw.run("keys", "sign", changed, "--key", mine / "targets-1.pem")
    assert pw.run("keys", "submit", changed).returncode in (1, 2)
    versions = {row["role"]: row["version"] for row in pw.json("status")["roles"]}
    assert versions["targets"] == 2


def test_a_rotation_that_broke_off_can_be_made_again(rotating: tuple[Operator, Reader]) -> None:
    pw, reader = rotating
    headers = {"Authorization": f"Bearer {pw.token}"}
    staged = httpx.post(f"{pw.url}/api/v1/trust/online-key", headers=headers, timeout=30).json()
    again = httpx.post(f"{pw.url}/api/v1/trust/online-key", headers=headers, timeout=30).json()
    assert staged["keyid"] == again["keyid"]
    pw("keys", "rotate", "online")
    assert _holders(pw)["timestamp"] == {staged["keyid"]}
    assert reader.sees("models/detector/1.0.0.json")
    assert "--model" in pw.fails("keys", "rotate", "publisher", status=2)
    assert "no model" in pw.fails("keys", "rotate", "publisher", "--model", "nope", status=2)
    assert "--retire-old" in pw.fails("keys", "rotate", "root", "--retire-old", status=2)
    line = pw.fails("keys", "rotate", "root", "--plain", "--threshold", 9, status=2)
    assert "cannot be met" in line
