"""A fleet of a million for the benches: written in bulk, its check-ins signed beforehand.

Enrolling each device over HTTP is not what is measured; from there on everything goes over HTTP.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil
import psycopg
from _bench import memory_kb, server
from _fleet import FACTS
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from demo.stage import Stage
from pilotwave_protocol import dsse
from pilotwave_protocol.messages.check_in import CHECK_IN_TYPE, CheckIn, Installed, ModelReport
from pilotwave_protocol.states import ModelState
from pilotwave_server.devices.tables import draw_bucket
from tests import postgres

DURABLE = ["max_connections=100", "shared_buffers=256MB", "wal_level=minimal", "max_wal_senders=0"]
DEVICE = (
    *("id", "name", "bucket", "public_key", "state", "generation", "revision", "labels", "facts"),
    *("attempts", "last_seq", "acked_event", "acked_window", "dropped_events", "directive_seq"),
    *("agent", "tuf_root", "tuf_timestamp", "tuf_snapshot", "created_at", "enrolled_at"),
)
MODEL_ROW = ("device_id", "model", "state", "current_version", "current_sha256", "current_variant")
SHA256 = hashlib.sha256(b"1.0.0").hexdigest()


def name_of(number: int) -> str:
    return f"dev-{number:07d}"


@contextmanager
def database(kind: str) -> Iterator[dict[str, str]]:
    """The settings of a server on a database of this kind; PostgreSQL runs durably here."""
    if kind == "sqlite":
        yield {}
        return
    binaries = postgres.find_binaries()
    if binaries is None:
        raise SystemExit("no PostgreSQL was found: install the package pgserver, or PostgreSQL")
    with postgres.running_server(binaries, DURABLE) as url:
        yield {"database_url": url}


@contextmanager
def running(kind: str, **settings: object) -> Iterator[tuple[Stage, str]]:
    """A server with keys and one model on a database of its own; yields it and the URL."""
    with database(kind) as given, server(**given, **settings) as stage:
        path = stage.root / "data" / "pilotwave.db"
        yield stage, given.get("database_url", f"sqlite:///{path}")


def restart(stage: Stage, **settings: object) -> None:
    """End the server and start it anew, on the same data, with these settings changed."""
    top = stage.processes.pop(0)
    top.terminate()
    top.wait(60)
    (stage.root / "server.log").unlink()
    stage.settings.update({f"PILOTWAVE_{k.upper()}": str(v) for k, v in settings.items()})
    stage.start_server()


def memory_mb(stage: Stage) -> float:
    """The memory of all server processes, each shared page counted once."""
    return sum(memory_kb(pid, "Pss") for pid in processes_of(stage)) / 1024


def cpu_s(stage: Stage) -> float:
    """The processor time of all server processes so far."""
    used = [psutil.Process(pid).cpu_times() for pid in processes_of(stage)]
    return float(sum(u.user + u.system for u in used))


def database_cpu_s() -> float:
    """The processor time of the PostgreSQL that this program started, ended children included."""
    used = 0.0
    for process in psutil.Process().children(recursive=True):
        if "postgres" in process.name():
            times = process.cpu_times()
            used += times.user + times.system
    return used


def until_quiet(stage: Stage, *, below: float = 0.2) -> None:
    """Wait until the server has loaded its devices and rests."""
    while True:
        before, began = cpu_s(stage), time.monotonic()
        time.sleep(3)
        if (cpu_s(stage) - before) / (time.monotonic() - began) < below:
            return


def add_devices(url: str, public_keys: list[str], revision: int, reporting: int) -> None:
    """Write enrolled devices, and the state that the first `reporting` of them last reported."""
    now = datetime.now(timezone.utc).replace(microsecond=0)
    facts = json.dumps(FACTS)

    def devices() -> Iterator[tuple[Any, ...]]:
        for n, key in enumerate(public_keys):
            name, labels = name_of(n), json.dumps({"site": f"site-{n % 50}"})
            known = (
                n + 1,
                name,
                draw_bucket(),
                key,
                "enrolled",
                1,
                revision,
                labels,
                facts,
                "{}",
            )
            yield (*known, 0, 0, 0, 0, 0, "0.1.0", 1, 1, 1, now, now)

    def models() -> Iterator[tuple[Any, ...]]:
        for n in range(reporting):
            yield (n + 1, "detector", "healthy", "1.0.0", SHA256, "onnx-fp32", now)

    _write(url, "devices", DEVICE, devices())
    _write(url, "device_models", (*MODEL_ROW, "since"), models())
    _finish(url, revision)


def _write(url: str, table: str, columns: tuple[str, ...], rows: Iterator[tuple[Any, ...]]) -> None:
    names = ", ".join(columns)
    if url.startswith("sqlite"):
        marks = ", ".join("?" * len(columns))
        plain = (tuple(str(v)[:19] if isinstance(v, datetime) else v for v in r) for r in rows)
        insert = f"INSERT INTO {table} ({names}) VALUES ({marks})"  # noqa: S608 - our own names
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=60)) as connection:
            connection.executemany(insert, plain)
            connection.commit()
        return
    with psycopg.connect(url) as connection:
        copied = connection.cursor().copy(f"COPY {table} ({names}) FROM STDIN")
        with copied as copy:
            for row in rows:
                copy.write_row(row)


def _finish(url: str, revision: int) -> None:
    """Let the server see the devices, and the database know how many there are."""
    statements = [f"UPDATE fleet_state SET revision = {revision:d}", "ANALYZE"]  # noqa: S608 - a number
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=60)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()
        return
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def sign_check_ins(folder: Path, devices: int, count: int) -> list[str]:
    """Write one signed check-in for each of the first `count` devices to `folder`/bodies, unless
    they are there; return the public keys of all devices (made up, where none is needed)."""
    folder.mkdir(parents=True, exist_ok=True)
    keys, bodies = folder / f"keys-{count}", folder / f"bodies-{count}"
    if not keys.exists():
        with bodies.open("wb") as file:
            public = [_sign(n, file) for n in range(count)]
        keys.write_text("\n".join(public))
    known = keys.read_text().split("\n")
    return [*known, *(f"{n:064x}" for n in range(count, devices))]


def _sign(number: int, file: Any) -> str:
    key = Ed25519PrivateKey.generate()
    installed = Installed("1.0.0", SHA256, "onnx-fp32", 1)
    payload = CheckIn(
        fleet="bench",
        device=name_of(number),
        seq=1,
        agent="0.1.0",
        directive_seq=1,
        tuf={"root": 1, "timestamp": 1, "snapshot": 1},
        models=(ModelReport("detector", ModelState.HEALTHY, installed),),
    ).to_bytes()
    file.write(dsse.sign(CHECK_IN_TYPE, payload, key) + b"\n")
    return dsse.raw_public(key.public_key()).hex()


def processes_of(stage: Stage) -> list[int]:
    """The server's processes: the one started, and those below it."""
    top = psutil.Process(stage.processes[0].pid)
    return [top.pid, *(child.pid for child in top.children(recursive=True))]
