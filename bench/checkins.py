"""Check-ins per second: signed by the devices, verified, and stored before they are answered."""

from __future__ import annotations

import sqlite3
import time
from datetime import datetime, timezone

from _bench import Bench, main, memory_kb, server
from _fleet import FACTS, Answer, add_devices, ask_all
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilotwave_protocol import dsse
from pilotwave_protocol.messages.check_in import (
    CHECK_IN_TYPE,
    CheckIn,
    DeviceEvent,
    Installed,
    ModelReport,
)
from pilotwave_protocol.states import ModelState


def request(name: str, seq: int, key: Ed25519PrivateKey) -> bytes:
    """Return the HTTP request of one check-in: one healthy model, one event."""
    installed = Installed("1.0.0", "a" * 64, "onnx-fp32", 1)
    payload = CheckIn(
        fleet="bench",
        device=name,
        seq=seq,
        agent="0.1.0",
        directive_seq=1,
        tuf={"root": 1, "timestamp": 1, "snapshot": 1},
        models=(ModelReport("detector", ModelState.HEALTHY, installed),),
        events=(
            DeviceEvent(
                seq,
                datetime.now(timezone.utc).replace(microsecond=0),
                "healthy",
                "detector",
                "1.0.0",
            ),
        ),
        facts=FACTS if seq == 1 else None,
    ).to_bytes()
    body = dsse.sign(CHECK_IN_TYPE, payload, key)
    head = (
        "POST /device/v1/check-in HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def measure(bench: Bench) -> None:
    devices, rounds = (500, 4) if bench.quick else (5_000, 8)
    keys = [Ed25519PrivateKey.generate() for _ in range(devices)]
    with server() as stage:
        names = add_devices(stage.root / "data", devices, keys)
        time.sleep(1)
        port = int(stage.url.rsplit(":", 1)[1])
        rates, tails = [], []
        for seq in range(1, rounds + 1):
            requests = [request(n, seq, k) for n, k in zip(names, keys, strict=True)]
            waits: list[float] = []
            last = [time.perf_counter()] * 64

            def take(
                n: int, answer: Answer, last: list[float] = last, waits: list[float] = waits
            ) -> None:
                if answer.status != 200:
                    raise SystemExit(f"a check-in was answered {answer.status}: {answer.body!r}")
                now = time.perf_counter()
                waits.append(now - last[n % 64])
                last[n % 64] = now

            took = ask_all(port, requests, take, connections=64)
            rates.append(devices / took)
            tails.append(sorted(waits)[int(len(waits) * 0.99)])
        bench.say(
            f"{devices:,} devices, {rounds} check-ins each, 64 connections, one server process"
        )
        database = sqlite3.connect(stage.root / "data" / "pilotwave.db")
        stored = database.execute("SELECT count(*) FROM devices WHERE last_seq = ?", (rounds,))
        kept = stored.fetchone()[0]
        database.close()
        bench.figure("check_ins_per_s", sorted(rates)[len(rates) // 2])
        bench.figure("check_ins_per_s_best", max(rates))
        bench.figure("bytes_of_a_check_in", len(requests[0]))
        bench.figure("answer_p99_ms", sorted(tails)[len(tails) // 2] * 1000)
        bench.figure("stored_of_acknowledged", kept / devices, "1", kept == devices)
        bench.figure("server_rss_mb", memory_kb(stage.processes[0].pid, "VmRSS") / 1024)


if __name__ == "__main__":
    main("checkins", measure)
