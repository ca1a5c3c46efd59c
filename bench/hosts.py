"""Three hosts of one fleet behind nginx on one PostgreSQL; one is killed every 20 seconds.

Each host has a data folder of its own. With --bucket, blobs are in a bucket of a radosgw that is
started for it (Debian: ceph-mon, ceph-osd, radosgw, ceph-common); else in a folder that all mount.
Devices poll and check in with events, others listen on push channels, a person looks at pages,
versions are uploaded, published and assigned, and rollouts, good and bad ones, go through two waves
of simulated devices: all through nginx, which tries the next host. Hosts are killed in turn by
SIGKILL and started again after 5 seconds. At the end everything that was acknowledged is looked for
in the database and at each host.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
from _bench import MODEL, Bench, main, median
from _hosts import Hosts, hosts
from _hosts_load import (
    BAD,
    KILL_EVERY_S,
    Killer,
    Listener,
    Person,
    Poller,
    Publisher,
    Roller,
)

SECONDS, QUICK_SECONDS = 600, 90
POLLERS, LISTENERS, SIMULATED = 12, 4, 20
TOLD_WITHIN_S = 15.0
"""A listener whose host is killed opens another channel a second later, and then it polls."""
POLICY = """\
name: two-waves
waves:
  - {percent: 50%, min_sample: 3, soak: 10s, gates: [{name: install, max_failure_rate: 10%}]}
  - {percent: 100%, gates: [{name: install, max_failure_rate: 10%}]}
