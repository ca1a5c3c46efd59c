"""Zero dropped requests: calls under a constant load while versions are switched.

Threads and coroutines call one `LiveModel` at a constant pace, in turns without and with switches.
Of every ten switches one leads to a model that cannot be loaded, one to a model that answers NaN,
one to a model that hangs on its first call; each of these is followed by the way back. Every model
answers with its version's own number: an answer whose number is not its version's was made by
something half loaded.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench._bench import Bench, main, median, memory_kb
from pilotwave_agent.live import LiveModel
from pilotwave_protocol.messages.check_in import Installed
from tests.peers.shelf import Shelf, X, number_in

MODEL = "detector"
THREADS, COROUTINES = 2, 8
PAUSE_S, COROUTINE_PAUSE_S = 0.004, 0.04
HIDDEN = 20_000
LOAD_TIMEOUT_S = 0.7
KINDS = ("good",) * 3 + ("broken",) + ("good",) * 2 + ("nan",) + ("good",) * 2 + ("hang",)


@dataclass
class Calls:
    """What came of the calls."""

    ms: dict[str, list[float]] = field(default_factory=lambda: {"steady": [], "switching": []})
    phase: str = "steady"
    failed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    by_version: dict[int, int] = field(default_factory=dict)
    first: dict[int, float] = field(default_factory=dict)
    ends: bool = False

    def note(self, begun: float, answer: object) -> None:
        now, phase = time.perf_counter(), self.phase
        number, version = number_in(answer), answer.version  # type: ignore[arg-type, attr-defined]
        if version.version != f"1.{number}.0":
            self.wrong.append(f"{version} answered {number}")
        self.first.setdefault(number, now)
        self.by_version[number] = self.by_version.get(number, 0) + 1
        self.ms[phase].append((now - begun) * 1000)


def call_in_thread(model: LiveModel, calls: Calls) -> None:
    while not calls.ends:
        begun = time.perf_counter()
        try:
            calls.note(begun, model.run(X))
        except Exception as e:
            calls.failed.append(repr(e))
        time.sleep(PAUSE_S)


async def call_in_coroutines(model: LiveModel, calls: Calls) -> None:
    async def one() -> None:
        while not calls.ends:
            begun = time.perf_counter()
            try:
                calls.note(begun, await model.arun(X))
            except Exception as e:
                calls.failed.append(repr(e))
            await asyncio.sleep(COROUTINE_PAUSE_S)

    await asyncio.gather(*(one() for _ in range(COROUTINES)))


@dataclass
class Switcher:
    """Plays the agent; knows what the application should do."""

    shelf: Shelf
    model: LiveModel
    calls: Calls
    stock: Iterator[tuple[str, Installed]]
    taken: int = 0
    refused: int = 0
    unexpected: list[str] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)

    def switch(self) -> None:
        kind, version = next(self.stock)
        number, before = version.counter, self.shelf.previous
        begun = time.perf_counter()
        self.shelf.switch(version)
        if kind == "good":
            if not self.model.wait_for(version.version, 30):
                self.unexpected.append(f"{version.version} was not taken")
            self._wait(lambda: number in self.calls.first)
            self.delays.append(self.calls.first.get(number, begun) - begun)
            self.taken += 1
            if before is not None:
                self.shelf.remove(before)  # as the agent does with what nobody needs
        else:
            self._wait(lambda: bool(self.model.refused))
            self.refused += bool(self.model.refused)
            self.shelf.back()
        time.sleep(0.1)

    def _wait(self, what: object) -> None:
        ends = time.monotonic() + 30
        while not what():  # type: ignore[operator]
            if time.monotonic() > ends:
                self.unexpected.append("a wait was in vain")
                return
            time.sleep(0.005)


def quantile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(q * len(ordered)), len(ordered) - 1)]


def measure(bench: Bench) -> None:
    switches, rounds = (20, 2) if bench.quick else (100, 5)
    with tempfile.TemporaryDirectory(prefix="pilotwave-bench-") as folder:
        data = Path(folder)
        (data / "live").mkdir()
        shelf = Shelf(data, MODEL, hidden=HIDDEN)
        shelf.serve(1)
        with LiveModel(MODEL, data=data, load_timeout_s=LOAD_TIMEOUT_S, warmup=X) as model:
            run(bench, shelf, model, switches, rounds)


def run(bench: Bench, shelf: Shelf, model: LiveModel, switches: int, rounds: int) -> None:
    calls = Calls()
    # made beforehand: making models takes this process's time from its calls
    kinds = list(islice(cycle(KINDS), switches))
    stock = [(kind, shelf.add(number, kind)) for number, kind in enumerate(kinds, start=2)]
    switcher = Switcher(shelf, model, calls, iter(stock))
    workers = [threading.Thread(target=call_in_thread, args=(model, calls)) for _ in range(THREADS)]
    workers.append(threading.Thread(target=lambda: asyncio.run(call_in_coroutines(model, calls))))
    bench.say(f"{THREADS} threads and {COROUTINES} coroutines call; {switches} switches follow")
    for worker in workers:
        worker.start()
    time.sleep(1)
    calls.ms["steady"].clear()
    before_kb = memory_kb_of_self()
    peak_kb, switching_s = before_kb, 0.0
    for _ in range(rounds):
        begun = time.monotonic()
        calls.phase = "switching"
        for _ in range(switches // rounds):
            switcher.switch()
            peak_kb = max(peak_kb, memory_kb_of_self())
        switching_s += time.monotonic() - begun
        calls.phase = "steady"
        time.sleep(time.monotonic() - begun)
    calls.ends = True
    for worker in workers:
        worker.join()
    report(bench, calls, switcher)
    bench.figure("memory before, MB", round(before_kb / 1024, 1))
    bench.figure("memory at most, MB", round(peak_kb / 1024, 1))
    bench.figure("memory after, MB", round(memory_kb_of_self() / 1024, 1))


def memory_kb_of_self() -> int:
    import os

    return memory_kb(os.getpid(), "VmRSS")


def report(bench: Bench, calls: Calls, switcher: Switcher) -> None:
    steady, switching = calls.ms["steady"], calls.ms["switching"]
    for found in [*calls.failed[:3], *calls.wrong[:3], *switcher.unexpected[:3]]:
        bench.say(found)
    bench.figure("calls", len(steady) + len(switching))
    bench.figure("failed calls", len(calls.failed), "0", not calls.failed)
    bench.figure("answers of no version", len(calls.wrong), "0", not calls.wrong)
    bench.figure("versions that answered", len(calls.by_version))
    bench.figure("switches taken", switcher.taken)
    bench.figure("switches refused", switcher.refused)
    bench.figure(
        "switches that went otherwise",
        len(switcher.unexpected),
        "0",
        not switcher.unexpected,
    )
    bench.figure("switch to first answer, median ms", median(switcher.delays) * 1000)
    for q in (0.5, 0.99):
        name = f"p{q * 100:g}"
        a, b = quantile(steady, q), quantile(switching, q)
        bench.figure(f"{name} without switches, ms", a)
        bench.figure(f"{name} during switches, ms", b)
        if q == 0.99:
            bench.figure("p99 during / without", b / a, "at most 3", b / a <= 3)


if __name__ == "__main__":
    main("live_swap", measure)
