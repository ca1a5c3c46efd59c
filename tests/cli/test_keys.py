"""Making keys, and the ways in which that goes wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from tests.cli.conftest import DIGITS
from tests.cli.operator import Operator

Fresh = Callable[..., Operator]


def test_init_makes_the_keys_and_says_what_belongs_where(fresh: Fresh) -> None:
    pw = fresh()
    said = pw("keys", "init", "--fleet", "test-fleet", "--plain")
    for word in ("root.json", "to every device", "offline", "publisher.pem", "never leave it"):
        assert word in said
    for stem in ("root-1", "root-3", "targets-3", "publisher"):
        assert (pw.keys / f"{stem}.pem").stat().st_mode & 0o777 == 0o600
    assert not (pw.keys / "bootstrap.json").exists()
    roles = {row["role"]: row for row in pw.json("keys", "show")}
    assert (len(roles["root"]["keys"]), roles["root"]["threshold"]) == (3, 2)
    assert {"targets", "snapshot", "timestamp", "director"} <= roles.keys()
    status = pw.json("status")
    assert status["bootstrapped"]
    assert {role["role"] for role in status["roles"]} == {
        "root",
        "targets",
        "snapshot",
        "timestamp",
    }


def test_init_takes_other_numbers_and_refuses_impossible_ones(fresh: Fresh) -> None:
    pw = fresh()
    line = pw.fails("keys", "init", "--plain", "--root-keys", 2, "--root-threshold", 3, status=2)
    assert "3 of 2 keys can never sign" in line
    pw("keys", "init", "--plain", "--root-keys", 1, "--root-threshold", 1, "--targets-keys", 2)
    roles = {row["role"]: row for row in pw.json("keys", "show")}
    assert len(roles["root"]["keys"]) == 1
    assert len(roles["targets"]["keys"]) == 2


def test_keys_with_a_passphrase_need_it(fresh: Fresh, tmp_path: Path) -> None:
    pw = fresh()
    assert "--passphrase-file" in pw.fails("keys", "init", status=2)
    secret = tmp_path / "secret"
    secret.write_text("correct horse\n")
    pw("keys", "init", "--passphrase-file", secret)
    assert b"ENCRYPTED" in (pw.keys / "root-1.pem").read_bytes()

    create = ("models", "create", "detector", "--publisher", pw.keys / "publisher.pem")
    assert "give its passphrase" in pw.fails(*create, status=2)
    wrong = pw.but(extra={"PILOTWAVE_PASSPHRASE": "wrong"})
    assert "wrong passphrase" in wrong.fails(*create, status=2)
    pw(*create, "--passphrase-file", secret)
    knows = pw.but(extra={"PILOTWAVE_PASSPHRASE": "correct horse"})
    knows("publish", "detector", "1.0.0", "--variant", f"onnx={DIGITS / '1.0.0'}")
    assert "wrong passphrase" in wrong.fails("renew", "--role", "root", status=2)


def test_an_empty_passphrase_never_makes_a_plain_key_by_accident(
    fresh: Fresh, tmp_path: Path
) -> None:
    pw = fresh().but(extra={"PILOTWAVE_PASSPHRASE": ""})
    assert "give a passphrase" in pw.fails("keys", "init", status=2)
    (tmp_path / "empty").write_text("\n")
    line = pw.fails("keys", "init", "--passphrase-file", tmp_path / "empty", status=2)
    assert "the file is empty" in line
    assert "not both" in pw.fails(
        "keys", "init", "--plain", "--passphrase-file", tmp_path / "empty", status=2
    )


def test_a_fleet_gets_its_root_of_trust_once(pw: Operator, tmp_path: Path) -> None:
    other = pw.but(keys=tmp_path / "other")
    assert "root of trust already" in other.fails("keys", "init", "--plain")
    assert not other.keys.exists()


def test_init_never_overwrites_a_key(fresh: Fresh) -> None:
    pw = fresh()
    pw.keys.mkdir()
    (pw.keys / "targets-2.pem").write_text("precious")
    assert "exists already" in pw.fails("keys", "init", "--plain", status=2)
    assert [p.name for p in pw.keys.iterdir()] == ["targets-2.pem"]


def test_a_fleet_of_another_name_is_refused(fresh: Fresh) -> None:
    pw = fresh()
    line = pw.fails("keys", "init", "--fleet", "other", "--plain", status=2)
    assert "serves the fleet test-fleet, not other" in line
    assert "fleet name" in pw.fails("keys", "init", "--fleet", "../x", "--plain", status=2)
    assert not pw.keys.exists()


def test_keys_are_made_offline_and_handed_in_later(fresh: Fresh, tmp_path: Path) -> None:
    pw = fresh()
    headers = {"Authorization": f"Bearer {pw.token}"}
    answer = httpx.get(f"{pw.url}/api/v1/trust/server-keys", headers=headers, timeout=30)
    (tmp_path / "server.json").write_bytes(answer.content)
    offline = pw.but(url="", token="")
    assert "go together" in offline.fails("keys", "init", "--plain", "--offline", status=2)
    offline("keys", "init", "--plain", "--offline", "--server-keys", tmp_path / "server.json")
    assert "director gains" in offline("keys", "show", pw.keys / "bootstrap.json")
    assert "was accepted" in pw("keys", "submit", pw.keys / "bootstrap.json")
    assert pw.json("status")["bootstrapped"]

    (tmp_path / "bad.json").write_text('{"online": []}')
    again = ("keys", "init", "--plain", "--offline", "--dir", tmp_path / "k2", "--server-keys")
    assert "the server's public keys" in offline.fails(*again, tmp_path / "bad.json", status=2)
    assert "cannot be read" in offline.fails(*again, tmp_path / "none.json", status=2)


def test_keys_that_could_not_be_handed_in_are_not_lost(fresh: Fresh) -> None:
    pw = fresh()
    viewer = json.loads(pw("tokens", "create", "looker", "--role", "viewer", "--json"))["token"]
    line = pw.but(token=viewer).fails("keys", "init", "--plain")
    assert "keys submit" in line
    assert not pw.json("status")["bootstrapped"]
    pw("keys", "submit", pw.keys / "bootstrap.json")
    assert pw.json("status")["bootstrapped"]


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (None, 0o600, "no such file; expected a key"),
        ("not a key", 0o600, "expected a PEM private key"),
        ("{}", 0o600, "expected a key reference"),
        ("plain key", 0o644, "chmod 600"),
    ],
)
def test_a_key_file_that_does_not_work_is_named(
    pw: Operator, model: str, tmp_path: Path, content: str | None, mode: int, said: str
) -> None:
    key = tmp_path / "k.pem"
    if content is not None:
        plain = content == "plain key"
        key.write_text((pw.keys / "publisher.pem").read_text() if plain else content)
        key.chmod(mode)
    line = pw.fails(
        "publish", model, "1.0.0", "--variant", f"onnx={DIGITS / '1.0.0'}", "--key", key, status=2
    )
    assert said in line
    assert str(key) in line


def _public_half(pw: Operator, stem: str, target: Path) -> Path:
    private = load_pem_private_key((pw.keys / f"{stem}.pem").read_bytes(), None)
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    target.write_bytes(pem)
    return target


def test_a_key_reference_works_wherever_a_key_file_does(
    pw: Operator, model: str, name: str, tmp_path: Path
) -> None:
    uri = f"file2:{pw.keys / 'publisher.pem'}"
    public = _public_half(pw, "publisher", tmp_path / "public.pem")
    reference = tmp_path / "publisher.key.json"
    pw("keys", "reference", uri, "--public-key", public, "--out", reference)
    assert "exists already" in pw.fails(
        "keys", "reference", uri, "--public-key", public, "--out", reference, status=2
    )
    pw("models", "create", name, "--publisher", reference)
    for what in (model, name):
        pw("publish", what, "1.0.0", "--variant", f"o={DIGITS / '1.0.0'}", "--key", reference)

    folder = pw.but(keys=tmp_path)  # a reference in the keys folder is found by itself
    folder("publish", model, "1.1.0", "--variant", f"onnx={DIGITS / '1.1.0'}")


def test_the_uri_of_a_key_store_is_tried_against_the_keys_that_may_sign(
    pw: Operator, model: str, tmp_path: Path
) -> None:
    publish = ("publish", model, "1.0.0", "--variant", f"onnx={DIGITS / '1.0.0'}", "--key")
    line = pw.fails(*publish, "gcpkms:projects/p/locations/l/keyRings/r/cryptoKeys/k", status=2)
    assert "google-cloud-kms" in line
    line = pw.fails("models", "create", "x", "--publisher", "awskms:key", status=2)
    assert "keys reference" in line

    public = _public_half(pw, "root-1", tmp_path / "other.pem")
    make = ("keys", "reference", f"file2:{pw.keys / 'publisher.pem'}", "--out", tmp_path / "r.json")
    assert "is another one" in pw.fails(*make, "--public-key", public, status=2)
    assert "PEM public key" in pw.fails(*make, "--public-key", __file__, status=2)


def test_who_may_sign_is_read_from_a_document_that_is_a_file(pw: Operator) -> None:
    rows = {row["role"]: row for row in pw.json("keys", "show", pw.keys / "root.json")}
    assert (len(rows["root"]["keys"]), rows["root"]["threshold"]) == (3, 2)
    assert "timestamp" in pw("keys", "show", pw.keys / "root.json")
    line = pw.fails("keys", "show", pw.keys / "root-1.keyid", status=2)
    assert "expected a draft" in line


def test_file_that_is_no_key_is_named_without_an_option_that_means_another(
    pw: Operator, tmp_path: Path, name: str
) -> None:
    missing = tmp_path / "missing.pem"
    line = pw.fails("models", "create", name, "--publisher", missing, status=2)
    assert f"{missing}: no such file; expected a key" in line
    assert "--key" not in line


def test_draft_is_written_though_its_folder_is_not_there_yet(
    pw: Operator, tmp_path: Path, name: str
) -> None:
    key = tmp_path / "publisher.pem"
    key.write_bytes((pw.keys / "publisher.pem").read_bytes())
    key.chmod(0o600)
    elsewhere = pw.but(keys=tmp_path / "none" / "keys")
    line = elsewhere.fails_with_warning("models", "create", name, "--publisher", key)
    draft = tmp_path / "none" / "keys" / f"create-{name}.draft.json"
    assert f"{draft} waits for signatures" in line
    assert draft.exists()
    blocked = pw.but(keys=key / "keys")
    done = blocked.run("models", "create", name, "--publisher", key)
    line = done.stderr.splitlines()[-1]
    assert done.returncode == 2
    assert ".new" not in line
    assert "cannot be written: Not a directory; name another --out" in line


def test_the_agent_s_own_model_is_made_by_whoever_knows_what_it_is(fresh: Fresh) -> None:
    pw = fresh()
    pw("keys", "init", "--plain")
    create = ("models", "create", "pilotwave-agent", "--publisher", pw.keys / "publisher.pem")
    line = pw.fails(*create, status=2)
    assert "reserved for the agent itself" in line
    assert "--yes" in line
    assert "Created model pilotwave-agent" in pw(*create, "--yes")
    model = f"v={DIGITS / '1.0.0'}"
    line = pw.fails("publish", "pilotwave-agent", "0.2.0", "--variant", model, "--no-try")
    assert "pilotwave-agent is the agent itself, which is a wheelhouse or a command" in line
