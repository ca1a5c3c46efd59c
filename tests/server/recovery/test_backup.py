"""A backup holds one moment of the fleet; a restore brings it back where nothing is, on either
database, and says what it lacks."""

from __future__ import annotations

import base64
import json
import shutil
import sqlite3
import tarfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import delete, select
from typer.testing import CliRunner

from pilotwave_protocol.auditchain import check
from pilotwave_server.app import create_app
from pilotwave_server.audit.service import all_events
from pilotwave_server.cli import app as commands
from pilotwave_server.context import Context
from pilotwave_server.db import Database
from pilotwave_server.devices.report_tables import DeviceHistoryRow
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.schema import metadata
from pilotwave_server.settings import Settings
from tests import databases
from tests.conftest import START, FakeClock, token_client
from tests.server.device_api.peer import SimulatedDevice
from tests.server.fleet_fixtures import Fleet, only_sqlite
from tests.servers import run_in_thread

pytestmark = pytest.mark.long

PASSPHRASE = "a passphrase of tests"
MADE_ANEW = {"audit_events", "audit_head", "deltas"}


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    file = tmp_path / "passphrase"
    file.write_text(PASSPHRASE + "\n")
    return file


def run(*words: object, status: int = 0) -> str:
    done = CliRunner().invoke(commands, [str(word) for word in words])
    assert done.exit_code == status, done.output + repr(done.exception)
    return done.output


def of(settings: Settings) -> list[str]:
    return ["--data", str(settings.data_dir), "--database-url", settings.database_url]


def rows(url: str) -> dict[str, list[Any]]:
    """All that a database holds."""
    db = Database(url)
    try:
        with db.read() as session:
            return {
                table.name: [tuple(r) for r in session.execute(
                    select(table).order_by(*table.primary_key))]
                for table in metadata.sorted_tables
            }  # fmt: skip
    finally:
        db.close()


@dataclass
class Elsewhere:
    """An empty place for a server."""

    settings: Settings
    same: bool

    def restore(self, backup: Path, *words: object, status: int = 0) -> str:
        return run("restore", "--from", backup, *of(self.settings), *words, status=status)


@pytest.fixture(params=["same", "other"])
def elsewhere(
    request: pytest.FixtureRequest, database_kind: str, tmp_path: Path
) -> Iterator[Elsewhere]:
    """Of the same kind of database, and of the other."""
    other = {"sqlite": "postgresql", "postgresql": "sqlite"}[database_kind]
    kind = database_kind if request.param == "same" else other
    folder = tmp_path / "elsewhere"
    with ExitStack() as stack:
        if kind == "sqlite":
            url = f"sqlite:///{folder / 'pilotwave.db'}"
        else:
            server = request.getfixturevalue("postgres_url")
            url = stack.enter_context(databases.fresh_postgres(server))
        settings = Settings(data_dir=folder, database_url=url, delta_processes=0)
        yield Elsewhere(settings, same=kind == database_kind)


@pytest.fixture
def lived(fleet: Fleet) -> list[SimulatedDevice]:
    """A fleet with a little of everything."""
    fleet.group("all", "*")
    fleet.assign("all", "1.0.0")
    devices = [fleet.device(f"cam-{n}", site="a") for n in range(3)]
    fleet.deny("1.2.0")
    for device in devices:
        device.check_in()
    return devices


def test_a_restored_server_holds_all_and_serves_its_devices(
    fleet: Fleet,
    lived: list[SimulatedDevice],
    settings: Settings,
    elsewhere: Elsewhere,
    passphrase: Path,
    operator_token: str,
    clock: FakeClock,
    tmp_path: Path,
) -> None:
    # a folder within one kind of database, a tar from one to the other
    name = "backup" if elsewhere.same else "backup.tar"
    backup, locked = tmp_path / name, ("--passphrase-file", passphrase)
    before = rows(settings.database_url)
    said = run("backup", "--to", backup, *locked, *of(settings))
    assert "files of models" in said
    said = elsewhere.restore(backup, *locked)
    assert "the fleet test-fleet is back" in said
    assert "timestamp:" in said
    after = rows(elsewhere.settings.database_url)
    lifted = {"fleet_state", "tuf_metadata", "notices", "server_processes"}
    for table, content in before.items():
        if table not in MADE_ANEW | lifted:
            assert after[table] == content, table
    db = Database(elsewhere.settings.database_url)
    with db.read() as session:
        found = check(all_events(session))
        assert found.fault is None
    db.close()
    old = {p.name: p.read_bytes() for p in (settings.data_dir / "blobs").rglob("?" * 64)}
    new = elsewhere.settings.data_dir / "blobs"
    assert {p.name: p.read_bytes() for p in new.rglob("?" * 64)} == old
    keys = elsewhere.settings.keys_dir
    assert (keys / "online-1.pem").stat().st_mode & 0o777 == 0o600
    assert elsewhere.settings.data_dir.stat().st_mode & 0o777 == 0o700
    assert not list(tmp_path.glob(".*"))  # nothing half-made is left
    with run_in_thread(create_app(elsewhere.settings, clock=clock)) as running:
        for device in lived:
            device.http = httpx.Client(base_url=running.url, timeout=30)
            assert device.check_in().status_code == 200
            assert device.runs() == {"detector": "1.0.0"}
            device.http.close()
        # rows are counted on from where they were
        with token_client(running, operator_token) as client:
            answer = client.post("/api/v1/groups", json={"name": "later", "selector": None})
            assert answer.status_code == 201, answer.text


