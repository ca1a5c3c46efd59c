"""A million enrolled devices on one machine: rollouts, polls, the load of a day, a wave that opens.

The devices are written to the database in bulk and their check-ins are signed before anything is
measured; the load generator is compiled (`_load.c`), sends by the clock and counts a request's time
from when it was due. Unchanged polls are compared with the bare app one process against one. SQLite
or, with --postgres, PostgreSQL. --quick takes 100,000 devices and short loads.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from _bench import MODEL, Bench, main, median, publish
from _fleet import read_tokens
from _load import Load
from _million import (
    add_devices,
    cpu_s,
    database_cpu_s,
    memory_mb,
    name_of,
    restart,
    running,
    sign_check_ins,
    until_quiet,
)
from polls import free_port

from demo.stage import Stage

POLL_EVERY_S, CHECK_IN_EVERY_S = 300, 900
POLICY = """\
name: bench
waves:
  - {percent: 1%, soak: 30d}
  - {percent: 10%, soak: 30d}
  - {percent: 100%}
"""

# Check-ins that wait for the disk hold up no polls of so many. All come from one address.
CONNECTIONS = 5000
ONE_ADDRESS = {"max_connections_per_address": 0}


def measure(bench: Bench) -> None:
    kind = "postgresql" if bench.options.postgres else "sqlite"
    devices = bench.options.devices or (100_000 if bench.quick else 1_000_000)
    seconds = bench.options.seconds or (15 if bench.quick else 300)
    wave_s = 20 if bench.quick else 60
    each_s = devices * bench.options.faster
    pace = each_s / POLL_EVERY_S, each_s / CHECK_IN_EVERY_S
    count = min(devices, int(pace[1] * (seconds + wave_s + 10)) + 1)
    with tempfile.TemporaryDirectory(prefix="pilotwave-keys-") as temporary:
        folder = bench.options.keys or Path(temporary)
        public_keys = sign_check_ins(folder, devices, count)
        bench.say(f"{kind}: {devices:,} devices, {count:,} check-ins signed beforehand")
        workers = bench.options.workers
        limits = {"token_lifetime_s": 86_400, "poll_interval_s": POLL_EVERY_S, **ONE_ADDRESS}
        with running(kind, workers=workers, **limits) as (stage, url):
            prepare(stage)
            began = time.monotonic()
            add_devices(url, public_keys, 10_000, count)
            bench.say(f"written to the database in {time.monotonic() - began:.0f} s")
            load = load_of(stage, devices)
            (stage.root / "check_ins").unlink()
            (stage.root / "check_ins").symlink_to(folder / f"bodies-{count}")
            bench.figure(f"{kind}_devices", devices)
            bench.figure(f"{kind}_server_processes", workers)
            restarted(bench, kind, stage, load, workers=workers)
            first_polls(bench, kind, stage, load)
            rollout = create_rollouts(bench, kind, stage)
            a_day(bench, kind, stage, load, pace, seconds)
            wave_opens(bench, kind, stage, load, pace, wave_s, rollout)
            restarted(bench, kind, stage, load, workers=1)
            unchanged(bench, kind, stage, load)


def load_of(stage: Stage, devices: int) -> Load:
    """The generator, with a read token for each device."""
    key_file = next((stage.root / "data" / "keys").glob("*token*"))
    tokens = read_tokens(key_file, [name_of(n) for n in range(devices)], life_s=86_000)
    return Load.of(stage.root, 0, tokens)


def restarted(bench: Bench, kind: str, stage: Stage, load: Load, *, workers: int) -> None:
    """Start the server anew; it loads the devices by itself."""
    began = time.monotonic()
    restart(stage, workers=workers)
    until_quiet(stage)
    load.port = int(stage.url.rsplit(":", 1)[1])
    bench.figure(f"{kind}_loaded_by_{workers}_processes_s", time.monotonic() - began)


def prepare(stage: Stage) -> None:
    """Two versions, and a group of all devices that runs the first."""
    publish(stage, "1.0.0")
    publish(stage, "1.1.0")
    stage.pilotwave("groups", "create", "all", "--selector", "site")
    stage.pilotwave("assign", "--yes", MODEL, "1.0.0", "--group", "all")


def first_polls(bench: Bench, kind: str, stage: Stage, load: Load) -> None:
    """Each device once, as after a restart: loaded from the database, its directive signed."""
    done = load.run(seconds=3000, polls=-2, connections=256)
    polls = done["polls"]
    bench.figure(f"{kind}_first_polls_per_s", polls["count"] / done["seconds"])
    bench.figure(f"{kind}_first_poll_p99_ms", polls["p99_ms"])
    if polls["ok"] != polls["count"]:
        raise SystemExit(f"first polls were answered otherwise: {polls}")
    bench.figure(f"{kind}_server_pss_mb_after_first", memory_mb(stage))


def unchanged(bench: Bench, kind: str, stage: Stage, load: Load) -> None:
    """Unchanged polls as fast as they go, beside a bare ASGI app, one process each, in turns.

    Each device polls once before, as the first poll after a restart costs more than those after it.
    """
    rounds, seconds = (2, 3) if bench.quick else (3, 4)
    load.run(seconds=3000, polls=-2, connections=256)
    bare_port = free_port()
    script = str(Path(__file__).parent / "_bare.py")
    ours_all, theirs_all = [], []
    for _ in range(rounds):
        bare = subprocess.Popen([sys.executable, script, str(bare_port)])
        time.sleep(1.5)
        try:
            theirs = Load(load.folder, bare_port).run(seconds=seconds, polls=-1, connections=32)
        finally:
            bare.terminate()
            bare.wait()
        ours = load.run(seconds=seconds, polls=-1, connections=32)
        theirs_all.append(theirs["polls"]["count"] / theirs["seconds"])
        ours_all.append(ours["polls"]["not_modified"] / ours["seconds"])
    ratio = median([a / b for a, b in zip(ours_all, theirs_all, strict=True)])
    bench.figure(f"{kind}_unchanged_polls_per_s", median(ours_all))
    bench.figure(f"{kind}_bare_asgi_per_s", median(theirs_all))
    bench.figure(f"{kind}_ratio", ratio, "at least 0.6", ratio >= 0.6)


def create_rollouts(bench: Bench, kind: str, stage: Stage) -> str:
    """Create and start a rollout to all devices a few times; the last one stays."""
    token = (stage.root / "admin.token").read_text().strip()
    times, rollout = [], ""
    with client(stage, token) as http:
        for _ in range(3):
            if rollout:
                answered(http.post(f"/rollouts/{rollout}/abort", json={"reason": "again"}))
            body = {"group": "all", "model": MODEL, "version": "1.1.0", "policy_text": POLICY}
            began = time.perf_counter()
            made = answered(http.post("/rollouts", json={**body, "start": True}))
            times.append(time.perf_counter() - began)
            rollout = made["id"]
    took = median(times)
    bench.figure(f"{kind}_rollout_creation_s", took, "under 0.1", took < 0.1)
    return rollout


def a_day(
    bench: Bench, kind: str, stage: Stage, load: Load, pace: tuple[float, float], seconds: int
) -> None:
    """Every device at its pace beside the running rollout."""
    polls, check_ins = pace
    bench.say(f"{polls:,.0f} polls and {check_ins:,.0f} check-ins a second for {seconds} s")
    before, began, database = cpu_s(stage), time.monotonic(), database_cpu_s()
    steady = load.run(seconds=seconds, polls=polls, check_ins=check_ins, connections=CONNECTIONS)
    took = time.monotonic() - began
    report_load(bench, kind, "load", steady, polls, check_ins)
    used = cpu_s(stage) - before
    answered_all = steady["polls"]["count"] + steady["check_ins"]["count"]
    bench.figure(f"{kind}_load_server_cores", used / took)
    bench.figure(f"{kind}_load_server_cpu_ms_per_request", used * 1000 / answered_all)
    bench.figure(f"{kind}_load_database_cores", (database_cpu_s() - database) / took)
    bench.figure(f"{kind}_load_generator_cores", steady["cpu_s"] / took)


def wave_opens(
    bench: Bench,
    kind: str,
    stage: Stage,
    load: Load,
    pace: tuple[float, float],
    seconds: int,
    rollout: str,
) -> None:
    """The same load, while the rollout's next wave opens: a tenth of the devices are told anew."""
    polls, check_ins = pace
    process = load.start(seconds=seconds, polls=polls, check_ins=check_ins, connections=CONNECTIONS)
    time.sleep(10)
    token = (stage.root / "admin.token").read_text().strip()
    with client(stage, token) as http:
        answered(http.post(f"/rollouts/{rollout}/next", json={"reason": "bench"}))
    after = load.read(process)
    worst = max(p99 for p99, _ in after["windows"][9:])
    changed = sum(count for _, count in after["windows"])
    bench.figure(f"{kind}_wave_directives_changed", changed)
    p99 = after["polls"]["p99_ms"]
    bench.figure(f"{kind}_wave_p99_ms", p99, "under 250", p99 < 250)
    bench.figure(f"{kind}_wave_worst_second_p99_ms", worst, "under 250", worst < 250)
    memory = memory_mb(stage)
    bench.figure(f"{kind}_server_pss_mb", memory, "under 1536", memory < 1536)


