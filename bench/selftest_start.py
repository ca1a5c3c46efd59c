"""What confining a model under test costs: the time of self-tests of a program that does nothing,
confined as far as this system can, and with namespaces, Landlock and filters refused by the kernel.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

from _bench import ROOT, Bench, main, median

from pilotwave_agent.selftest import SelfTestFolders, TestLimits, run_selftest
from pilotwave_agent.settings.config import RuntimeSettings
from pilotwave_protocol.manifest import FileEntry, Variant

REFUSED = "unshare,landlock,seccomp"
LIMITS = TestLimits(allow_unconfined=True)


def bare(folder: Path) -> str:
    """Return an interpreter whose kernel confines nothing."""
    python, peer = folder / "python", ROOT / "tests" / "peers" / "old_kernel.py"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {peer} {REFUSED} "$@"\n')
    python.chmod(0o755)
    return str(python)


def direct(folder: Path) -> str:
    """Return one that is started in as many steps, and confines."""
    python, peer = folder / "python-too", ROOT / "tests" / "peers" / "old_kernel.py"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {peer} , "$@"\n')
    python.chmod(0o755)
    return str(python)


def cpu_s() -> float:
    """Return the processor seconds of children that have ended."""
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


def measure(bench: Bench) -> None:
    """Time both in turn, so that what else runs here disturbs both alike."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data" / "v").mkdir(parents=True)
        (folder / "data" / "v" / "run").write_text("#!/bin/sh\nexit 0\n")
        variant = Variant("v", "command", "run", (FileEntry("run", 1, "0" * 64),))
        place = SelfTestFolders(own=folder / "data")
        pythons = {"confined": direct(folder), "unconfined": bare(folder)}
        cpu: dict[str, list[float]] = {way: [] for way in pythons}
        took: dict[str, list[float]] = {way: [] for way in pythons}
        for _ in range(15 if bench.quick else 100):
            for way, python in pythons.items():
                settings = RuntimeSettings(python=python)
                begun, before = time.perf_counter(), cpu_s()
                found = run_selftest(folder / "data" / "v", variant, LIMITS, settings, place)
                took[way].append((time.perf_counter() - begun) * 1000)
                cpu[way].append((cpu_s() - before) * 1000)
                if way == "confined":
                    bench.figures["confinement"] = found.confinement
    for way, times in took.items():
        bench.figure(f"{way}_ms", median(times))
        bench.figure(f"{way}_cpu_ms", median(cpu[way]))
    bench.figure("confinement_ms", median(took["confined"]) - median(took["unconfined"]))
    cost = median(cpu["confined"]) - median(cpu["unconfined"])
    bench.figure("confinement_cpu_ms", cost, "at most 50 ms", cost <= 50)


if __name__ == "__main__":
    main("selftest_start", measure)