def test_no_key_lies_open_in_a_backup(
    fleet: Fleet, settings: Settings, passphrase: Path, tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    run("backup", "--to", backup, "--passphrase-file", passphrase, *of(settings))
    keys = [p.read_bytes() for p in settings.keys_dir.iterdir() if p.suffix in (".pem", ".json")]
    assert len(keys) >= 3
    everything = b"".join(p.read_bytes() for p in backup.rglob("*") if p.is_file())
    for key in keys:
        for line in key.splitlines()[1:-1] or [key]:
            assert line not in everything
    assert not list(backup.rglob("*.pem"))
    assert not (backup / "tuf").exists()
    passphrase.write_text("another passphrase\n")
    place = tmp_path / "elsewhere"
    words = ("--data", place, "--passphrase-file", passphrase)
    assert "do not open" in run("restore", "--from", backup, *words, status=2)
    assert not place.exists()


@only_sqlite
def test_a_backup_is_one_moment_while_devices_write(
    fleet: Fleet, lived: list[SimulatedDevice], settings: Settings, tmp_path: Path
) -> None:
    """The audit log's chain and its head are written by one transaction: they fit in each."""
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            fleet.group(f"g{number}", "*")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for n in range(4):
            run("backup", "--to", tmp_path / f"b{n}", "--without-keys", *of(settings))
    finally:
        stop.set()
        thread.join()
    counts = []
    for n in range(4):
        contents = json.loads((tmp_path / f"b{n}/backup.json").read_text())
        db = Database(f"sqlite:///{tmp_path / f'b{n}' / 'database.sqlite'}")
        with db.read() as session:
            found = check(all_events(session))
        db.close()
        assert (found.fault, found.events, found.head) == (
            None,
            contents["events"],
            contents["head"],
        )
        counts.append(found.events)
    assert counts[0] < counts[-1]


@only_sqlite
def test_nothing_is_overwritten(
    fleet: Fleet, settings: Settings, passphrase: Path, tmp_path: Path
) -> None:
    locked = ("--passphrase-file", passphrase)
    for name in ("backup", "backup.tar"):
        place = tmp_path / name
        run("backup", "--to", place, *locked, *of(settings))
        assert "is there already" in run("backup", "--to", place, *locked, *of(settings), status=2)
    taken = run("restore", "--from", tmp_path / "backup", *locked, *of(settings), status=2)
    assert "already: move it away" in taken
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine").write_text("x")
    said = run("restore", "--from", tmp_path / "backup", *locked, "--data", other, status=2)
    assert "holds mine already" in said
    assert [p.name for p in other.iterdir()] == ["mine"]


@only_sqlite
def test_keys_are_locked_or_left_out_on_purpose(
    fleet: Fleet, settings: Settings, tmp_path: Path
) -> None:
    backup, short = tmp_path / "backup", tmp_path / "short"
    assert "or --without-keys" in run("backup", "--to", backup, *of(settings), status=2)
    short.write_text("short\n")
    words = ("--to", backup, "--passphrase-file", short)
    assert "at least 12" in run("backup", *words, *of(settings), status=2)
    run("backup", "--to", backup, "--without-keys", *of(settings))
    place = tmp_path / "elsewhere"
    # the keys were kept elsewhere: in place before, or put there afterwards
    said = run("restore", "--from", backup, "--data", place, status=2)
    assert "the fleet test-fleet is back" in said
    assert "put that back" in said
    shutil.copytree(settings.keys_dir, place / "keys")
    assert "became" in run("restore", "--data", place)


@only_sqlite
def test_keys_in_the_database_go_with_it_and_open_with_their_own_key(
    fleet: Fleet, settings: Settings, passphrase: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """And locked keys of a folder go into the database of a place whose keys are there."""
    backup, locked = tmp_path / "backup", ("--passphrase-file", passphrase)
    run("backup", "--to", backup, *locked, *of(settings))
    monkeypatch.setenv("PILOTWAVE_KEY_ENCRYPTION_KEY", base64.b64encode(bytes(32)).decode())
    first, second = ("--data", tmp_path / "first"), ("--data", tmp_path / "second")
    run("restore", "--from", backup, *locked, *first)
    assert not (tmp_path / "first" / "keys").exists()
    again = tmp_path / "again"
    assert "leave --passphrase-file" in run("backup", "--to", again, *locked, *first, status=2)
    assert "key-encryption key, which is not in it" in run("backup", "--to", again, *first)
    run("restore", "--from", again, *second)
    run("check", *second)
    monkeypatch.delenv("PILOTWAVE_KEY_ENCRYPTION_KEY")
    assert "no key-encryption key is set" in run("check", *second, status=2)


@only_sqlite
def test_what_was_changed_in_a_backup_is_noticed(
    fleet: Fleet, settings: Settings, passphrase: Path, tmp_path: Path
) -> None:
    locked = ("--passphrase-file", passphrase)

    def tried(name: str, member: str, data: bytes) -> str:
        backup, place = tmp_path / name, tmp_path / f"{name}-place"
        run("backup", "--to", backup, *locked, *of(settings))
        (backup / member).write_bytes(data)
        return run("restore", "--from", backup, *locked, "--data", place, status=2)

    assert "damaged" in tried("a", "database.sqlite", b"SQLite format 3")
    assert "cannot be read" in tried("b", "keys.json", b"{}")
    assert "fleet: Field required" in tried("c", "backup.json", b'{"schema": "pilotwave/backup/1"}')
    assert "schema" in tried("d", "backup.json", b'{"schema": "pilotwave/backup/9"}')
    missing = tmp_path / "nothing.tar"
    assert "cannot be read" in run("restore", "--from", missing, "--data", tmp_path / "e", status=2)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no backup" in run("restore", "--from", empty, "--data", tmp_path / "e", status=2)


@only_sqlite
def test_bytes_that_are_missing_or_damaged_are_said_twice(
    fleet: Fleet, settings: Settings, passphrase: Path, tmp_path: Path
) -> None:
    """When the backup is made, and when it is put back."""
    backup, locked = tmp_path / "backup.tar", ("--passphrase-file", passphrase)
    with closing(sqlite3.connect(str(settings.database_url).partition(":///")[2])) as db:
        listed = "SELECT v.version, f.sha256 FROM versions v JOIN variants a ON a.version_id = v.id"
        files = dict(db.execute(f"{listed} JOIN variant_files f ON f.variant_id = a.id"))
    blob = lambda version: settings.blobs_dir / files[version][:2] / files[version]  # noqa: E731
    blob("1.0.0").unlink()
    blob("1.1.0").write_bytes(b"x" * blob("1.1.0").stat().st_size)
    said = run("backup", "--to", backup, *locked, *of(settings), status=1)
    assert "(2 files)" in said
    assert files["1.0.0"] in said
    assert files["1.1.0"] in said
    said = run("restore", "--from", backup, *locked, "--data", tmp_path / "elsewhere")
    assert "detector 1.0.0: 1 of its files" in said
    assert "detector 1.1.0: 1 of its files" in said
    assert "detector 1.2.0" not in said


@only_sqlite
def test_files_may_have_a_backup_of_their_own(
    fleet: Fleet, settings: Settings, passphrase: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """Those that are where the new server looks are left as they are, the others are named."""
    backup, locked = tmp_path / "backup", ("--passphrase-file", passphrase)
    run("backup", "--to", backup, "--without-blobs", *locked, *of(settings))
    assert not (backup / "blobs").exists()
    elsewhere = tmp_path / "store"
    shutil.copytree(settings.blobs_dir, elsewhere)
    with closing(sqlite3.connect(str(settings.database_url).partition(":///")[2])) as db:
        (lost,) = db.execute("SELECT sha256 FROM variant_files LIMIT 1").fetchone()
    (elsewhere / lost[:2] / lost).unlink()
    before = {p: p.stat().st_mtime_ns for p in elsewhere.glob("??/*")}
    monkeypatch.setenv("PILOTWAVE_BLOBS", str(elsewhere))
    place = ("--data", tmp_path / "elsewhere", "--json")
    found = json.loads(run("restore", "--from", backup, *locked, *place))
    assert len(found["versions_without_files"]) == 1
    assert {p: p.stat().st_mtime_ns for p in elsewhere.glob("??/*")} == before


@only_sqlite
def test_a_key_that_is_newer_than_the_database_is_named(
    fleet: Fleet, context: Context, settings: Settings, passphrase: Path, tmp_path: Path
) -> None:
    with context.db.write() as session:
        fleet.registry.trust.stage("online", session)
    locked = ("--passphrase-file", passphrase)
    run("backup", "--to", tmp_path / "backup", *locked, *of(settings))
    place = ("--data", tmp_path / "elsewhere")
    said = run("restore", "--from", tmp_path / "backup", *locked, *place, "--json")
    assert json.loads(said)["unknown_keys"] == ["online-2"]


@only_sqlite
def test_a_later_audit_log_says_what_to_do_again(
    fleet: Fleet,
    lived: list[SimulatedDevice],
    settings: Settings,
    admin: httpx.Client,
    tmp_path: Path,
) -> None:
    words = ("--without-keys", *of(settings))
    run("backup", "--to", tmp_path / "backup", *words)
    assert fleet.act("cam-1", "revoke").status_code == 200
    fleet.device("cam-9", site="a")
    fleet.registry.publish("detector", "1.3.0")
    audit = tmp_path / "audit.jsonl"
    audit.write_text(admin.get("/api/v1/events/export").text)
    place = ("--data", tmp_path / "elsewhere", "--json")
    shutil.copytree(settings.keys_dir, tmp_path / "elsewhere" / "keys")
    cut = tmp_path / "cut.jsonl"
    cut.write_text("\n".join(audit.read_text().splitlines()[:3]) + "\n")
    changed = tmp_path / "changed.jsonl"
    changed.write_text(audit.read_text().replace("cam-1", "cam-2"))
    for bad, word in ((cut, "older, or of another fleet"), (changed, "not to be believed")):
        options = ("--from", tmp_path / "backup", "--audit", bad)
        assert word in run("restore", *options, *place, status=2)
    options = ("--from", tmp_path / "backup", "--audit", audit)
    since = json.loads(run("restore", *options, *place))["since"]
    assert [line.partition(" (")[0] for line in since["taken_away"]] == [
        "device.revoke device/cam-1"
    ]
    assert [line.partition(" (")[0] for line in since["enrolled"]] == ["device.enrol device/cam-9"]
    assert "1.3.0" in since["published"][0]


@only_sqlite
def test_devices_that_the_backup_does_not_know_are_named_when_they_check_in(
    fleet: Fleet,
    lived: list[SimulatedDevice],
    settings: Settings,
    passphrase: Path,
    clock: FakeClock,
    operator_token: str,
    tmp_path: Path,
) -> None:
    locked = ("--passphrase-file", passphrase)
    run("backup", "--to", tmp_path / "backup", *locked, *of(settings))
    late = [fleet.device(f"late-{n}", site="a") for n in range(14)]
    place = Settings(data_dir=tmp_path / "elsewhere", delta_processes=0)
    run("restore", "--from", tmp_path / "backup", *locked, "--data", place.data_dir)
    with run_in_thread(create_app(place)) as running, token_client(running, operator_token) as api:
        for device in late:
            device.http = httpx.Client(base_url=running.url, timeout=30)
            assert device.check_in().status_code == 401
            device.http.close()
        told: set[str] = set()
        for _ in range(100):
            notices = api.get("/api/v1/status").json()["notices"]
            told = {n["object"] for n in notices if "does not know it" in n["sentence"]}
            if len(told) == 10:
                break
            threading.Event().wait(0.1)
    assert told == {f"device/late-{n}" for n in range(10)}


@only_sqlite
def test_a_tar_that_leads_out_writes_nothing_outside(tmp_path: Path, settings: Settings) -> None:
    backup = tmp_path / "backup.tar"
    with tarfile.open(backup, "w") as tar:
        link = tarfile.TarInfo("backup.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    said = run("restore", "--from", backup, "--data", tmp_path / "elsewhere", status=2)
    assert "no backup" in said


def test_numbers_go_on_above_those_of_rows_that_are_gone(
    fleet: Fleet, settings: Settings, elsewhere: Elsewhere, passphrase: Path, tmp_path: Path
) -> None:
    """A cursor that a follower keeps must not meet a number that was given before."""
    device = fleet.device("cam-1")
    assert device.check_in().status_code == 200

    def add(url: str) -> int:
        db = Database(url)
        with db.write() as session:
            owner = session.scalar(select(DeviceRow.id))
            values = {"device_id": owner, "model": "m", "version": "1", "became": "healthy"}
            row = DeviceHistoryRow(**values, at=START)
            session.add(row)
            session.flush()
            number = row.id
        db.close()
        return number

    numbers = [add(settings.database_url) for _ in range(5)]
    db = Database(settings.database_url)
    with db.write() as session:
        session.execute(delete(DeviceHistoryRow).where(DeviceHistoryRow.id > numbers[1]))
    db.close()
    locked = ("--passphrase-file", passphrase)
    run("backup", "--to", tmp_path / "backup", *locked, *of(settings))
    elsewhere.restore(tmp_path / "backup", *locked)
    assert add(elsewhere.settings.database_url) == numbers[-1] + 1
