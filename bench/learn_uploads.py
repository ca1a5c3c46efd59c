"""Ten thousand devices answer one round of a training plan: their uploads, and the round's end.

Each device has a key of its own, by which its update is signed; updates go over HTTP to a real
server on this machine, from 16 connections, and are sums over 64 features and 10 classes. 1% of the
devices have wrong labels, as many as may count. Devices are written to the database in bulk, since
enrolment is not what is measured. Updates are sent whole or, with --pieces, as agents do since
2026-11-30: a request for the statement, one for the numbers. SQLite or, with --postgres,
PostgreSQL; --quick takes 1,008.
"""

from __future__ import annotations

import argparse
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import psycopg
from _bench import MODEL, Bench, main, memory_kb, publish
from _fleet import Answer, ask_all, read_tokens
from _million import add_devices, cpu_s, database_cpu_s, name_of, running, until_quiet
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from demo.stage import Stage
from pilotwave_agent.learning.compute import ridge_update
from pilotwave_protocol import dsse
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.learning.plan import TrainingPlan, parse_plan
from pilotwave_protocol.learning.update import (
    UPDATE_TYPE,
    Piece,
    Update,
    join_piece,
    join_update,
)
from tests.protocol.learning.models import classifier

PLAN, IN, FEATURES, CLASSES = "bench", 32, 64, 10
EXAMPLES, MOST, LIARS = 40, 200, 0.01
CONNECTIONS = 16
ONE_ADDRESS = {"max_connections_per_address": 0, "token_lifetime_s": 86_400}
UPLOAD_MS, END_S, MEMORY_MB = 10.0, 30.0, 300.0
RANDOM = np.random.default_rng(3)
HIDDEN = RANDOM.normal(size=(IN, FEATURES)) / 3, RANDOM.normal(size=FEATURES) / 3
LOOKS = RANDOM.normal(size=(CLASSES, IN))


def measure(bench: Bench) -> None:
    kind = "postgresql" if bench.options.postgres else "sqlite"
    devices = bench.options.devices or (1_008 if bench.quick else 10_000)
    devices -= devices % CONNECTIONS
    keys = [Ed25519PrivateKey.generate() for _ in range(devices)]
    public = [dsse.raw_public(key.public_key()).hex() for key in keys]
    with running(kind, **ONE_ADDRESS) as (stage, url):
        plan = prepare(stage)
        add_devices(url, public, 10_000, 0)
        stage.pilotwave("learn", "start", MODEL, PLAN, "--group", "all")
        until_quiet(stage)
        requests = list(signed_requests(stage, plan, keys, pieces=bench.options.pieces))
        size = sum(map(len, requests)) // devices
        bench.say(f"{kind}: {devices:,} devices, {size:,} bytes each, signed before")
        figure = f"{kind}, {devices:,}{', in pieces' * bench.options.pieces}"
        bench.figure(f"{figure}: database before, MB", size_mb(url))
        uploads(bench, figure, stage, requests, devices)
        bench.figure(f"{figure}: database with all updates, MB", size_mb(url))
        the_end(bench, figure, stage, devices)
        bench.figure(f"{figure}: database after the end, MB", size_mb(url))


def prepare(stage: Stage) -> TrainingPlan:
    """Publish a model with an embedding, and sign a plan for it."""
    head = RANDOM.normal(size=(FEATURES + 1, CLASSES))
    (stage.root / "model.onnx").write_bytes(classifier(HIDDEN, head))
    publish(stage, "1.0.0", stage.root / "model.onnx")
    x, labels = seen(500)
    np.savez(stage.root / "own.npz", x=x.astype(np.float32), labels=labels)
    base = ("--base", "1.0.0", "--variant", "onnx-fp32", "--file", "model.onnx")
    asked = ("--embedding", "active", "--evaluate", "own.npz", "--most-examples", str(MOST))
    stage.pilotwave("learn", "plan", MODEL, PLAN, *base, *asked, "--key", "keys/publisher.pem")
    stage.pilotwave("groups", "create", "all", "--selector", "site")
    blobs = (p.read_bytes() for p in (stage.root / "data" / "blobs").rglob("*") if p.is_file())
    return parse_plan(
        next(raw for raw in blobs if raw.startswith(b"{") and b"pilotwave/plan" in raw)
    )


