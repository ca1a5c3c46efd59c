"""Time to first byte of each page with 100,000 devices and 1,000 rollouts, on SQLite.

Goals: p95 under 150 ms on each page; no page over 150 kB with all that it loads. Beside it stands
what a page costs the server in processor time, which other work on the machine changes little.
"""

from __future__ import annotations

import json
import os
import re
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import httpx
from _bench import MODEL, Bench, main, publish, server
from _fleet import add_devices
from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from pilotwave_protocol.sketch import Sketch
from pilotwave_server.db import Database
from pilotwave_server.devices.report_tables import DeviceEventRow, DeviceHistoryRow, DeviceModelRow
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.groups.tables import GroupRow
from pilotwave_server.rollouts.policies.chosen import chosen_policy
from pilotwave_server.rollouts.policies.stored import store_policy
from pilotwave_server.rollouts.tables import DecisionRow, RolloutRow
from pilotwave_server.telemetry.tables import DeviceMetricRow, VersionCountRow

PAGES = (
    *("/", "/models", f"/models/{MODEL}", f"/models/{MODEL}/1.0.0", "/upload", "/rollouts"),
    *("/rollouts/new", "/rollouts/r1", "/devices", "/devices?selector=site%3Dsite-7"),
    *("/devices?state=silent&sort=last_seen", "/devices?state=failing&sort=-agent"),
    *(
        "/devices?sort=-last_seen",
        "/devices/dev-0000001",
        "/groups",
        "/groups/everyone",
        "/policies",
        "/policies/standard",
    ),
    *("/audit", "/search?q=dev-00001", "/settings/people", "/settings/tokens", "/account"),
)
LIMIT_MS = 150
LIMIT_BYTES = 150_000


def fill(data: Path, devices: int, rollouts: int) -> None:
    """Write devices that run a version, and rollouts that are over, straight into the database."""
    add_devices(data, devices)
    db = Database(f"sqlite:///{data.absolute() / 'pilotwave.db'}")
    now = datetime.now(timezone.utc)
    with db.write() as session:
        group = session.scalars(select(GroupRow.id).where(GroupRow.name == "everyone")).one()
        policy, number = chosen_policy(
            session, name="standard", version=None, document=None, text=None
        )
        document = store_policy(policy)
        common = {"group_id": group, "model": MODEL, "version": "1.0.0", "counter": 1}
        rows = [
            {
                **common,
                "policy": policy.name,
                "policy_version": number,
                "document": document,
                "multiplier": 12345 + n,
                "offset": n,
                "state": "completed" if n % 3 else "rolled_back",
                "wave": 1,
                "reason": "for the measurement",
                "created_by": "token/admin",
                "created_at": now - timedelta(hours=rollouts - n),
                "started_at": now - timedelta(hours=rollouts - n),
                "ended_at": now - timedelta(hours=rollouts - n),
            }
            for n in range(rollouts)
        ]
        session.execute(insert(RolloutRow), rows)
        decided = {"at": now, "actor": "server", "action": "open_wave", "wave": 0}
        decided |= {"verdict": "PASS", "numbers": {"healthy": 10}, "sentence": "it opens"}
        decisions = [
            {**decided, "rollout_id": n + 1, "generation": g}
            for n in range(rollouts)
            for g in range(3)
        ]
        session.execute(insert(DecisionRow), decisions)
        ids = list(session.scalars(select(DeviceRow.id)))
        seen = [
            {"id": i, "agent": f"0.{i % 5}.0", "last_seen": now - timedelta(seconds=i % 7000)}
            for i in ids
        ]
        session.execute(update(DeviceRow), seen)
        _fill_one(session, ids[1], now)
        for begin in range(0, len(ids), 5000):
            runs = {"model": MODEL, "state": "healthy", "since": now}
            runs["current_variant"] = "onnx-fp32"
            models = [
                {
                    **runs,
                    "device_id": i,
                    "current_version": f"1.{i % 4}.0",
                    "state": "healthy" if i % 100 else "failed",
                }
                for i in ids[begin : begin + 5000]
            ]
            session.execute(insert(DeviceModelRow), models)
    db.close()


