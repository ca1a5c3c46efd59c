"""Gates by simulation: how often a healthy rollout is stopped, and on how many devices a bad one.

Everything is looked at after each report. Beside the gates stand what common servers do (a share of
failures, a share of slowdown) and a fixed-horizon test at 1 % that is looked at on each report.

Installs: devices settle one by one, each fails with the same chance; the gate allows 1 %.
Latency: devices differ in speed by a factor of two (one sigma), each drifts by 3 % with heavy tails
(Student's t of 3 degrees), each window scatters by 4 %, and all share a daily swing of 10 %. 80
devices are on the old version, the new one comes to 60, one at a time; the gate allows 2 %.
Liars: see `_liars.py`. Of each kind of lie, how often a healthy version is stopped, how often one
that is 25 % slower passes all waves, and on how many devices it is by the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from _bench import Bench, main
from _liars import DEVICES, LIES, Came, Fleet, run

from pilotwave_server.rollouts.gates import mixture
from pilotwave_server.rollouts.gates.agreement import Agreement
from pilotwave_server.rollouts.gates.change import units, voices, windows
from pilotwave_server.rollouts.gates.data import Evidence, Outcomes, Sample, series
from pilotwave_server.rollouts.gates.judge import judge
from pilotwave_server.rollouts.gates.judge_metric import rank_tests
from pilotwave_server.rollouts.gates.ranks import Stakes
from pilotwave_server.rollouts.gates.verdict import Word
from pilotwave_server.rollouts.policies.policy import InstallGate, MetricGate

BASELINE = 0.01
INSTALL = InstallGate(max_failure_rate=BASELINE, alpha=0.01)
LATENCY = MetricGate("latency", "latency_ms", min_effect=0.02, alpha=0.01)
MOST = 2_000
AT_LEAST = 10  # devices before a plain threshold speaks
TOO_MANY = 0.03  # the share of failures at which a plain threshold stops
TOO_SLOW = 0.05  # the slowdown at which it stops
NEW, OLD, EACH = 60, 80, 6  # devices of each arm, windows of each device
Float = np.ndarray


def measure(bench: Bench) -> None:
    rng = np.random.default_rng(2026)
    installs(bench, rng, runs=2_000 if bench.quick else 10_000)
    latencies(bench, rng, healthy=300 if bench.quick else 10_000, bad=60 if bench.quick else 1_000)
    liars(bench, runs=2 if bench.quick else 100)


# ---- installs


def installs(bench: Bench, rng: np.random.Generator, *, runs: int) -> None:
    bench.say(f"installs: {runs:,} rollouts each, up to {MOST:,} devices, at most 1 % may fail")
    rules: dict[str, Float] = {
        "gate": gate_limits(),
        "threshold": np.maximum(np.ceil(TOO_MANY * np.arange(1, MOST + 1)), 1),
        "fixed test": fixed_limits(),
    }
    rules["threshold"][: AT_LEAST - 1] = MOST + 1
    for rate in (BASELINE, 0.05, 0.10, 0.30):
        failures = failed_so_far(rng, rate, runs)
        for name, limits in rules.items():
            stops = first_true(failures >= limits)
            what = f"install {rate:.0%}, {name}"
            if rate == BASELINE:
                share = float(np.mean(stops <= MOST))
                goal = "<= 0.01" if name == "gate" else ""
                bench.figure(f"{what}: false rollbacks", share, goal, share <= 0.01)
            else:
                tell(bench, what, stops, most=MOST)
        if rate > BASELINE:
            bench.figure(f"install {rate:.0%}, bound: mean at least", least_mean(rate))
        check_installs(failures, rules["gate"])


def failed_so_far(rng: np.random.Generator, rate: float, runs: int) -> Float:
    found = np.empty((runs, MOST), dtype=np.int16)
    for begin in range(0, runs, 500):
        part = found[begin : begin + 500]
        np.cumsum(rng.random(part.shape, dtype=np.float32) < rate, axis=1, out=part)
    return found


def gate_limits() -> Float:
    """After each number of devices, the failures at which the gate stops."""
    level = mixture.threshold(BASELINE, INSTALL.alpha)
    found, limit = np.empty(MOST), 0
    for seen in range(1, MOST + 1):
        while limit <= seen and mixture.log_evidence(limit, seen, BASELINE) < level:
            limit += 1
        found[seen - 1] = limit
    return found


def fixed_limits() -> Float:
    """The failures that an exact binomial test at 1 % calls too many, at each number of devices."""
    found = np.empty(MOST)
    for seen in range(1, MOST + 1):
        term, below, limit = (1 - BASELINE) ** seen, 0.0, 0
        while 1 - below > INSTALL.alpha:
            below += term
            term *= (seen - limit) / (limit + 1) * BASELINE / (1 - BASELINE)
            limit += 1
        found[seen - 1] = limit
    return found


def least_mean(rate: float) -> float:
    """Wald's bound on the mean number of devices of any test of this error that always stops."""
    gain = rate * math.log(rate / BASELINE)
    gain += (1 - rate) * math.log((1 - rate) / (1 - BASELINE))
    return math.log(1 / INSTALL.alpha) / gain


