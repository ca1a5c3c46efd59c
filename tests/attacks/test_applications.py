"""A hostile application: a member of `apps_group` that writes where applications may write.

It must not have the agent write, change or remove anything of the agent's own, and must not speak
for, alter or remove what belongs to an application of another user.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pilotwave_agent import health, permissions
from pilotwave_agent.apps import heartbeats
from pilotwave_agent.apps.mailbox import Mailbox
from pilotwave_agent.check_in.metrics import Telemetry
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.host.shared_folder import MAX_EACH, MAX_SEEN, SharedFolder, remove_tree
from pilotwave_agent.live.generation import Version
from pilotwave_agent.live.heartbeat import Heartbeat
from pilotwave_agent.live.recorder import Recorder
from pilotwave_agent.settings import config as settings
from pilotwave_agent.settings.config import BadConfig, ProbeSettings
from pilotwave_agent.settings.tell import Tell
from pilotwave_agent.tell.base import Release
from pilotwave_agent.tell.deepstream import DeepStream
from pilotwave_agent.tell.folders import Folders
from pilotwave_protocol.messages.check_in import Installed
from tests.attacks.victim import Victim
from tests.peers.users import EYE, GROUP, OTHER, ROOT, as_user, group_name, open_folder

WALL = 1_900_000_000.0
needs_users = pytest.mark.skipif(not ROOT, reason="only root can act as two users")


@pytest.fixture
def data() -> Iterator[Path]:
    """A data folder that other users reach, with a secret in it."""
    with open_folder() as folder:
        (folder / "identity").mkdir(mode=0o700)
        secret = folder / "identity" / "device.key"
        secret.write_bytes(b"precious")
        secret.chmod(0o600)
        (folder / "models" / "detector").mkdir(parents=True)
        yield folder


@pytest.fixture
def live(data: Path) -> Path:
    heartbeats.prepare(data / "live", "detector", group_name())
    return data / "live"


@pytest.fixture
def mailbox(live: Path) -> Iterator[Mailbox]:
    made = Mailbox(live, group_name())
    yield made
    made.close()


def send(live: Path, words: Any) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(json.dumps(words).encode(), str(live / "agent.sock"))


def app(id: str, **more: Any) -> dict[str, Any]:
    said = {"schema": "pilotwave/app/1", "id": id, "model": "detector", "state": "serving"}
    return {**said, **more}


def sample(version: str = "1.0.0") -> dict[str, Any]:
    numbers = {"score": [0.5]}
    return {"schema": "pilotwave/sample/1", "model": "detector", "version": version} | {
        "numbers": numbers
    }


def telemetry_of(live: Path, **more: Any) -> Telemetry:
    return Telemetry(Disk(), live, live.parent / "telemetry" / "spool.json", **more)


def unharmed(data: Path) -> bool:
    key = data / "identity" / "device.key"
    modes = [stat.S_IMODE(os.lstat(p).st_mode) for p in (key, key.parent)]
    return key.read_bytes() == b"precious" and modes == [0o600, 0o700]


# --- the folder itself


@needs_users
@pytest.mark.parametrize(
    "attack",
    [
        lambda live: os.rename(live / "detector", live / "gone"),
        lambda live: os.symlink("../identity", live / "other"),
        lambda live: os.unlink(live / "agent.sock"),
        lambda live: os.rename(live / "agent.sock", live / "detector" / "agent.sock"),
        lambda live: os.mkdir(live / "evil"),
        lambda live: os.chmod(live / "detector", 0o1777),  # noqa: S103
    ],
    ids=["model's folder", "another model", "socket", "socket away", "new folder", "mode"],
)
def test_an_application_changes_nothing_in_the_folder_of_all(
    live: Path, mailbox: Mailbox, attack: Any
) -> None:
    assert as_user(EYE, lambda: attack(live)) == "PermissionError"
    assert sorted(os.listdir(live)) == ["agent.sock", "detector"]
    assert as_user(EYE, lambda: send(live, app("eye-1"))) == ""
    mailbox.empty()
    assert [a.app for a in heartbeats.read(live / "detector")] == ["eye-1"]


def test_a_link_in_place_of_a_models_folder_gets_no_rights(data: Path, live: Path) -> None:
    """Made while the folder of all was open to the group, as 0.1.0 left it."""
    (live / "detector").rmdir()
    (live / "detector").symlink_to(data / "identity")
    heartbeats.prepare(live, "detector", group_name())
    assert unharmed(data)
    assert stat.S_ISDIR(os.lstat(live / "detector").st_mode)


def test_what_an_earlier_release_left_open_is_closed(data: Path, live: Path) -> None:
    for folder in (live, live / "detector"):
        if ROOT:
            os.chown(folder, -1, GROUP)
        folder.chmod(0o2775)
    (live / "other").symlink_to(data / "identity")
    (live / "no-model").symlink_to(data / "identity")
    (data / "models" / "other").mkdir()
    layout = Layout(data)
    permissions.close_up(layout, group_name())
    permissions.check(layout)
    modes = {p.name: stat.S_IMODE(os.lstat(p).st_mode) for p in (live, *live.iterdir())}
    if ROOT:
        assert modes == {"live": 0o755, "detector": 0o1775, "other": 0o1775}
    assert not (live / "other").is_symlink()
    assert unharmed(data)


@needs_users
def test_a_folder_that_an_application_made_becomes_the_agents(data: Path, live: Path) -> None:
    (live / "detector").rmdir()
    live.chmod(0o777)
    for name in ("detector", "not-here-yet"):  # `LiveModel` of 0.1.0 did so, and waited
        assert as_user(EYE, lambda name=name: (live / name).mkdir(0o700)) == ""  # type: ignore[misc]
    permissions.close_up(Layout(data), group_name())
    permissions.check(Layout(data))
    found = os.lstat(live / "detector")
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (0, 0o1775)
    assert os.listdir(live) == ["detector"]


@needs_users
def test_the_agent_of_another_user_than_root_does_the_same(data: Path) -> None:
    """As a service it has a user of its own, who cannot give folders away."""
    for path in (data, *data.rglob("*")):
        os.chown(path, OTHER, OTHER)

    def start() -> None:
        live = data / "live"
        live.mkdir()
        live.chmod(0o2777)

    def agent() -> None:
        permissions.close_up(Layout(data), group_name())
        permissions.check(Layout(data))
        Mailbox(data / "live", group_name()).close()
        found = os.lstat(data / "live" / "detector")
        assert (found.st_uid, found.st_gid) == (OTHER, GROUP)
        assert stat.S_IMODE(found.st_mode) == 0o1775
        assert stat.S_IMODE(os.lstat(data / "live").st_mode) == 0o755

    assert as_user(OTHER, start, groups=(OTHER, GROUP)) == ""
    assert as_user(EYE, lambda: (data / "live" / "detector").mkdir(0o700)) == ""
    assert as_user(EYE, lambda: (data / "live" / "detector" / "x").touch()) == ""
    assert as_user(OTHER, agent, groups=(OTHER, GROUP)) == ""


@needs_users
def test_a_socket_is_never_open_to_all_whatever_the_umask(data: Path, live: Path) -> None:
    before = os.umask(0)
    try:
        mailbox = Mailbox(live, group_name())
    finally:
        os.umask(before)
    found = os.lstat(live / "agent.sock")
    assert (found.st_gid, stat.S_IMODE(found.st_mode)) == (GROUP, 0o660)
    assert as_user(EYE, lambda: send(live, app("a")), groups=(OTHER,)) == "PermissionError"
    mailbox.close()


@pytest.mark.parametrize("thing", ["folder", "full folder", "link", "fifo"])
def test_what_lies_in_the_sockets_place_does_not_keep_the_agent_from_it(
    data: Path, live: Path, thing: str
) -> None:
    place = live / "agent.sock"
    if thing == "link":
        place.symlink_to(data / "identity" / "device.key")
    elif thing == "fifo":
        os.mkfifo(place)
    else:
        place.mkdir()
    if thing == "full folder":
        (place / "x").touch()
    mailbox = Mailbox(live, group_name())
    send(live, app("eye-1"))
    mailbox.empty()
    mailbox.close()
    assert len(heartbeats.read(live / "detector")) == 1
    assert unharmed(data)


# --- links in a model's folder


def plant(folder: Path, target: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).symlink_to(target)


def test_no_link_has_the_agent_write_elsewhere(data: Path, live: Path, mailbox: Mailbox) -> None:
    """The names that the agent writes to were known: a link there overwrote the device key."""
    folder, key = live / "detector", data / "identity" / "device.key"
    windows = [f"mail-{os.getpid()}.{n}.window" for n in range(1, 9)]
    temps = [f".{name}.new" for name in ("eye-1.json", *windows)]
    mine = [f".{name}.mine" for name in windows]
    plant(folder, key, [*temps, *mine, "eye-1.json", *windows])
    for _ in range(3):
        send(live, app("eye-1"))
        send(live, sample())
        mailbox.empty()
        mailbox.flush()
        telemetry_of(live).collect(WALL)
    assert unharmed(data)


@needs_users
def test_no_link_has_one_application_write_over_anothers(live: Path, data: Path) -> None:
    """`LiveModel` writes in the same folder as applications of other users."""
    precious = data / "of-eye"
    precious.write_bytes(b"precious")
    os.chown(precious, EYE, EYE)
    folder = live / "detector"
    desk = Heartbeat(folder, "eye", 15)
    recorder = Recorder(folder, desk.id)
    temps = [f".{desk.path.name}.new", f".{desk.id}.1.window.new", f".{desk.id}.2.window.new"]
    assert as_user(OTHER, lambda: plant(folder, precious, temps)) == ""

    def serve() -> None:
        desk.tell(state="serving", serving="1.0.0-x", refused=None)
        for _ in range(2):
            recorder.value(Version("detector", "1.0.0", "", "", "x", Path()), "score", 1)
            recorder.flush()

    assert as_user(EYE, serve) == ""
    assert precious.read_bytes() == b"precious"
    assert [a.serving for a in heartbeats.read(folder)] == ["1.0.0-x"]
    telemetry = telemetry_of(live)
    telemetry.collect(WALL)
    assert [r.sketch.count for r in telemetry.pending()] == [2]


def test_a_models_folder_that_is_a_link_is_neither_read_nor_written(data: Path) -> None:
    elsewhere = data / "elsewhere"
    elsewhere.mkdir()
    window = {"schema": "pilotwave/window/1", "version": "1.0.0", "begun": 1, "ended": 2}
    (elsewhere / "a.window").write_text(json.dumps({**window, "sketches": {}}))
    (elsewhere / "a.json").write_text(json.dumps(app("x", app="x", beat=0, heartbeat_s=1)))
    (data / "live").mkdir()
    (data / "live" / "detector").symlink_to(elsewhere)
    mailbox = Mailbox(data / "live", "")
    send(data / "live", app("eye-1"))
    mailbox.empty()
    telemetry_of(data / "live").collect(WALL)
    mailbox.close()
    assert heartbeats.read(data / "live" / "detector") == []
    assert sorted(os.listdir(elsewhere)) == ["a.json", "a.window"]


# --- applications of other users


@needs_users
def test_an_application_removes_and_replaces_nothing_of_anothers(live: Path) -> None:
    folder = live / "detector"
    desk = Heartbeat(folder, "eye", 15)
    tell = {"state": "serving", "serving": "1.0.0-x", "refused": None}
    assert as_user(EYE, lambda: desk.tell(**tell)) == ""  # type: ignore[arg-type]

    def replace() -> None:
        (folder / "mine").write_text("{}")
        os.rename(folder / "mine", desk.path)

    for attack in (desk.path.unlink, replace, lambda: desk.path.write_text("")):
        assert as_user(OTHER, attack) == "PermissionError"
    assert [a.serving for a in heartbeats.read(folder)] == ["1.0.0-x"]


@needs_users
def test_nobody_speaks_at_anothers_desk(live: Path, mailbox: Mailbox) -> None:
    assert as_user(EYE, lambda: send(live, app("eye-1", serving="1.0.0-x"))) == ""
    mailbox.empty()
    assert as_user(OTHER, lambda: send(live, app("eye-1", serving="forged"))) == ""
    mailbox.empty()
    assert [a.serving for a in heartbeats.read(live / "detector")] == ["1.0.0-x"]
    mailbox.close()
    again = Mailbox(live, group_name())  # the agent was restarted
    assert as_user(OTHER, lambda: send(live, app("eye-1", serving="forged"))) == ""
    again.empty()
    assert as_user(EYE, lambda: send(live, app("eye-1", serving="1.1.0-x"))) == ""
    again.empty()
    assert [a.serving for a in heartbeats.read(live / "detector")] == ["1.1.0-x"]
    desk = Heartbeat(live / "detector", "eye", 15)
    desk.path = live / "detector" / "eye-2.json"
    tell = {"state": "serving", "serving": "by file", "refused": None}
    assert as_user(EYE, lambda: desk.tell(**tell)) == ""  # type: ignore[arg-type]
    assert as_user(OTHER, lambda: send(live, app("eye-2", serving="forged"))) == ""
    again.empty()
    assert [a.serving for a in heartbeats.read(live / "detector")] == ["1.1.0-x", "by file"]
    again.close()


@needs_users
def test_only_the_users_of_a_model_are_heard_where_the_settings_name_them(live: Path) -> None:
    """A false refusal would send a good version back; forged numbers would move a gate."""
    users = {"detector": (EYE,)}
    folder = live / "detector"
    mailbox = Mailbox(live, group_name(), users)

    def speak(name: str) -> None:
        desk = Heartbeat(folder, name, 15)
        desk.tell(state="serving", serving=name, refused=None)
        recorder = Recorder(folder, desk.id)
        recorder.value(Version("detector", "1.0.0", "", "", "x", Path()), "score", 1)
        recorder.flush()
        send(live, app(f"{name}-mail", serving=name))
        send(live, sample())

    for uid, name in ((EYE, "eye"), (OTHER, "other")):
        assert as_user(uid, lambda name=name: speak(name)) == ""  # type: ignore[misc]
    mailbox.empty()
    mailbox.flush()
    assert {a.serving for a in heartbeats.read(folder, users["detector"])} == {"eye"}
    telemetry = telemetry_of(live, users=users)
    telemetry.collect(WALL)
    assert sum(r.sketch.count for r in telemetry.pending()) == 2
    mailbox.close()


def test_settings_name_the_users_of_a_model(tmp_path: Path) -> None:
    base = {"server": "http://x", "device": "cam-1", "data_dir": "."}
    found = settings.parse({**base, "app_users": {"detector": ["root", "1234"]}}, base=tmp_path)
    assert found.app_users == {"detector": (0, 1234)}
    with pytest.raises(BadConfig, match="names or numbers of users"):
        settings.parse({**base, "app_users": {"detector": ["nobody here"]}}, base=tmp_path)


# --- what else can lie in a folder


def clutter(folder: Path, data: Path) -> None:
    for ending in ("json", "window", "taken"):
        os.mkfifo(folder / f"fifo.{ending}")
        (folder / f"folder.{ending}").mkdir()
        (folder / f"full.{ending}").mkdir()
        (folder / f"full.{ending}" / "x").touch()
        plant(folder, data / "identity" / "device.key", [f"link.{ending}"])
        with (folder / f"sparse.{ending}").open("wb") as stream:
            stream.truncate(1 << 40)
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(str(folder / f"socket.{ending}"))
        for number, name in enumerate(("\n", "\x1b[2J", "\u202e", "a" * 240, "-rf", "..x", " ")):
            (folder / f"{name}{number}.{ending}").write_text("{")
        (folder / os.fsdecode(b"\xff." + ending.encode())).write_bytes(b"\xff")


def test_a_folder_full_of_odd_things_is_read_past(data: Path, live: Path) -> None:
    folder = live / "detector"
    clutter(folder, data)
    desk = Heartbeat(folder, "eye", 15)
    desk.tell(state="serving", serving="1.0.0-x", refused=None)
    recorder = Recorder(folder, desk.id)
    recorder.value(Version("detector", "1.0.0", "", "", "x", Path()), "score", 1)
    recorder.flush()
    telemetry = telemetry_of(live)
    begun = time.monotonic()
    for _ in range(3):
        telemetry.collect(WALL)
    assert time.monotonic() - begun < 5
    assert [r.sketch.count for r in telemetry.pending()] == [1]
    assert [a.serving for a in heartbeats.read(folder)] == ["1.0.0-x"]
    left = [n for n in os.listdir(folder) if n.endswith((".window", ".taken"))]
    assert sorted(left) == ["..x5.taken", "..x5.window"]  # hidden names are nobody's until they age
    assert unharmed(data)


@needs_users
def test_a_hundred_thousand_files_keep_nobody_from_being_heard(live: Path) -> None:
    folder = live / "detector"

    def crowd() -> None:
        for number in range(100_000):
            os.close(os.open(folder / f"{number}.json", os.O_CREAT | os.O_WRONLY))

    assert as_user(OTHER, crowd) == ""
    desk = Heartbeat(folder, "zzz", 15)
    tell = {"state": "serving", "serving": "1.0.0-x", "refused": None}
    assert as_user(EYE, lambda: desk.tell(**tell)) == ""  # type: ignore[arg-type]
    begun = time.monotonic()
    telemetry_of(live).collect(WALL)
    assert time.monotonic() - begun < 30
    assert len(os.listdir(folder)) <= 2 * MAX_EACH
    assert [a.serving for a in heartbeats.read(folder)] == ["1.0.0-x"]


@needs_users
def test_folders_that_cannot_be_removed_do_not_crowd_others_out(data: Path) -> None:
    """The agent of a user of its own cannot empty them; it makes itself a new folder."""
    for path in (data, *data.rglob("*")):
        os.chown(path, OTHER, OTHER)
    live = data / "live"
    prepare = lambda: heartbeats.prepare(live, "detector", group_name())  # noqa: E731
    assert as_user(OTHER, prepare, groups=(OTHER, GROUP)) == ""

    def crowd() -> None:
        for number in range(MAX_SEEN + MAX_EACH):
            (live / "detector" / f"{number}.json").mkdir(0o700)
            (live / "detector" / f"{number}.json" / "x").touch()

    assert as_user(EYE, crowd) == ""
    tidy = lambda: heartbeats.tidy(live, "detector")  # noqa: E731
    assert as_user(OTHER, tidy, groups=(OTHER, GROUP)) == ""
    found = os.lstat(live / "detector")
    assert (os.listdir(live / "detector"), stat.S_IMODE(found.st_mode)) == ([], 0o1775)


def test_old_desks_go_and_young_ones_stay(live: Path) -> None:
    folder = live / "detector"
    for name, age in (("a.json", 90_000), ("b.json", 60), (".a.new", 7200), (".b.new", 60)):
        (folder / name).touch()
        os.utime(folder / name, (time.time() - age,) * 2)
    heartbeats.tidy(live, "detector")
    assert sorted(os.listdir(folder)) == [".b.new", "b.json"]


def test_a_hard_link_is_not_taken_for_a_desk(data: Path, live: Path) -> None:
    kept = data / "status.json"
    kept.write_text(json.dumps(app("x", app="x", beat=heartbeats.uptime(), heartbeat_s=15)))
    os.link(kept, live / "detector" / "x.json")
    assert heartbeats.read(live / "detector") == []


def test_words_of_an_application_are_shown_without_control_signs(live: Path) -> None:
    desk = Heartbeat(live / "detector", "eye", 15)
    desk.tell(state="serving", serving="1.0\n\x1b[2Jforged line\u202e", refused=None)
    subject = health.Subject("detector", "1.0.0", Path("/x/1.0.0-x"), "probation")
    no = health.ask(ProbeSettings("apps"), subject, lambda: None, live=live)
    assert no is not None
    assert no.sentence.isprintable()


# --- removing


def test_a_tree_is_removed_however_it_is_made(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    top = tmp_path / "top"
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for number in range(1500):  # deeper than a path may be long, or a descriptor be had for each
        os.mkdir("d" * 20, dir_fd=here)
        os.symlink(outside, f"link-{number}", dir_fd=here)
        inner = os.open("d" * 20, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    (top / "closed").mkdir(0o000)
    remove_tree(top)
    assert not top.exists()
    assert (outside / "kept").exists()


@needs_users
def test_a_tree_that_keeps_its_owner_out_is_removed_by_the_owner() -> None:
    with open_folder() as folder:
        folder.chmod(0o777)

        def build_and_remove() -> None:
            (folder / "top" / "in").mkdir(parents=True)
            (folder / "top" / "in" / "x").touch()
            (folder / "top" / "in").chmod(0)
            (folder / "top").chmod(0)
            remove_tree(folder / "top")

        assert as_user(EYE, build_and_remove) == ""
        assert list(folder.iterdir()) == []


def test_a_link_is_not_opened_as_a_folder(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "x").touch()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    with pytest.raises(OSError, match=r"link|directory"):
        remove_tree(tmp_path / "link")
    with pytest.raises(OSError, match=r"link|directory"):
        SharedFolder(tmp_path / "link")
    assert (tmp_path / "kept" / "x").exists()


# --- files and repositories of serving layers


def release(data: Path, number: int) -> Release:
    path = data / "models" / "detector" / "versions" / "1.0.0-x"
    path.mkdir(parents=True, exist_ok=True)
    (path / "model.onnx").write_bytes(b"model")
    return Release("detector", "1.0.0", "onnx", number, path, "model.onnx", "probation")


@pytest.mark.parametrize("thing", ["link", "fifo", "hard link"])
def test_a_file_for_deepstream_that_is_something_else_is_not_written(
    data: Path, thing: str
) -> None:
    file, key = data / "override.txt", data / "identity" / "device.key"
    if thing == "link":
        file.symlink_to(key)
    elif thing == "fifo":
        os.mkfifo(file)
    else:
        os.link(key, file)
    with pytest.raises(OSError, match=r"override\.txt"):
        DeepStream(Tell("deepstream", file=file)).activate(release(data, 1))
    assert unharmed(data)


@pytest.mark.parametrize("place", [".tmp-1", ".pilotwave", "..pilotwave.new"])
def test_a_link_in_a_model_repository_leads_nowhere(data: Path, place: str) -> None:
    base = data / "repository"
    base.mkdir()
    (base / place).symlink_to(data / "identity" / ("" if place == ".tmp-1" else "device.key"))
    Folders(Disk(), base, rename=True).stage(release(data, 1))
    assert (base / "1" / "model.onnx").read_bytes() == b"model"
    assert unharmed(data)
    assert os.listdir(data / "identity") == ["device.key"]


# --- the whole agent


@needs_users
def test_a_device_under_attack_keeps_its_key_journal_and_trust(victim: Victim) -> None:
    """The folders as 0.1.0 made them, with links to all that matters, while a version comes."""
    device, registry = victim.device, victim.registry
    layout = device.layout
    device.set(apps_group=group_name())
    device.work(boot=True)
    live = layout.live
    for folder in (live, live / "detector"):
        os.chown(folder, -1, GROUP)
        folder.chmod(0o2775)
    kept = {p: p.read_bytes() for p in (layout.key, layout.pinned_root)}
    (live / "detector").rename(live / "old")
    (live / "detector").symlink_to(layout.key.parent)
    mode = stat.S_IMODE(layout.key.parent.stat().st_mode)
    registry.order(victim.new)
    device.work(refresh=True)
    assert device.current().startswith("1.1.0-")
    assert {p: p.read_bytes() for p in kept} == kept
    assert stat.S_IMODE(layout.key.parent.stat().st_mode) == mode
    assert layout.key.parent.stat().st_gid != GROUP
    assert isinstance(device.slot().current, Installed)