def _fill_one(session: Session, device: int, now: datetime) -> None:
    """Give a device a past: what it said, what it ran, how it did; and the fleet its counts."""
    said = {"device_id": device, "generation": 1, "at": now, "received_at": now}
    said |= {"kind": "healthy", "model": MODEL, "version": "1.0.0"}
    session.execute(insert(DeviceEventRow), [{**said, "number": n + 1} for n in range(1000)])
    ran = {"device_id": device, "model": MODEL, "version": "1.0.0", "became": "healthy", "at": now}
    session.execute(insert(DeviceHistoryRow), [ran] * 500)
    sketch = Sketch()
    for n in range(1, 2000):
        sketch.add(n / 7)
    points = [[now.timestamp() - 600 * (32 - n), 600, 50, 12.5, 40.25] for n in range(32)]
    kept = {"device_id": device, "model": MODEL, "sketch": sketch.to_plain(), "points": points}
    kept |= {"windows": 900, "updated_at": now}
    metrics = [
        {**kept, "version": version, "metric": metric}
        for version in ("1.0.0", "1.1.0")
        for metric in ("latency_ms", "error", "score")
    ]
    session.execute(insert(DeviceMetricRow), metrics)
    counts = [
        {"at": now - timedelta(minutes=5 * n), "model": MODEL, "version": f"1.{v}.0",
         "devices": 25_000, "grain_s": 0}
        for n in range(1, 600) for v in range(4)
    ]  # fmt: skip
    session.execute(insert(VersionCountRow), counts)


def signed_in(url: str, link: str) -> httpx.Client:
    """A client with the session of the first admin."""
    client = httpx.Client(base_url=url, timeout=60, headers={"Sec-Fetch-Site": "same-origin"})
    new = {"password": "correct horse battery", "again": "correct horse battery"}
    answer = client.post(link, data=new)
    assert answer.status_code == 303, answer.text
    return client


def first_byte_ms(client: httpx.Client, path: str) -> tuple[float, str]:
    """Milliseconds to the first byte of the body, and the page."""
    started = time.perf_counter()
    with client.stream("GET", path) as answer:
        chunks = answer.iter_raw()
        first = next(chunks)
        passed = (time.perf_counter() - started) * 1000
        assert answer.status_code == 200, path
        body = first + b"".join(chunks)
    return passed, body.decode()


def cpu_ms(pid: int) -> float:
    """Milliseconds of processor that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def weight(client: httpx.Client, page: str) -> int:
    """Bytes of a page and of all files that it names."""
    files = set(re.findall(r'(?:src|href)="(/static/[^"#]+)', page))
    return len(page.encode()) + sum(len(client.get(name).content) for name in files)


def measure(bench: Bench) -> None:
    """Fill the database, then ask for each page many times."""
    devices, rollouts = (10_000, 100) if bench.quick else (100_000, 1_000)
    times = 20 if bench.quick else 100
    with server() as stage:
        publish(stage, "1.0.0")
        stage.pilotwave("groups", "create", "everyone", "--selector", "*")
        bench.say(f"writing {devices:,} devices and {rollouts:,} rollouts")
        fill(stage.root / "data", devices, rollouts)
        made = stage.run("pilotwave-server", "login-link", "--data", "data", "--json")
        client = signed_in(stage.url, json.loads(made)["login_link"])
        pid = stage.processes[0].pid
        worst = heaviest = 0.0
        for path in PAGES:
            before = cpu_ms(pid)
            found = sorted(first_byte_ms(client, path)[0] for _ in range(times))
            bench.figure(f"processor ms of {path}", (cpu_ms(pid) - before) / times)
            p95 = found[int(len(found) * 0.95)]
            kilobytes = weight(client, first_byte_ms(client, path)[1]) / 1000
            worst, heaviest = max(worst, p95), max(heaviest, kilobytes)
            bench.figure(f"p95 ms of {path}", p95, f"< {LIMIT_MS}", p95 < LIMIT_MS)
        bench.figure("devices", devices)
        bench.figure("rollouts", rollouts)
        bench.figure("worst p95, ms", worst, f"< {LIMIT_MS}", worst < LIMIT_MS)
        bench.figure("heaviest page, kB", heaviest, "< 150", heaviest * 1000 < LIMIT_BYTES)


if __name__ == "__main__":
    main("pages", measure)
