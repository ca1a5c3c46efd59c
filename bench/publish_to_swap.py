"""From `pilotwave publish` to swapped on an idle device, by step, poll interval one second."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from _bench import DIGITS, MODEL, Bench, enrol, main, median, publish, server


def wait_for(link: Path, version: str, *, within_s: float = 60) -> float:
    """Wait until `current` points to a version; return when that was seen."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if link.is_symlink() and f"/{version}-" in f"/{os.readlink(link)}":
            return time.monotonic()
        time.sleep(0.002)
    raise SystemExit(f"{link} does not point to {version} within {within_s:g} s")


def measure(bench: Bench) -> None:
    rounds = 3 if bench.quick else 15
    steps: dict[str, list[float]] = {
        "publish_s": [],
        "assign_s": [],
        "assigned_to_swapped_s": [],
        "swapped_to_reported_healthy_s": [],
        "total_s": [],
    }
    with server(poll_interval_s=1, check_in_interval_s=30) as stage:
        stage.pilotwave("groups", "create", "all", "--selector", "site=bench")
        enrol(stage, "swap-1", extra="probation_s = 1")
        stage.start("swap-1", "pilotwave-agent", "run", "--data", "swap-1")
        link = stage.root / "swap-1" / "models" / MODEL / "current"
        for n in range(rounds):
            version, source = f"1.{n}.0", stage.root / f"v{n}"
            shutil.copytree(DIGITS / ("1.0.0", "1.1.0")[n % 2], source)
            began = time.monotonic()
            publish(stage, version, source)
            published = time.monotonic()
            stage.pilotwave("assign", "--yes", MODEL, version, "--group", "all")
            assigned = time.monotonic()
            swapped = wait_for(link, version)
            while True:
                report = stage.ask("devices", "show", "swap-1")["models"][0]
                if report["state"] == "healthy" and report["current_version"] == version:
                    break
                if time.monotonic() - swapped > 60:
                    raise SystemExit(f"{version} was not reported healthy within 60 s")
            healthy = time.monotonic()
            for name, value in zip(
                steps,
                (
                    published - began,
                    assigned - published,
                    swapped - assigned,
                    healthy - swapped,
                    swapped - began,
                ),
                strict=True,
            ):
                steps[name].append(value)
    bench.say(f"{rounds} versions of 40 kB each, one agent, command lines included")
    for name, values in steps.items():
        bench.figure(f"{name}_median", median(values))
        bench.figure(f"{name}_max", max(values))


if __name__ == "__main__":
    main("publish_to_swap", measure)