def report_load(
    bench: Bench, kind: str, what: str, done: Any, polls: float, check_ins: float
) -> None:
    """The figures of a load at a set rate."""
    p, c = done["polls"], done["check_ins"]
    bench.figure(f"{kind}_{what}_polls_per_s", p["count"] / done["seconds"])
    bench.figure(f"{kind}_{what}_check_ins_per_s", c["ok"] / done["seconds"])
    bench.figure(f"{kind}_{what}_poll_p50_ms", p["p50_ms"])
    bench.figure(f"{kind}_{what}_poll_p99_ms", p["p99_ms"], "under 50", p["p99_ms"] < 50)
    bench.figure(f"{kind}_{what}_poll_p999_ms", p["p999_ms"])
    bench.figure(f"{kind}_{what}_check_in_p99_ms", c["p99_ms"])
    sustained = (
        p["count"] >= 0.98 * polls * done["seconds"]
        and c["ok"] >= 0.98 * check_ins * done["seconds"]
    )
    bench.figure(f"{kind}_{what}_sustained", "yes" if sustained else "no", "yes", sustained)
    bad = p["refused"] + p["failed"] + c["refused"] + c["failed"] + done["broken"]
    bench.figure(f"{kind}_{what}_answers_that_were_errors", bad, "0", bad == 0)


def client(stage: Stage, token: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=f"{stage.url}/api/v1", headers=headers, timeout=60)


def answered(answer: httpx.Response) -> Any:
    if answer.is_error:
        raise SystemExit(f"{answer.request.url} answered {answer.status_code}: {answer.text}")
    return answer.json()


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--postgres", action="store_true", help="on PostgreSQL, not SQLite")
    parser.add_argument("--devices", type=int, help="another number of devices")
    parser.add_argument("--faster", type=float, default=1, help="so many times the pace (1)")
    parser.add_argument("--seconds", type=int, help="another length of the load")
    parser.add_argument("--workers", type=int, default=2, help="server processes (2)")
    parser.add_argument("--keys", type=Path, help="keep the signed check-ins in this folder")


if __name__ == "__main__":
    main("million", measure, add=options)
