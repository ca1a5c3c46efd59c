"""Three hosts of one fleet behind nginx on one PostgreSQL; one is killed every 20 seconds.

Each host has a data folder of its own; blobs are in a folder that all mount. Devices poll and check
in with events, versions are uploaded and published, and a rollout goes through two waves of
simulated devices, all through nginx, which tries the next host. Hosts are killed in turn by
SIGKILL and started again after 5 seconds. A device that gets no answer, or an error, asks again
after a second, once. At the end everything that was acknowledged is looked for in the database and
at each host.
"""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import tempfile
import threading
import time
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path

import httpx
import psycopg
from _bench import DIGITS, MODEL, Bench, main
from _hosts import NAMES, Hosts, hosts

from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.messages.check_in import DeviceEvent
from tests.server.device_api.peer import SimulatedDevice

SECONDS, QUICK_SECONDS = 180, 60
KILL_EVERY_S, DOWN_S = 20, 5
POLLERS, SIMULATED = 12, 20
POLL_S, CHECK_IN_EVERY, PUBLISH_EVERY_S = 0.5, 4, 8
RETRY_S = 1.0
POLICY = """\
name: two-waves
waves:
  - {percent: 25%, min_sample: 3, soak: 10s, gates: [{name: install, max_failure_rate: 10%}]}
  - {percent: 100%, gates: [{name: install, max_failure_rate: 10%}]}
on_failure: rollback
"""
PROFILE = """\
description: quick devices
poll: 1s
check_in: 5s
selftest: 1s
probation: 2s
slices: [{name: all, share: 100%, latency_ms: 0}]
"""