def check_installs(failures: Float, limits: Float) -> None:
    """Ask the very gate of the server, at each stop and just before it."""
    for path in failures[:40]:
        stop = int(first_true((path >= limits)[None])[0])
        for seen in {max(1, stop - 1), min(stop, MOST)}:
            bad = int(path[seen - 1])
            told = judge(INSTALL, Evidence(Outcomes(healthy=seen - bad, failed=bad)))[0].word
            assert (told is Word.FAIL) == (bad >= limits[seen - 1]), (bad, seen, told)


# ---- latency


class Stops(NamedTuple):
    """By rule, how many devices had the version when it was stopped (NEW + 1: it was not)."""

    gate: int
    threshold: int
    fixed: int


def latencies(bench: Bench, rng: np.random.Generator, *, healthy: int, bad: int) -> None:
    bench.say(f"latency: {healthy:,} healthy rollouts and {bad:,} of each shift, {NEW} devices")
    for shift in (0.0, 0.10, 0.25, 0.50):
        runs = bad if shift else healthy
        found = np.array([stops_of(samples(rng, shift), check=n < 5) for n in range(runs)])
        for index, name in enumerate(("gate", "threshold", "fixed test")):
            what = f"latency +{shift:.0%}, {name}"
            if shift:
                tell(bench, what, found[:, index], most=NEW)
            else:
                share = float(np.mean(found[:, index] <= NEW))
                goal = "<= 0.01" if name == "gate" else ""
                bench.figure(f"{what}: false rollbacks", share, goal, share <= 0.01)