def seen(rows: int, mixture: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    labels = RANDOM.choice(CLASSES, rows, p=mixture)
    return LOOKS[labels] + RANDOM.normal(0, 1, (rows, IN)), labels


def signed_requests(
    stage: Stage, plan: TrainingPlan, keys: list[Ed25519PrivateKey], *, pieces: bool
) -> Iterator[bytes]:
    """Each connection sends each of its devices' requests in turn."""
    key_file = next((stage.root / "data" / "keys").glob("*token*"))
    tokens = read_tokens(key_file, [name_of(n) for n in range(len(keys))], life_s=86_000)
    digest, every = sha256_hex(plan.to_bytes()), round(1 / LIARS)
    for start in range(0, len(keys), CONNECTIONS):
        later = []
        for n in range(start, start + CONNECTIONS):
            examples = labelled(lies=n % every == every - 1)
            envelope, numbers = signed(plan, digest, keys[n], name_of(n), examples)
            if not pieces:
                yield request("updates", tokens[n], join_update(envelope, numbers))
                continue
            yield request("updates/begin", tokens[n], envelope)
            piece = join_piece(Piece(sha256_hex(numbers), 0, numbers))
            later.append(request("updates/pieces", tokens[n], piece))
        yield from later


def labelled(*, lies: bool) -> tuple[np.ndarray, np.ndarray]:
    """A device's embeddings, and what it is told that they are."""
    x, labels = seen(MOST if lies else EXAMPLES, RANDOM.dirichlet([0.3] * CLASSES))
    embeddings = np.maximum(x @ HIDDEN[0] + HIDDEN[1], 0)
    return embeddings, CLASSES - 1 - labels if lies else labels


def signed(
    plan: TrainingPlan,
    digest: str,
    key: Ed25519PrivateKey,
    device: str,
    examples: tuple[np.ndarray, np.ndarray],
) -> tuple[bytes, bytes]:
    """The envelope of a device's update, and its numbers."""
    numbers = ridge_update([examples], plan).to_bytes()
    update = Update(
        fleet="bench",
        device=device,
        model=MODEL,
        plan=digest,
        round=1,
        examples=len(examples[1]),
        numbers=sha256_hex(numbers),
        size=len(numbers),
    )
    return dsse.sign(UPDATE_TYPE, update.to_bytes(), key), numbers


def request(path: str, token: str, body: bytes) -> bytes:
    head = (
        f"POST /device/v1/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/octet-stream\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def uploads(bench: Bench, figure: str, stage: Stage, requests: list[bytes], devices: int) -> None:
    port = int(stage.url.rsplit(":", 1)[1])
    waits, last = list[float](), [time.perf_counter()] * CONNECTIONS

    def take(n: int, answer: Answer) -> None:
        if answer.status not in (200, 204):
            raise SystemExit(f"an update was answered {answer.status}: {answer.body!r}")
        now = time.perf_counter()
        waits.append(now - last[n % CONNECTIONS])
        last[n % CONNECTIONS] = now

    forget_peak(stage)
    cpu, database = cpu_s(stage), database_cpu_s()
    took = ask_all(port, requests, take, connections=CONNECTIONS)
    each = (cpu_s(stage) - cpu) * 1000 / devices
    bench.figure(f"{figure}: uploads, s", took)
    bench.figure(f"{figure}: server CPU of one, ms", each, f"<= {UPLOAD_MS:g}", each <= UPLOAD_MS)
    database = (database_cpu_s() - database) * 1000 / devices
    if database:
        bench.figure(f"{figure}: database CPU of one, ms", database)
    for words, part in (("first", waits[: len(waits) // 10]), ("last", waits[-len(waits) // 10 :])):
        wait = float(np.mean(part)) * 1000
        bench.figure(f"{figure}: a request in the {words} tenth, ms", wait)
    bench.figure(f"{figure}: most memory in uploads, MB", peak_mb(stage))


def the_end(bench: Bench, figure: str, stage: Stage, devices: int) -> None:
    forget_peak(stage)
    before, cpu, began = peak_mb(stage), cpu_s(stage), time.perf_counter()
    stage.pilotwave("learn", "end", MODEL, PLAN, "--yes")
    found = stage.ask("learn", "status", MODEL, PLAN)
    took = time.perf_counter() - began
    if (found["state"], found["round"]["devices"]) != ("completed", devices):
        raise SystemExit(f"the experiment is {found['state']}: {found['round']}")
    bench.figure(f"{figure}: `end` and `status`, s", took, f"<= {END_S:g}", took <= END_S)
    bench.figure(f"{figure}: server CPU of both, s", cpu_s(stage) - cpu)
    peak = peak_mb(stage)
    bench.figure(f"{figure}: most memory, MB", peak, f"<= {MEMORY_MB:g}", peak <= MEMORY_MB)
    bench.figure(f"{figure}: of that for the end, MB", peak - before)
    bench.figure(f"{figure}: left out", found["round"]["left_out"])
    bench.figure(f"{figure}: right", found["round"]["right"])
    bench.figure(f"{figure}: right with all", found["round"]["right_with_all"])


def forget_peak(stage: Stage) -> None:
    Path(f"/proc/{stage.processes[0].pid}/clear_refs").write_text("5")


def peak_mb(stage: Stage) -> float:
    return memory_kb(stage.processes[0].pid, "VmHWM") / 1024


def size_mb(url: str) -> float:
    """The database's size, with what SQLite has not yet taken over from its log."""
    if url.startswith("sqlite"):
        path = url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        files = (Path(path), Path(f"{path}-wal"))
        return sum(file.stat().st_size for file in files if file.exists()) / 2**20
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    assert found is not None
    return int(found[0]) / 2**20


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--postgres", action="store_true", help="PostgreSQL, not SQLite")
    parser.add_argument("--pieces", action="store_true", help="in pieces, as agents send them")
    parser.add_argument("--devices", type=int, help="how many (10,000)")


if __name__ == "__main__":
    main("learn_uploads", measure, add=options)