class Poller(threading.Thread):
    """One device: polls, checks in with an event each time, asks again once."""

    def __init__(self, stage: Hosts, number: int, code: str, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.http = httpx.Client(base_url=stage.url, timeout=10)
        self.device = SimulatedDevice(f"poller-{number}", self.http)
        self.stopping, self.counts = stop, Counter[str]()
        self.acknowledged: set[int] = set()
        self.waiting: list[DeviceEvent] = []
        answer = self.device.enrol(code)
        assert answer.status_code == 201, answer.text

    def run(self) -> None:
        turn = 0
        while not self.stopping.wait(POLL_S):
            if turn % CHECK_IN_EVERY == 0:
                self._twice("check_in", self._check_in)
            self._twice("poll", self._poll)
            turn += 1

    def _twice(self, what: str, ask: object) -> None:
        for attempt in range(2):
            try:
                status = ask()  # type: ignore[operator]
            except httpx.HTTPError as error:
                status = type(error).__name__
            if status in (200, 304):
                self.counts[f"{what}_answered"] += 1
                return
            self.counts[f"{what}_failed_first" if not attempt else f"{what}_failed"] += 1
            self.counts[f"{what}: {status}"] += 1
            if status == 401:
                self._check_in()
            if not attempt:
                time.sleep(RETRY_S)

    def _poll(self) -> int:
        return self.device.poll().status_code

    def _check_in(self) -> int:
        last = max(self.acknowledged | {e.id for e in self.waiting}, default=0)
        if not self.waiting:
            now = datetime.now(timezone.utc).replace(microsecond=0)
            self.waiting = [DeviceEvent(last + 1, now, "note", detail="bench")]
        answer = self.device.check_in(events=tuple(self.waiting))
        if answer.status_code == 200:
            self.acknowledged |= {event.id for event in self.waiting}
            self.waiting = []
        return answer.status_code


class Publisher(threading.Thread):
    """Publishes versions with another file each; keeps what was acknowledged."""

    def __init__(self, stage: Hosts, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.stage, self.stopping = stage, stop
        self.acknowledged: dict[str, str] = {}
        self.refused: list[str] = []
        self.number = 0

    def publish(self) -> str:
        """Publish the next version and return its name."""
        self.number += 1
        version = f"1.0.{self.number}"
        folder = self.stage.root / "versions" / version
        shutil.copytree(DIGITS / "1.0.0", folder)
        data = secrets.token_bytes(200_000)
        (folder / "table.bin").write_bytes(data)
        words = ["publish", MODEL, version, "--variant", f"onnx-fp32={folder}", "--no-try"]
        words += ["--key", "keys/publisher.pem", "--yes"]
        done = self.stage.end_of("pilotwave", words)
        if done.returncode == 0:
            self.acknowledged[version] = sha256_hex(data)
        else:
            self.refused.append((done.stderr or done.stdout).strip().splitlines()[-1][:160])
        return version

    def run(self) -> None:
        while not self.stopping.wait(PUBLISH_EVERY_S):
            self.publish()


class Killer(threading.Thread):
    """Kills one host after the other and starts it again."""

    def __init__(self, stage: Hosts, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.stage, self.stopping, self.kills = stage, stop, 0

    def run(self) -> None:
        while not self.stopping.wait(KILL_EVERY_S - DOWN_S):
            name = NAMES[self.kills % len(NAMES)]
            self.stage.kill_host(name)
            self.kills += 1
            time.sleep(DOWN_S)
            self.stage.start_host(name)


def measure(bench: Bench) -> None:
    seconds = QUICK_SECONDS if bench.quick else SECONDS
    with (
        tempfile.TemporaryDirectory(prefix="pilotwave-bench-") as folder,
        hosts(Path(folder), check_in_interval_s=5, poll_interval_s=1) as (stage, database),
    ):
        stop = threading.Event()
        publisher, killer = Publisher(stage, stop), Killer(stage, stop)
        first = publisher.publish()
        assert publisher.acknowledged, publisher.refused
        (stage.root / "policy.yaml").write_text(POLICY)
        (stage.root / "profile.yaml").write_text(PROFILE)
        codes = stage.ask("codes", "create", "--count", str(POLLERS), "--label", "site=bench")
        items = codes["items"] if isinstance(codes, dict) else codes
        pollers = [Poller(stage, n, item["code"], stop) for n, item in enumerate(items)]
        simulated = simulate(stage, seconds)
        stage.pilotwave("groups", "create", "sims", "--selector", "simulated=sim")
        stage.pilotwave("assign", "--yes", MODEL, first, "--group", "sims")
        time.sleep(10)
        bench.say(f"{POLLERS} devices and {SIMULATED} simulated ones; {seconds} s of kills")
        began = time.monotonic()
        for thread in (*pollers, publisher, killer):
            thread.start()
        time.sleep(KILL_EVERY_S - DOWN_S - 3)
        words = ("rollouts", "create", MODEL, publisher.publish(), "--group", "sims")
        rollout = str(stage.ask(*words, "--policy-file", "policy.yaml", "--start")["id"])
        time.sleep(max(0.0, seconds - (time.monotonic() - began)))
        stop.set()
        for thread in (killer, publisher, *pollers):
            thread.join(180)
        simulated.wait(120)
        figures(bench, pollers, publisher, killer)
        found(bench, stage, database, pollers, publisher)
        refusals(bench, stage)
        decided(bench, stage, rollout)


def simulate(stage: Hosts, seconds: int) -> subprocess.Popen[bytes]:
    """Start the simulated devices; they outlive the kills by a little."""
    words = ["simulate", "--devices", str(SIMULATED), "--prefix", "sim", "--profile"]
    words += [
        "profile.yaml",
        "--for",
        f"{seconds + 20}s",
        "--keep",
        "--root",
        "keys/root.json",
        "--json",
    ]
    return stage.start("simulate", "pilotwave", *words)


def figures(bench: Bench, pollers: list[Poller], publisher: Publisher, killer: Killer) -> None:
    """Say what was asked and what failed."""
    counts = sum((p.counts for p in pollers), Counter[str]())
    bench.figure("hosts_killed", killer.kills)
    for what in ("poll", "check_in"):
        bench.figure(f"{what}s_answered", counts[f"{what}_answered"])
        bench.figure(f"{what}s_failed_at_first", counts[f"{what}_failed_first"])
        failed = counts[f"{what}_failed"]
        bench.figure(f"{what}s_failed_after_a_retry", failed, "none", failed == 0)
    for words in sorted(w for w in counts if ":" in w):
        bench.figure(f"  {words}", counts[words])
    bench.figure("versions_published", len(publisher.acknowledged))
    bench.figure("publishes_refused", len(publisher.refused))
    for said in publisher.refused:
        bench.say(f"refused: {said}")


def found(
    bench: Bench, stage: Hosts, database: str, pollers: list[Poller], publisher: Publisher
) -> None:
    """Look for what was acknowledged."""
    query = (
        "SELECT d.name, e.number FROM device_events e JOIN devices d ON d.id = e.device_id"
        " WHERE d.name LIKE 'poller-%'"
    )
    with psycopg.connect(database) as connection:
        there = set(connection.execute(query).fetchall())
    events = {(p.device.name, number) for p in pollers for number in p.acknowledged}
    headers = {"Authorization": f"Bearer {(stage.root / 'admin.token').read_text().strip()}"}
    lost = len(events - there)
    for port in stage.ports.values():
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers) as http:
            lost += sum(
                http.get(f"/api/v1/models/{MODEL}/versions/{version}").status_code != 200
                or http.head(f"/blobs/{sha256}").status_code != 200
                for version, sha256 in publisher.acknowledged.items()
            )
    bench.figure("acknowledged_events", len(events))
    bench.figure("acknowledged_and_lost", lost, "none", lost == 0)


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


def decided(bench: Bench, stage: Hosts, rollout: str) -> None:
    """Say how the rollout ended."""
    shown = json.loads(stage.run("pilotwave", "rollouts", "show", rollout, "--json"))
    state = str(shown["state"])
    bench.figure("rollout", state, "completed", state == "completed")
    bench.figure("rollout_reason", str(shown.get("reason"))[:160])


if __name__ == "__main__":
    main("hosts", measure)
