"""Push: how fast a word arrives, how many devices one process holds, what an idle day costs.

A try is the operator's request (as the command line sends it, over a kept connection) on a device
that has a channel, is at rest and does not have the version's files; it ends when `current` points
to the new version. The device is a real agent, the broker a real Mosquitto.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import onnx
from _bench import DIGITS, MODEL, Bench, enrol, main, memory_kb, publish, server
from _push import crowd, open_files
from agent_idle import Meter
from publish_to_swap import wait_for

from demo.stage import Stage
from tests import mosquitto

VERSIONS = ("1.0.0", "1.1.0", "1.2.0", "1.3.0")
REST_S = 1.2
DAY_S = 86_400
PATIENCE_S = 60.0
SERVER = "pilotwave-server"


def measure(bench: Bench) -> None:
    tries = bench.options.tries or (5 if bench.quick else 200)
    parts = bench.options.part or ["websocket", "mqtt", "crowd", "days"]
    for channel in [p for p in parts if p in ("websocket", "mqtt")]:
        with stage_for(channel) as (stage, extra):
            a_word(bench, stage, channel, extra, tries)
    if "crowd" in parts:
        a_crowd(bench, 1_000 if bench.quick else 10_000)
    if "days" in parts:
        idle_days(bench)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--part",
        action="append",
        choices=["websocket", "mqtt", "crowd", "days"],
        help="only this; may be given again",
    )
    parser.add_argument("--tries", type=int, help="words per channel; default 200, or 5 if quick")


@contextlib.contextmanager
def stage_for(channel: str, **settings: object) -> Iterator[tuple[Stage, str]]:
    """A server with a channel, and the agent's settings for it."""
    given: dict[str, object] = {"poll_interval_s": 3600, "check_in_interval_s": 3600}
    given |= {"token_lifetime_s": 7200, **settings}
    if channel != "mqtt":
        with server(**given) as stage:
            yield stage, f'[push]\nchannel = "{channel}"'
        return
    if mosquitto.program() is None:
        raise SystemExit(mosquitto.ABSENT)
    users = {SERVER: "server", "push-1": "device"}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pilotwave-bench-")))
        broker = stack.enter_context(mosquitto.running(folder, users, fleet="bench"))
        given |= {"mqtt_url": broker.url, "mqtt_username": SERVER, "mqtt_password": "server"}
        stage = stack.enter_context(server(**given))
        secret = stage.root / "mqtt-password"
        secret.write_text("device\n")
        yield stage, f'[push]\nchannel = "mqtt"\nurl = "{broker.url}"\npassword_file = "{secret}"'


