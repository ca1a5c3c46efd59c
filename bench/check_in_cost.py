"""What a check-in costs the server and its database, in processor time, which other work on the
machine disturbs least.

Devices report what the server knows already (`unchanged`, the steady state), and then with one
event each (`with_an_event`). On SQLite and on PostgreSQL; the database's own time counts too.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from _bench import Bench, main
from _fleet import Answer, ask_all
from _million import (
    SHA256,
    add_devices,
    cpu_s,
    database_cpu_s,
    name_of,
    running,
    until_quiet,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from demo.stage import Stage
from pilotwave_protocol import dsse
from pilotwave_protocol.messages.check_in import (
    CHECK_IN_TYPE,
    CheckIn,
    DeviceEvent,
    Installed,
    ModelReport,
)
from pilotwave_protocol.states import ModelState
from pilotwave_server.clock import utc_now

CONNECTIONS = 256  # a host of a large fleet has so many check-ins under way
GOAL_US = 400


def measure(bench: Bench) -> None:
    devices = 2_000 if bench.quick else 10_000
    keys = [Ed25519PrivateKey.generate() for _ in range(devices)]
    public = [dsse.raw_public(key.public_key()).hex() for key in keys]
    for kind in ("sqlite", "postgresql"):
        with running(kind, check_ins_per_minute=100_000) as (stage, url):
            add_devices(url, public, 10_000, devices)
            until_quiet(stage)
            send(stage, [report(n, 1, key) for n, key in enumerate(keys)])  # connections are made
            for name, first, with_event in (("unchanged", 2, False), ("with_an_event", 5, True)):
                used = 0.0
                for seq in range(first, first + 3):
                    requests = [report(n, seq, k, event=with_event) for n, k in enumerate(keys)]
                    before = all_cpu_s(stage)
                    send(stage, requests)
                    used += all_cpu_s(stage) - before
                cost = used / (3 * devices) * 1e6
                bench.figure(f"{kind}_{name}_us", cost, f"<= {GOAL_US}", cost <= GOAL_US)
            bench.figure(f"{kind}_of_it_the_database_us", database_cpu_s() / (7 * devices) * 1e6)


def report(number: int, seq: int, key: Ed25519PrivateKey, *, event: bool = False) -> bytes:
    """The HTTP request of one check-in: one healthy model, perhaps one event."""
    events = ()
    if event:
        now = utc_now().replace(microsecond=0)
        events = (DeviceEvent(seq, now, "healthy", "detector", "1.0.0"),)
    payload = CheckIn(
        fleet="bench",
        device=name_of(number),
        seq=seq,
        agent="0.1.0",
        directive_seq=1,
        tuf={"root": 1, "timestamp": 1, "snapshot": 1},
        models=(
            ModelReport("detector", ModelState.HEALTHY, Installed("1.0.0", SHA256, "onnx-fp32", 1)),
        ),
        events=events,
    ).to_bytes()
    body = dsse.sign(CHECK_IN_TYPE, payload, key)
    head = (
        "POST /device/v1/check-in HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def send(stage: Stage, requests: Sequence[bytes]) -> None:
    """Send all and wait for the answers; each must say that it is stored."""

    def take(n: int, answer: Answer) -> None:
        if answer.status != 200:
            raise SystemExit(f"a check-in was answered {answer.status}: {answer.body!r}")

    port = int(stage.url.rsplit(":", 1)[1])
    ask_all(port, requests, take, connections=CONNECTIONS)
    time.sleep(1)  # what the server does afterwards counts too


def all_cpu_s(stage: Stage) -> float:
    """The processor time of the server and, where it is a program of its own, its database."""
    return cpu_s(stage) + database_cpu_s()


if __name__ == "__main__":
    main("check_in_cost", measure)
