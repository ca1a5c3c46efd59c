"""What a version tried in shadow costs an application's calls.

Two models of the same bytes are called at a constant pace, block by block in turns: one has a
candidate beside it, the other has none. Between blocks the candidate's process comes to rest, so
that neither pays for the other. Then the candidate crashes, hangs, and takes 2 GB, again and again.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from numpy.typing import NDArray

from bench._bench import Bench, main
from pilotwave_agent.live import LiveModel
from tests.peers.shelf import HANGS, HOGS, Shelf, number_in

Array = NDArray[np.float32]

WIDTH, HIDDEN = 224 * 224 * 3, 32  # an image of 600 kB; some milliseconds a call
PAUSE_S, REST_S = 0.004, 0.05
BLOCK = 40
TWO_GB = 5e8  # numbers of 4 bytes
SOON_S = 120.0


@dataclass
class Calls:
    """Milliseconds of each call, by the clock and of the calling thread's processor time, and how
    many failed."""

    ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    failed: int = 0

    def p(self, q: float) -> float:
        return float(np.quantile(np.array(self.ms), q))


def image(place: int = 0, value: float = 1.0) -> dict[str, Array]:
    made = np.ones((1, WIDTH), np.float32)
    made[0, place] = value
    return {"x": made}


def call(model: LiveModel, calls: Calls, feeds: dict[str, Array]) -> None:
    begun, cpu = time.perf_counter(), time.thread_time()
    try:
        answer = model.run(feeds)
    except Exception:
        calls.failed += 1
    else:
        calls.ms.append((time.perf_counter() - begun) * 1000)
        calls.cpu_ms.append((time.thread_time() - cpu) * 1000)
        calls.failed += number_in(answer) != 1
    time.sleep(PAUSE_S)


def in_turns(
    shadowed: LiveModel,
    alone: LiveModel,
    blocks: int,
    feeds: Callable[[int], dict[str, Array]],
) -> tuple[Calls, Calls]:
    """Return what calls took with a candidate and without one. `feeds` makes the n-th input of the
    first."""
    found = Calls(), Calls()
    plain, number = image(), 0
    for _ in range(blocks):
        for model, calls in zip((shadowed, alone), found, strict=True):
            for _ in range(BLOCK):
                number += 1
                call(model, calls, feeds(number) if model is shadowed else plain)
            time.sleep(REST_S)
    return found


def children() -> list[int]:
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found += [int(pid) for pid in (task / "children").read_text().split()]
    return found


def shadowed_at(shelf: Shelf, model: LiveModel, share: float, kind: str = "good") -> None:
    """Have a candidate tried, and wait until it is."""
    shelf.shadow(None)
    shelf.shadow(shelf.add(2, kind), share=share, cpu=64.0)
    ends = time.monotonic() + SOON_S
    while not _tried(shelf):
        model.run(image())
        time.sleep(0.01)
        if time.monotonic() > ends:
            raise SystemExit("no candidate was tried in time: is the machine busy?")


def _tried(shelf: Shelf) -> bool:
    for path in (shelf.data / "live" / shelf.model).glob("*.window"):
        with contextlib.suppress(OSError):
            words = path.read_bytes()
            path.unlink()  # as the agent does
            return b"shadow_disagree" in words
    return False


def price(bench: Bench, shelf: Shelf, shadowed: LiveModel, alone: LiveModel) -> None:
    blocks = 12 if bench.quick else 150
    plain = image()
    for share, most in ((0.0, math.inf), (0.05, 1.05), (1.0, 1.25)):
        if share:
            shadowed_at(shelf, shadowed, share)
        beside, without = in_turns(shadowed, alone, blocks, lambda _: plain)
        words = f"share {share:.0%}"
        bench.figure(f"{words}: calls", len(beside.ms) + len(without.ms))
        for q in (0.5, 0.99):
            bench.figure(f"{words}: p{q * 100:g} without, ms", without.p(q))
            bench.figure(f"{words}: p{q * 100:g} with, ms", beside.p(q))
        means = [sum(c.cpu_ms) / len(c.cpu_ms) for c in (without, beside)]
        bench.figure(f"{words}: processor time a call without, ms", means[0])
        bench.figure(f"{words}: processor time a call with, ms", means[1])
        ratio = beside.p(0.99) / without.p(0.99)
        goal = f"at most {most}" if share else ""  # by how much two models differ anyway
        bench.figure(f"{words}: p99 with / without", ratio, goal, ratio <= most)


def faults(bench: Bench, shelf: Shelf, shadowed: LiveModel, alone: LiveModel) -> None:
    blocks = 6 if bench.quick else 100
    plain, hangs, hogs = image(), image(HANGS, 1e12), image(HOGS, TWO_GB)

    def crash(number: int) -> dict[str, Array]:
        if number % 200 == 0:
            for pid in children():
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGSEGV)
        return plain

    kinds: dict[str, Callable[[int], dict[str, Array]]] = {
        "crash": crash,
        "hang": lambda number: hangs if number % 100 == 0 else plain,
        "2 GB": lambda number: hogs if number % 100 == 0 else plain,
    }
    for name, feeds in kinds.items():
        shadowed_at(shelf, shadowed, 1.0, "odd")
        beside, without = in_turns(shadowed, alone, blocks, feeds)
        limit = 2 * without.p(0.99)
        slow, usual = (sum(ms > limit for ms in c.ms) for c in (beside, without))
        bench.figure(f"{name}: failed calls", beside.failed, "0", not beside.failed)
        bench.figure(f"{name}: p99 without, ms", without.p(0.99))
        bench.figure(f"{name}: p99 with, ms", beside.p(0.99))
        bench.figure(f"{name}: slowest without, ms", without.p(1.0))
        bench.figure(f"{name}: slowest with, ms", beside.p(1.0))
        bench.figure(f"{name}: calls over 2 x p99 without", usual)
        bench.figure(f"{name}: calls over 2 x p99 with", slow, "0", not slow)


def cost_of_no_sample(bench: Bench, shelf: Shelf, model: LiveModel) -> None:
    """What a call that is not sampled pays: the step that decides so, by itself."""
    shadowed_at(shelf, model, 1.0)
    shelf.shadow(shelf.add(2), share=1e-9)
    time.sleep(2.0)
    keeper, part = model._keeper, model._shadow
    assert keeper is not None
    assert part is not None
    generation, feeds, rounds = keeper.serving.front, image(), 100_000
    assert generation is not None
    begun = time.perf_counter()
    for _ in range(rounds):
        part.called(generation, feeds, {}, 1.0)
    us = (time.perf_counter() - begun) / rounds * 1e6
    bench.figure("a call that is not sampled, µs", us, "a few", us < 5)


def measure(bench: Bench) -> None:
    bench.figure("load before", round(os.getloadavg()[0], 1))
    bench.figure("processors", os.cpu_count() or 1)
    with (
        tempfile.TemporaryDirectory(prefix="pilotwave-bench-") as folder,
        contextlib.ExitStack() as all_,
    ):
        data = Path(folder)
        (data / "live").mkdir()
        shelves = [Shelf(data, name, hidden=HIDDEN, width=WIDTH) for name in ("tried", "alone")]
        models = []
        for shelf in shelves:
            shelf.serve(1)
            models.append(all_.enter_context(LiveModel(shelf.model, data=data, heartbeat_s=1.0)))
        shadowed, alone = models
        for _n in range(100):
            shadowed.run(image())
            alone.run(image())
        price(bench, shelves[0], shadowed, alone)
        cost_of_no_sample(bench, shelves[0], shadowed)
        faults(bench, shelves[0], shadowed, alone)
    bench.figure("load after", round(os.getloadavg()[0], 1))


if __name__ == "__main__":
    main("shadow_app", measure)