def a_word(bench: Bench, stage: Stage, channel: str, extra: str, tries: int) -> None:
    """From the operator's request to swapped, many times."""
    for n, version in enumerate(VERSIONS):
        source = stage.root / f"v{n}"
        shutil.copytree(DIGITS / ("1.0.0", "1.1.0")[n % 2], source)
        make_other_bytes(source / "model.onnx", version)
        publish(stage, version, source)
    stage.pilotwave("groups", "create", "all", "--selector", "site=bench")
    enrol(stage, "push-1", extra=f"probation_s = 0.2\n{extra}")
    agent = stage.start("push-1", "pilotwave-agent", "run", "--data", "push-1")
    link = stage.root / "push-1" / "models" / MODEL / "current"
    token = stage.environment()["PILOTWAVE_TOKEN"]
    headers = {"Authorization": f"Bearer {token}"}
    times = []
    with httpx.Client(base_url=f"{stage.url}/api/v1", headers=headers, timeout=60) as api:
        assign(api, VERSIONS[-1])
        wait_for(link, VERSIONS[-1], within_s=PATIENCE_S)
        until_called(stage)
        for n in range(tries):
            version = VERSIONS[n % len(VERSIONS)]
            at_rest(agent.pid)
            began = time.monotonic()
            assign(api, version)
            times.append(wait_for(link, version, within_s=PATIENCE_S) - began)
    times.sort()
    p95 = times[min(int(len(times) * 0.95), len(times) - 1)]
    bench.say(f"{channel}: {tries} times another version of 40 kB, one agent at rest")
    bench.figure(f"{channel}_word_to_swapped_s_median", times[len(times) // 2])
    bench.figure(f"{channel}_word_to_swapped_s_p95", p95, "under 1 s", p95 < 1)
    bench.figure(f"{channel}_word_to_swapped_s_max", times[-1])
    pss = memory_kb(agent.pid, "Pss") / 1024
    bench.figure(f"{channel}_agent_pss_mb", pss, "at most 32 MB", pss <= 32)


def make_other_bytes(path: Path, version: str) -> None:
    """Give a model other bytes and the same numbers, so that its file is one to be fetched."""
    model = onnx.load(path)
    model.doc_string = version
    onnx.save(model, path)


def assign(api: httpx.Client, version: str) -> None:
    api.put(f"/groups/all/baselines/{MODEL}", json={"version": version}).raise_for_status()


def until_called(stage: Stage) -> None:
    """Wait until the agent says that its channel lives."""
    log, ends = stage.root / "push-1.log", time.monotonic() + PATIENCE_S
    while time.monotonic() < ends:
        if "is called" in log.read_text(errors="replace"):
            return
        time.sleep(0.05)
    raise SystemExit(f"the agent has no channel: {log.read_text(errors='replace')[-500:]}")


def at_rest(pid: int) -> None:
    """Wait until the agent has had no child for REST_S."""
    children, rested = Path(f"/proc/{pid}/task/{pid}/children"), time.monotonic()
    ends = rested + PATIENCE_S
    while time.monotonic() < min(rested + REST_S, ends):
        if children.read_text().strip():
            rested = time.monotonic()
        time.sleep(0.02)


def a_crowd(bench: Bench, count: int) -> None:
    """Many WebSockets on one process: memory for each, and when the last has heard."""
    open_files(count + 1000)
    given = {"push_connections": count + 10, "delta_processes": 0}
    with server(poll_interval_s=3600, check_in_interval_s=3600, **given) as stage:
        crowd(bench, stage, count)


def idle_days(bench: Bench) -> None:
    """What a day costs a device at rest, from what each thing costs when it is done every second.

    Bytes are those inside TCP, both ways, opening the HTTP connection anew each time.
    """
    seconds = 5.0 if bench.quick else 30.0
    poll = a_second("off", seconds, poll_interval_s=1)
    check_in = a_second("off", seconds, check_in_interval_s=1)
    ping = {c: a_second(c, seconds, push_ping_s=1) for c in ("websocket", "mqtt")}
    bench.say(f"each thing once a second for {seconds:g} s, and what that makes in an idle day")
    bench.figure("bytes_per_poll", poll)
    bench.figure("bytes_per_check_in", check_in)
    polling = (DAY_S / 60 * poll + DAY_S / 900 * check_in) / 1000
    bench.figure("day_polling_60_s_kB", polling)
    for channel, each in ping.items():
        bench.figure(f"{channel}_bytes_per_ping", each)
        pushed = (DAY_S / 900 * (poll + check_in) + DAY_S / 240 * each) / 1000
        bench.figure(f"day_{channel}_kB", pushed)
        bench.figure(f"day_{channel}_share_of_polling", pushed / polling)


def a_second(channel: str, seconds: float, **settings: int) -> float:
    """Bytes a second of an agent at rest, with whom its channel (or its polls) lead to."""
    with stage_for(channel, **settings) as (stage, extra):
        target = extra.partition('url = "mqtt://127.0.0.1:')[2] or stage.url.rsplit(":", 1)[1]
        port = int(target.partition('"')[0])
        meter = Meter(port)
        relay = meter.url.removeprefix("http://")
        extra = extra.replace(f"127.0.0.1:{port}", relay)
        url = stage.url if channel == "mqtt" else meter.url
        enrol(stage, "push-1", server_url=url, extra=extra)
        stage.start("push-1", "pilotwave-agent", "run", "--data", "push-1")
        if channel == "off":
            time.sleep(8)
        else:
            until_called(stage)
            time.sleep(4)
        was = meter.up + meter.down
        time.sleep(seconds)
        return (meter.up + meter.down - was) / seconds


if __name__ == "__main__":
    main("push", measure, add=add_options)
