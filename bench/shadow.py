"""Shadow waves by simulation: how often a good candidate is stopped, and after how many devices and
calls a bad one is, beside the gate of a canary wave that users meet.

In either wave a device joins every quarter of an hour, up to 60, and reports a window then. In
shadow a window holds 250 calls that both versions answered (5 % of the device's 5,000), and a
device is heard after two. Everything is looked at after each window.
Devices differ: of the ratio of latencies by 1 % with heavy tails (Student's t of 3 degrees), of the
score's change by 0.003, of the memory's by 5 %; each has a share of disagreements of its own, a
factor of 1.5 (one sigma) around the mean. All share a daily swing of 30 % in disagreements and 1 %
in latency. Load and scenes last: calls come in runs of 10 that agree or disagree together, and what
a window is off by carries over to the next one by half.
A good candidate is as fast, scores the same, disagrees in 1 % where 2 % may, fails in 1 of 100,000
calls where 1 of 10,000 may, and takes 1.2 times the memory where 1.5 may.
The canary's gate is that of `gates.py`, which allows 2 % where that of the shadow allows 5 %, on
what an application measures of its own: it has no metric for answers that differ, nor for memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import gates as canary
import numpy as np
from _bench import Bench, main

from pilotwave_server.rollouts.gates import mixture, voices
from pilotwave_server.rollouts.gates.data import Evidence, Sample, series
from pilotwave_server.rollouts.gates.judge import judge
from pilotwave_server.rollouts.gates.verdict import Word
from pilotwave_server.rollouts.policies.paired import (
    Disagreement,
    Errors,
    Latency,
    Limit,
    Memory,
    PairedGate,
    Score,
)

DEVICES, WINDOWS = 60, 20
CALLS, ALL_CALLS, MIN_CALLS = 250, 5_000, 500
STEPS = DEVICES + WINDOWS
RUN = 10  # calls of one scene
ALPHA = 0.01
PASS_FROM = 3  # devices that are heard, for a PASS
AT_ONCE = 250
Float = np.ndarray
Make = Callable[[np.random.Generator, int], Float]
# evidence that more devices say the candidate is worse than a good one explains: [worse, heard]
_ASIDE = np.array(
    [
        [mixture.log_evidence(min(worse, of), of, voices._ASIDE) for of in range(DEVICES + 1)]
        for worse in range(DEVICES + 1)
    ]
)


@dataclass(frozen=True)
class Case:
    """What a candidate does, as windows of `metrics` by rollout, device and window."""

    name: str
    limit: Limit
    make: Make
    canary: Callable[[np.random.Generator], list[Sample]] | None = None


def measure(bench: Bench) -> None:
    rng = np.random.default_rng(2026)
    good, bad = (500, 100) if bench.quick else (10_000, 1_000)
    bench.say(f"{good:,} good candidates of each kind, {bad:,} bad ones, up to {DEVICES} devices")
    for case in good_ones():
        share = float(np.mean(stops(bench, case, rng, good)[:, 0] <= DEVICES))
        bench.figure(f"{case.name}: false stops", share, "<= 0.01", share <= ALPHA)
    for case in bad_ones():
        tell(bench, case, stops(bench, case, rng, bad), rng, runs=60 if bench.quick else bad)


def tell(bench: Bench, case: Case, found: Float, rng: np.random.Generator, *, runs: int) -> None:
    """Say what it takes, with and without users."""
    missed = float(np.mean(found[:, 0] > DEVICES))
    bench.figure(f"{case.name}: not stopped in {STEPS / 4:g} h", missed)
    passed = float(np.mean(found[:, 3]))
    bench.figure(f"{case.name}: passed before, without any soak", passed)
    for index, what in enumerate(("devices", "compared calls", "hours")):
        for quantile, value in quantiles(found[:, index]):
            bench.figure(f"{case.name}: {quantile} {what}", value)
    bench.figure(f"{case.name}: users who met it", 0, "0", True)
    if case.canary is None:
        bench.figure(f"{case.name}: canary", "no metric shows it")
        return
    devices = np.array([canary.gate_stop(case.canary(rng))[0] for _ in range(runs)])
    for quantile, value in quantiles(devices):
        bench.figure(f"{case.name}: canary, {quantile} devices", value)
        bench.figure(f"{case.name}: canary, {quantile} answers to users", answered(value))
    if case.name == "latency +10 %":
        ours, theirs = np.median(found[:, 0]), np.median(devices)
        bench.figure("devices, by those of the canary", ours / theirs, "<= 0.5", 2 * ours <= theirs)


def answered(devices: float) -> int:
    """The calls that users had answered by the version, one device more each quarter of an hour."""
    most = canary.EACH
    return ALL_CALLS * sum(min(n, most) for n in range(1, int(devices) + 1))


def quantiles(found: Float) -> Iterator[tuple[str, float]]:
    for name, share in (("median", 0.5), ("p95", 0.95)):
        yield name, float(np.quantile(found, share, method="higher"))


# ---- what candidates do


def good_ones() -> list[Case]:
    return [
        Case("good, latency", Latency(min_effect=0.05), ratios(0.0)),
        Case("good, disagreement", Disagreement(0.02), shares(0.01)),
        Case("good, score", Score(0.02), changes(0.0)),
        Case("good, errors", Errors(0.0001), rare(0.00001)),
        Case("good, memory", Memory(1.5), memory(1.2)),
        # at the very limit on each device, which is what the bound of the error is about
        Case("at the limit, disagreement", Disagreement(0.02), shares(0.02, differ=0, swing=0)),
        Case("at the limit, errors", Errors(0.0001), rare(0.0001)),
    ]


def bad_ones() -> list[Case]:
    found = [
        Case(
            f"latency +{shift:.0%}".replace("%", " %"),
            Latency(min_effect=0.05),
            ratios(shift),
            lambda rng, shift=shift: canary.samples(rng, shift),
        )
        for shift in (0.10, 0.25, 0.50)
    ]
    found += [
        Case(f"disagreement {rate:.0%}".replace("%", " %"), Disagreement(0.02), shares(rate))
        for rate in (0.05, 0.10)
    ]
    return [
        *found,
        # the canary's gate counts in shares of a device's past: one direction is as another
        Case("score -10 %", Score(0.02), changes(-0.09), lambda rng: canary.samples(rng, 0.10)),
        Case("crash on 1 of 500", Errors(0.0001), rare(1 / 500), failing(1 / 500)),
        Case("no number on 1 of 1,000", Errors(0.0001), rare(1 / 1000), failing(1 / 1000)),
        Case("memory x 2", Memory(1.5), memory(2.0)),
    ]


def day(rng: np.random.Generator, runs: int) -> Float:
    """A swing of at most 1 that all devices share, by device and window."""
    step = np.arange(DEVICES)[:, None] + np.arange(WINDOWS)
    phase = rng.random(runs) * 2 * math.pi
    found: Float = np.sin(phase[:, None, None] + 2 * math.pi * step / 96)
    return found


def carried_over(rng: np.random.Generator, runs: int) -> Float:
    """Noise of one sigma of which each window keeps half from the one before."""
    found = rng.standard_normal((runs, DEVICES, WINDOWS))
    for n in range(1, WINDOWS):
        found[:, :, n] = 0.5 * found[:, :, n - 1] + math.sqrt(0.75) * found[:, :, n]
    return found


def ratios(shift: float) -> Make:
    def make(rng: np.random.Generator, runs: int) -> Float:
        own = 0.01 * rng.standard_t(3, (runs, DEVICES, 1))
        found: Float = np.exp(
            math.log1p(shift) + own + 0.01 * day(rng, runs) + 0.02 * carried_over(rng, runs)
        )
        return found

    return make


def changes(shift: float) -> Make:
    def make(rng: np.random.Generator, runs: int) -> Float:
        own = 0.003 * rng.standard_t(3, (runs, DEVICES, 1))
        found: Float = shift + own + 0.005 * carried_over(rng, runs)
        return found

    return make


def memory(ratio: float) -> Make:
    def make(rng: np.random.Generator, runs: int) -> Float:
        own = 0.05 * rng.standard_normal((runs, DEVICES, 1))
        found: Float = ratio * np.exp(own + 0.02 * carried_over(rng, runs))
        return found

    return make


def shares(rate: float, *, differ: float = 0.4, swing: float = 0.3) -> Make:
    """Disagreements in whole scenes."""

    def make(rng: np.random.Generator, runs: int) -> Float:
        own = np.exp(differ * rng.standard_normal((runs, DEVICES, 1)) - differ**2 / 2)
        each = np.clip(rate * own * (1 + swing * day(rng, runs)), 0, 1)
        found: Float = rng.binomial(CALLS // RUN, each) * RUN / CALLS
        return found

    return make


def rare(rate: float) -> Make:
    def make(rng: np.random.Generator, runs: int) -> Float:
        found: Float = rng.binomial(CALLS, rate, (runs, DEVICES, WINDOWS)) / CALLS
        return found

    return make


def failing(rate: float) -> Callable[[np.random.Generator], list[Sample]]:
    """The share of errors among all calls of a window, of devices that had none before."""

    def make(rng: np.random.Generator) -> list[Sample]:
        def value(sample: Sample) -> float:
            return float(rng.binomial(ALL_CALLS, rate)) / ALL_CALLS if sample.new else 0.0

        found = canary.samples(rng, 0.0)
        return [s._replace(value=value(s), reference=0.0) for s in found]

    return make


# ---- the gate


def stops(bench: Bench, case: Case, rng: np.random.Generator, runs: int) -> Float:
    """By rollout: how many devices had joined at the first FAIL (one more than there are: none
    came), how many calls they had compared, and the hours that it took."""
    parts = []
    for begin in range(0, runs, AT_ONCE):
        values = case.make(rng, min(AT_ONCE, runs - begin))
        parts.append(first_stops(values, case.limit))
        if begin == 0:
            check(case.limit, values[:3], parts[0])
    return np.concatenate(parts)


def first_stops(values: Float, limit: Limit) -> Float:
    worth = coins(values, limit)
    heard = np.minimum(np.arange(STEPS)[None, :] - np.arange(DEVICES)[:, None], WINDOWS - 1)
    counts = (heard + 1) * CALLS >= MIN_CALLS
    loud = worth[:, np.arange(DEVICES)[:, None], np.maximum(heard, 0)]
    if isinstance(limit, Errors):
        counts = (heard >= 0) & (counts | (loud >= voices.LOUDEST))
    counts = np.broadcast_to(counts, loud.shape)
    logs = [
        (counts * np.log1p(stake * (loud / voices._MEAN - 1))).sum(axis=1)
        for stake in voices._DEVICE_STAKES
    ]
    evidence = np.logaddexp.reduce(logs, axis=0) - math.log(len(logs))
    worse, of = (counts & (loud >= voices._WORSE)).sum(axis=1), counts.sum(axis=1)
    over = over_the_limit(values, limit)[:, np.arange(DEVICES)[:, None], np.maximum(heard, 0)]
    doubts = (evidence >= voices._DOUBT) | (2 * (counts & over).sum(axis=1) >= of)
    passes = (of >= PASS_FROM) & ~doubts & (_ASIDE[worse, of] < voices._DOUBT)
    agree = ((3 * worse >= 2 * of) & (worse > 0)) | ((of >= 16) & (5 * worse > 2 * of))
    fails = (evidence >= -math.log(ALPHA)) & agree
    step = np.where(fails.any(axis=1), fails.argmax(axis=1), STEPS)
    joined = np.where(step < STEPS, np.minimum(step + 1, DEVICES), DEVICES + 1)
    calls = CALLS * np.clip(step[:, None] + 1 - np.arange(DEVICES), 0, WINDOWS).sum(axis=1)
    passed = np.where(passes.any(axis=1), passes.argmax(axis=1), STEPS) < step
    return np.stack([joined, calls, (step + 1) / 4, passed], axis=1)


def over_the_limit(values: Float, limit: Limit) -> Float:
    """By rollout, device and number of windows: whether what was seen so far is over it."""
    found: Float = multiples_of(values, limit)[0].cumsum(axis=2) > np.arange(1, WINDOWS + 1)
    return found


def multiples_of(values: Float, limit: Limit) -> tuple[Float, Sequence[float]]:
    """Each window as a multiple of what is allowed, and what is staked on it."""
    if isinstance(limit, Disagreement | Errors):
        return values / limit.at_most, voices.SHARES
    if isinstance(limit, Latency):
        return voices.BEYOND * (values > 1 + limit.min_effect), voices.HALVES
    if isinstance(limit, Memory):
        return voices.BEYOND * (values > limit.at_most), voices.HALVES
    return voices.BEYOND * (values < -limit.min_effect), voices.HALVES


def coins(values: Float, limit: Limit) -> Float:
    """By rollout, device and number of windows: the device's coins."""
    multiples, stakes = multiples_of(values, limit)
    won = [np.exp(np.log1p(s * (multiples - 1)).cumsum(axis=2).clip(max=100)) for s in stakes]
    each = sum(won) / len(won)
    if isinstance(limit, Errors):
        each = (each + 1) / 2  # the other metric of the two shows nothing
    found: Float = np.minimum(each, voices.LOUDEST)
    return found


def check(limit: Limit, values: Float, found: Float) -> None:
    """Ask the very gate of the server, at each stop and just before it."""
    key = type(limit).__name__.lower()
    gate = PairedGate(key, **{key: limit}, alpha=ALPHA)  # type: ignore[arg-type]
    metric, statistic = limit.asks[0]
    for rollout, hours in zip(values, found[:, 2], strict=False):
        stop = round(hours * 4)
        for step in {max(stop - 1, 1), min(stop, STEPS)}:
            samples = [
                Sample(device, True, float(value), None, calls=CALLS)
                for device in range(min(step, DEVICES))
                for value in rollout[device, : step - device]
            ]
            name = series(metric, statistic)
            told = judge(gate, Evidence(samples={name: samples}, min_calls=MIN_CALLS))[0].word
            assert (told is Word.FAIL) == (step == stop), (key, step, stop, told)


if __name__ == "__main__":
    main("shadow", measure)
