"""What a poll costs with 1, 10 and 100 running rollouts, and as the fleet grows.

Unchanged polls are the steady state; after each change of the fleet every device is resolved anew
at its next poll, and that is what may grow with the rollouts, at most linearly. Processor time of
the server, which other work on the machine disturbs least.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil
from _bench import MODEL, Bench, main, server
from _fleet import read_tokens
from _load import Load
from _million import add_devices, name_of, restart, until_quiet
from million import POLICY, answered, client, prepare

from demo.stage import Stage

ROLLOUTS = (1, 10, 100)
ASKING = 20_000


def measure(bench: Bench) -> None:
    with_rollouts(bench, 2_000 if bench.quick else 20_000)
    sizes = (2_000, 10_000) if bench.quick else (10_000, 100_000, 1_000_000)
    costs = [with_devices(bench, size) for size in sizes]
    growth = costs[-1] / costs[0]
    bench.figure(
        f"{sizes[-1] // sizes[0]}_times_the_devices_cost", growth, "at most 1.5", growth <= 1.5
    )


def with_rollouts(bench: Bench, devices: int) -> None:
    """The cost of a poll, unchanged and after a change, as rollouts to the same devices come."""
    with server(token_lifetime_s=86_400) as stage:
        load = fleet(stage, devices)
        load.run(seconds=600, polls=-2)
        token = (stage.root / "admin.token").read_text().strip()
        changed, running = {}, 0
        for wanted in ROLLOUTS:
            with client(stage, token) as http:
                for number in range(running, wanted):
                    group = f"group-{number}"
                    answered(http.post("/groups", json={"name": group, "selector": "site"}))
                    body = {"group": group, "model": MODEL, "version": "1.1.0"}
                    body |= {"policy_text": POLICY, "start": True}
                    answered(http.post("/rollouts", json=body))
            running = wanted
            time.sleep(3)  # the first waves open
            load.run(seconds=600, polls=-2)
            steady = cost_us(stage, lambda: load.run(seconds=4, polls=-1, connections=16))
            bench.figure(f"unchanged_us_with_{wanted}_rollouts", steady)
            stage.pilotwave("groups", "create", f"touch-{wanted}", "--selector", "nothing=x")
            time.sleep(1)
            changed[wanted] = cost_us(stage, lambda: load.run(seconds=600, polls=-2))
            bench.figure(f"after_a_change_us_with_{wanted}_rollouts", changed[wanted])
        # at most linear: ten times the rollouts, at most ten times the cost
        worst = max(changed[10] / changed[1], changed[100] / changed[10])
        bench.figure("ten_times_the_rollouts_cost", worst, "at most 10", worst <= 10)


def with_devices(bench: Bench, devices: int) -> float:
    """The cost of an unchanged poll in a fleet of this size, all of it in the server's memory;
    `ASKING` of its devices, spread over it, ask."""
    with server(token_lifetime_s=86_400) as stage:
        load = fleet(stage, devices)
        restart(stage)
        until_quiet(stage)
        load.port = int(stage.url.rsplit(":", 1)[1])
        load.run(seconds=1200, polls=-2, connections=256)
        cost = cost_us(stage, lambda: load.run(seconds=5, polls=-1, connections=16))
    bench.figure(f"unchanged_us_with_{devices}_devices", cost)
    return cost


def fleet(stage: Stage, devices: int) -> Load:
    prepare(stage)
    keys = [f"{n:064x}" for n in range(devices)]
    add_devices(f"sqlite:///{stage.root / 'data' / 'pilotwave.db'}", keys, 10_000, 0)
    names = [name_of(n) for n in range(0, devices, max(1, devices // ASKING))]
    time.sleep(1)
    key_file = next((stage.root / "data" / "keys").glob("*token*"))
    port = int(stage.url.rsplit(":", 1)[1])
    return Load.of(stage.root, port, read_tokens(key_file, names, life_s=86_000))


def cost_us(stage: Stage, deed: Callable[[], dict[str, dict[str, int]]]) -> float:
    """The server's processor time per poll while `deed` runs."""
    process = psutil.Process(stage.processes[0].pid)
    before = process.cpu_times()
    done = deed()
    after = process.cpu_times()
    used = after.user + after.system - before.user - before.system
    return used / done["polls"]["count"] * 1e6


if __name__ == "__main__":
    main("poll_cost", measure)