on_failure: rollback
"""
PROFILE = f"""\
description: quick devices
poll: 1s
check_in: 5s
selftest: 1s
probation: 2s
slices: [{{name: all, share: 100%, latency_ms: 0}}]
behaviours: [{{version: "*-{BAD}", selftest_failure: 100%}}]
"""


@dataclass
class Load:
    """Everybody who asks, and who kills."""

    pollers: list[Poller]
    listeners: list[Listener]
    person: Person
    publisher: Publisher
    roller: Roller
    killer: Killer
    changes_end: threading.Event
    end: threading.Event

    @property
    def devices(self) -> list[Poller]:
        return [*self.pollers, *self.listeners]

    def run(self, seconds: float) -> None:
        """Run them all; who asks goes on until what was changed last has reached everybody."""
        changing = [self.killer, self.publisher, self.roller]
        asking = [*self.devices, self.person]
        for thread in (*asking, *changing):
            thread.start()
        for threads, stop, wait_s in (
            (changing, self.changes_end, seconds),
            (asking, self.end, TOLD_WITHIN_S),
        ):
            time.sleep(wait_s)
            stop.set()
            for thread in threads:
                thread.join(240)


def measure(bench: Bench) -> None:
    seconds = bench.options.seconds or (QUICK_SECONDS if bench.quick else SECONDS)
    with (
        tempfile.TemporaryDirectory(prefix="pilotwave-bench-") as folder,
        hosts(
            Path(folder), bucket=bench.options.bucket, check_in_interval_s=5, poll_interval_s=1
        ) as (stage, database),
    ):
        load, simulated = prepare(stage, seconds)
        bench.say(f"{len(load.devices)} devices and {SIMULATED} simulated; {seconds} s of kills")
        load.run(seconds)
        simulated.send_signal(signal.SIGINT)
        simulated.wait(120)
        killed(bench, load.killer, seconds)
        asked(bench, load)
        told(bench, load)
        found(bench, stage, database, load)
        refusals(bench, stage)
        decided(bench, load.roller)


def prepare(stage: Hosts, seconds: int) -> tuple[Load, subprocess.Popen[bytes]]:
    """Enrol the devices, publish a first version, and sign a person in."""
    changes_end, end = threading.Event(), threading.Event()
    made = stage.run("pilotwave-server", "login-link", "--data", "A", "--json")
    person = Person(stage, json.loads(made)["login_link"], end)
    publisher = Publisher(stage, changes_end)
    first = publisher.publish()
    assert publisher.acknowledged, publisher.refused_with
    (stage.root / "policy.yaml").write_text(POLICY)
    (stage.root / "profile.yaml").write_text(PROFILE)
    load = Load(
        [Poller(stage, f"poller-{n}", code, end) for n, code in codes(stage, "bench", POLLERS)],
        [Listener(stage, f"listener-{n}", c, end) for n, c in codes(stage, "push", LISTENERS)],
        person,
        publisher,
        Roller(stage, publisher, changes_end),
        Killer(stage, changes_end),
        changes_end,
        end,
    )
    simulated = simulate(stage, seconds)
    stage.pilotwave("groups", "create", "listeners", "--selector", "site=push")
    stage.pilotwave("groups", "create", "sims", "--selector", "simulated=sim")
    stage.pilotwave("assign", "--yes", MODEL, first, "--group", "sims")
    time.sleep(10)
    return load, simulated


def codes(stage: Hosts, site: str, count: int) -> list[tuple[int, str]]:
    """So many numbered enrolment codes of a site."""
    made = stage.ask("codes", "create", "--count", str(count), "--label", f"site={site}")
    items = made["items"] if isinstance(made, dict) else made
    return [(number, str(item["code"])) for number, item in enumerate(items)]


def simulate(stage: Hosts, seconds: int) -> subprocess.Popen[bytes]:
    """Start the simulated devices; they are ended after the last rollout."""
    words = ["simulate", "--devices", str(SIMULATED), "--prefix", "sim", "--profile"]
    words += ["profile.yaml", "--for", f"{seconds + 600}s", "--keep"]
    words += ["--root", "keys/root.json", "--json"]
    return stage.start("simulate", "pilotwave", *words)


def killed(bench: Bench, killer: Killer, seconds: int) -> None:
    """Say how often, and how soon hosts were back."""
    due = int(seconds / KILL_EVERY_S) - 2
    bench.figure("hosts_killed", killer.kills, f"at least {due}", killer.kills >= due)
    waits, processor = zip(*killer.ready, strict=True)
    bench.figure("host_ready_after_s_median", median([*waits]))
    bench.figure("host_ready_after_s_most", max(waits))
    bench.figure("host_ready_processor_s_median", median([*processor]))


def asked(bench: Bench, load: Load) -> None:
    """Say what was asked and what failed."""
    counts = sum((one.counts for one in [*load.devices, load.person]), Counter[str]())
    for what in ("poll", "check_in", "page"):
        bench.figure(f"{what}s_answered", counts[f"{what}_answered"])
        bench.figure(f"{what}s_failed_at_first", counts[f"{what}_failed_first"])
        failed = counts[f"{what}_failed"]
        bench.figure(f"{what}s_failed_after_a_retry", failed, "none", failed == 0)
    for words in sorted(w for w in counts if ":" in w):
        bench.figure(f"  {words}", counts[words])
    bench.figure("versions_published", len(load.publisher.acknowledged))
    refused = load.publisher.refused_with + load.roller.refused_with
    bench.figure("commands_refused", len(refused), "none", not refused)
    for said in refused:
        bench.say(f"refused: {said}")


def told(bench: Bench, load: Load) -> None:
    """Say how soon listeners knew of what was assigned to them: of that version, or a later one."""
    waits = []
    for at in load.publisher.assigned.values():
        later = [v for v, when in load.publisher.assigned.items() if when >= at]
        for listener in load.listeners:
            seen = [listener.told[v] for v in later if v in listener.told]
            waits.append(max(min(seen, default=float("inf")) - at, 0.0))
    calls = sum(one.calls for one in load.listeners)
    bench.figure("push_channels_opened", sum(one.channels for one in load.listeners))
    bench.figure("push_calls", calls)
    bench.figure("assignments_told_after_s_median", median(waits))
    most = max(waits)
    within = f"under {TOLD_WITHIN_S:.0f} s"
    bench.figure("assignments_told_after_s_most", most, within, most < TOLD_WITHIN_S)


def found(bench: Bench, stage: Hosts, database: str, load: Load) -> None:
    """Look for what was acknowledged: events, versions with their bytes, the chain of the audit."""
    query = "SELECT d.name, e.number FROM device_events e JOIN devices d ON d.id = e.device_id"
    with psycopg.connect(database) as connection:
        there = set(connection.execute(query).fetchall())
    events = {(p.device.name, number) for p in load.devices for number in p.acknowledged}
    versions = load.publisher.acknowledged
    headers = {"Authorization": f"Bearer {(stage.root / 'admin.token').read_text().strip()}"}
    lost = len(events - there)
    for port in stage.ports.values():
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers) as http:
            lost += sum(
                http.get(f"/api/v1/models/{MODEL}/versions/{version}").status_code != 200
                or http.head(f"/blobs/{sha256}").status_code != 200
                for version, sha256 in versions.items()
            )
    bench.figure("acknowledged_events", len(events))
    bench.figure("acknowledged_and_lost", lost, "none", lost == 0)
    audit = stage.end_of("pilotwave", ["audit", "verify"])
    bench.figure("audit_chain", "whole" if audit.returncode == 0 else audit.stdout[-160:])


def refusals(bench: Bench, stage: Hosts) -> None:
    """Say what simulated devices refused: they judge directives and TUF as real ones do."""
    _, begun, shown = (stage.root / "simulate.log").read_text().rpartition("\n{\n")
    counts = json.loads(begun + shown)["counts"]
    refused = {name: count for name, count in counts.items() if name.startswith("refused_")}
    bench.figure("simulated_polls", sum(counts.get(f"poll_{s}", 0) for s in (200, 304)))
    bench.figure("simulated_unanswered", counts.get("unreachable", 0))
    total = sum(refused.values())
    bench.figure("simulated_refusals", total, "none", total == 0)
    for name, count in refused.items():
        bench.figure(f"  {name}", count)


def decided(bench: Bench, roller: Roller) -> None:
    """Say how the rollouts ended: good versions complete, bad ones are rolled back."""
    wrong = [
        f"{version} {state}: {reason[:160]}"
        for version, state, reason in roller.states
        if state != ("rolled_back" if version.endswith(BAD) else "completed")
    ]
    for state, count in Counter(state for _, state, _ in roller.states).items():
        bench.figure(f"rollouts_{state}", count)
    bench.figure("rollouts_decided_wrongly", len(wrong), "none", bool(roller.states) and not wrong)
    for said in wrong:
        bench.say(said)


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bucket", action="store_true", help="keep blobs in a bucket")
    parser.add_argument("--seconds", type=int, help=f"time of kills; {SECONDS}")


if __name__ == "__main__":
    main("hosts", measure, add=add)