def samples(rng: np.random.Generator, shift: float) -> list[Sample]:
    """One rollout's windows in the order they come: an old device or two, then a new one."""
    devices = NEW + OLD
    speed = 10 * np.exp(0.7 * rng.standard_normal(devices))
    drift = 0.03 * rng.standard_t(3, devices)
    phase = rng.random() * 2 * math.pi
    found = []
    for step in range(NEW + EACH - 1):
        swing = 0.1 * math.sin(phase + step / 15)
        begun = range(max(0, step - EACH + 1), min(step + 1, NEW))
        # half of the old devices report before the first new one, the others by and by
        older = [NEW + n for n in range(OLD) if 0 <= step - max(0, n - OLD // 2) < EACH]
        for device in (*older, *begun):
            new = device < NEW
            worse = math.log1p(shift) if new else 0.0
            change = drift[device] + swing + worse + 0.04 * rng.standard_normal()
            value = float(speed[device] * math.exp(change))
            at, seconds = 900.0 * step, 900.0
            found.append(Sample(device, new, value, float(speed[device]), {}, at, seconds))
    return found


def stops_of(found: list[Sample], *, check: bool) -> Stops:
    gate = gate_stop(found)
    if check:
        check_latency(found, gate)
    known = min(gate[0], NEW + 1)
    return Stops(known, plain_stop(found, too_slow), plain_stop(found, welch))


def gate_stop(found: list[Sample]) -> tuple[int, int]:
    """Return how many devices had the version at the first FAIL, and after which sample it came."""
    changes, _ = windows(found, worse="higher")
    tests = [
        (size, level, Stakes(), iter(units(changes, size=size, allowed=LATENCY.min_effect)))
        for size, level in rank_tests(LATENCY.alpha)
    ]
    begun: set[int] = set()
    counted: dict[tuple[int, bool], int] = {}
    for place, sample in enumerate(found, 1):
        key = sample.device, sample.new
        counted[key] = counted.get(key, 0) + 1
        if sample.new:
            begun.add(sample.device)
        for size, _, stakes, taken in tests:
            if counted[key] == size:
                stakes.add(next(taken))
        shown = any(stakes.log_evidence >= level for _, level, stakes, _ in tests)
        if shown and Agreement(*voices(changes[:place], size=5), LATENCY.min_effect).stops:
            return len(begun), place
    return NEW + 1, len(found) + 1


def check_latency(found: list[Sample], stop: tuple[int, int]) -> None:
    """Ask the very gate of the server at the stop, and before it."""
    for place in {stop[1] - 1, min(stop[1], len(found))}:
        name = series(LATENCY.metric, LATENCY.statistic)
        told = judge(LATENCY, Evidence(samples={name: found[:place]}))[0]
        old = len({s.device for s in found[:place] if not s.new})
        if old >= 20:  # below that the gate has a third test
            assert (told.word is Word.FAIL) == (place == stop[1]), (place, stop, told)


def plain_stop(found: list[Sample], says_stop: Callable[[Float, Float], bool]) -> int:
    """Return how many devices had the version when a rule over first windows said stop."""
    old, new = [], []
    seen: set[tuple[int, bool]] = set()
    for sample in found:
        if (sample.device, sample.new) in seen or sample.reference is None:
            continue
        seen.add((sample.device, sample.new))
        (new if sample.new else old).append(sample.value / sample.reference)
        enough = sample.new and len(new) >= 3 and len(old) >= 3
        if enough and says_stop(np.array(new), np.array(old)):
            return len(new)
    return NEW + 1


def too_slow(new: Float, old: Float) -> bool:
    return bool(new.mean() > (1 + TOO_SLOW) * old.mean())


def welch(new: Float, old: Float) -> bool:
    """A test of means at 1 %, as if it were the only look."""
    error = math.sqrt(new.var(ddof=1) / len(new) + old.var(ddof=1) / len(old))
    return bool((new.mean() - (1 + LATENCY.min_effect) * old.mean()) / error > 2.326)


# ---- liars


def liars(bench: Bench, *, runs: int) -> None:
    bench.say(f"liars: {runs:,} rollouts of each kind of lie, {DEVICES} devices")
    gate = replace(LATENCY, min_devices=3, min_windows=12)

    def ask(evidence: Evidence) -> Word:
        return judge(gate, evidence)[0].word

    for share in (0.0, 0.01, 0.05, 0.10, 0.25):
        worst: dict[str, float] = {"false stops": 0.0, "false passes": 0.0, "exposed": 0.0}
        for lie in LIES if share else LIES[:1]:
            rng = np.random.default_rng(2026)
            good = [run(Fleet(rng, shift=0.0, share=share), ask, lie, 1) for _ in range(runs)]
            bad = [run(Fleet(rng, shift=0.25, share=share), ask, lie, -1) for _ in range(runs)]
            for name, value in of_liars(good, bad).items():
                worst[name] = max(worst[name], value)
        for name, value in worst.items():
            bench.figure(f"{share:.0%} of each arm lie, the worst: {name}", value)


def of_liars(good: list[Came], bad: list[Came]) -> dict[str, float]:
    return {
        "false stops": sum(c.word == "stopped" for c in good) / len(good),
        "false passes": sum(c.word == "passed" for c in bad) / len(bad),
        "exposed": sum(c.devices for c in bad) / len(bad),
    }


# ---- figures


def first_true(hits: Float) -> Float:
    """By row, the number of the first true column from 1; one more than there are, if none is."""
    return np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, hits.shape[1] + 1)


def quantiles(stops: Float) -> Iterator[tuple[str, int]]:
    for name, share in (("median", 0.5), ("p95", 0.95)):
        yield name, int(np.quantile(stops, share, method="higher"))


def tell(bench: Bench, what: str, stops: Float, *, most: int) -> None:
    for name, devices in quantiles(stops):
        told = devices if devices <= most else f"over {most:,}"
        bench.figure(f"{what}: {name} devices", told)
    missed = float(np.mean(stops > most))
    if missed:
        bench.figure(f"{what}: not stopped", missed)


if __name__ == "__main__":
    main("gates", measure)
