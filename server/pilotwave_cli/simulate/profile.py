"""What a simulated fleet is like: its slices, and how versions do on them. Read from YAML.

Shares and rates are written as `20%` or 0.2, lengths of time as `90s`, `5m`, or in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from pilotwave_cli.errors import CliError
from pilotwave_protocol import names
from pilotwave_protocol.durations import read_duration
from pilotwave_protocol.errors import BadName, ProtocolError
from pilotwave_protocol.fields import Fields
from pilotwave_protocol.manifest import NEWEST_SCHEMA
from pilotwave_protocol.messages.facts import (
    AGENT_COMPARES,
    AGENT_MANIFEST,
    AGENT_SHADOWS,
    AGENT_UPDATES,
)

MOST = 10_000
FACTS: dict[str, Any] = {
    "arch": "aarch64",
    "os": "linux",
    "memory_mb": 4096,
    "runtime.onnxruntime": "1.23.2",
    "runtime.wheelhouse": "25.0",
    AGENT_UPDATES: True,
    AGENT_MANIFEST: NEWEST_SCHEMA,
    AGENT_COMPARES: True,
    AGENT_SHADOWS: True,
}


@dataclass(frozen=True)
class Offline:
    """A `share` of the devices is gone for `for_s` once in each `every_s`."""

    share: float = 0.0
    for_s: float = 0.0
    every_s: float = 3600.0


@dataclass(frozen=True)
class Metrics:
    """What the application measures: a median latency with its spread (the standard deviation of
    its logarithm), an error rate, a score, and calls per second."""

    latency_ms: float = 20.0
    spread: float = 0.25
    error: float = 0.002
    score: float = 0.9
    score_spread: float = 0.03
    calls_per_s: float = 2.0


@dataclass(frozen=True)
class Slice:
    """One kind of device: `share` of all. `live_model`: its application takes part in shadows."""

    name: str
    share: float
    labels: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=lambda: dict(FACTS))
    mbit_s: float = 20.0
    latency_ms: float = 20.0
    offline: Offline = Offline()
    metrics: Metrics = Metrics()
    live_model: bool = True


@dataclass(frozen=True)
class Behaviour:
    """How versions that match do on slices that match. Rates are shares of the devices."""

    model: str = "*"
    version: str = "*"
    slice: str = "*"
    selftest_failure: float = 0.0
    probation_failure: float = 0.0
    silent: float = 0.0
    latency_factor: float = 1.0
    error_added: float = 0.0
    score_added: float = 0.0
    disagreement: float = 0.0
    memory_factor: float = 1.0

    def matches(self, model: str, version: str, slice: str) -> bool:
        """Say whether this is about that version there."""
        wanted = ((self.model, model), (self.version, version), (self.slice, slice))
        return all(fnmatchcase(found, pattern) for pattern, found in wanted)


@dataclass(frozen=True)
class Measure:
    """What devices of slices that match measure of variants that match: the 5th percentile of a
    call and the peak memory, or the reason why it does not run there."""

    variant: str = "*"
    slice: str = "*"
    p05_ms: float = 10.0
    peak_mb: float = 20.0
    failed: str = ""


NORMAL = Behaviour()


@dataclass(frozen=True)
class Profile:
    """A simulated fleet. Intervals None: those that the server says."""

    slices: tuple[Slice, ...]
    behaviours: tuple[Behaviour, ...] = ()
    measures: tuple[Measure, ...] = ()
    poll_s: float | None = None
    check_in_s: float | None = None
    selftest_s: float = 2.0
    probation_s: float = 10.0

    def behaviour(self, model: str, version: str, slice: str) -> Behaviour:
        """The first behaviour that matches, or the normal one."""
        found = (b for b in self.behaviours if b.matches(model, version, slice))
        return next(found, NORMAL)

    def measure(self, variant: str, slice: str) -> Measure:
        """The first measure that matches, or a plain one."""
        matching = (
            m
            for m in self.measures
            if fnmatchcase(variant, m.variant) and fnmatchcase(slice, m.slice)
        )
        return next(matching, Measure())

    def slice_of(self, number: int, count: int) -> Slice:
        """The slice of device `number` of `count`: by shares, in order."""
        reached, place = 0.0, (number + 0.5) / count * sum(s.share for s in self.slices)
        for one in self.slices:
            reached += one.share
            if place < reached:
                return one
        return self.slices[-1]


def read_profile(path: Path) -> Profile:
    """Read a profile, or raise `CliError` naming the field."""
    try:
        data = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = "" if line is None else f", line {line + 1}"
        raise CliError(f"{path}{where}: expected YAML") from None
    if not isinstance(data, dict):
        raise CliError(f"{path}: expected a mapping of fields; got {ascii(data)[:40]}")
    try:
        return _profile(_Reader(data, "", BadProfile))
    except (BadName, BadProfile) as error:
        raise CliError(f"{path}: {error}") from None


class BadProfile(ProtocolError):
    """A profile whose fields are unknown or of the wrong kind."""

    code = "bad_profile"


class _Reader(Fields):
    """Fields as people write them: shares as 20%, lengths of time as 5m, a version as 1.0."""

    def several(self, key: str) -> Iterator[_Reader]:
        return self.objects(key, limit=MOST, default=[])

    def word(self, key: str, default: str) -> str:
        found = self.raw(key, default)
        if not isinstance(found, (str, int, float)) or isinstance(found, bool):
            raise self.fail(key, "text", found)
        return str(found)

    def amount(self, key: str, default: float, *, low: float = 0.0, high: float = 1e9) -> float:
        given = found = self.raw(key, default)
        if isinstance(found, str) and found.endswith("%"):
            try:
                found = float(found[:-1]) / 100
            except ValueError:
                pass
        if isinstance(found, bool) or not isinstance(found, (int, float)):
            raise self.fail(key, "a number, or a share as 20%", given)
        if not low <= found <= high:
            raise self.fail(key, f"a number from {low:g} to {high:g}", given)
        return float(found)

    def rate(self, key: str, default: float = 0.0) -> float:
        return self.amount(key, default, high=1.0)

    def seconds(self, key: str, default: float | None) -> float | None:
        given = found = self.raw(key, default)
        if isinstance(found, str):
            found = read_duration(found)
        elif found is None:
            return None
        if isinstance(found, bool) or not isinstance(found, (int, float)):
            raise self.fail(key, "a length of time as 90s or 5m", given)
        return float(found)

    def done(self) -> None:
        unknown = sorted(str(key) for key in set(self._data) - self._seen)
        if unknown:
            known = ", ".join(sorted(self._seen))
            raise self._error(f"{self.at(unknown[0])}: there is no such field; there are {known}")


def _profile(r: _Reader) -> Profile:
    r.word("description", "")
    slices = tuple(_slice(item, n) for n, item in enumerate(r.several("slices")))
    profile = Profile(
        slices=slices or (Slice("all", 1.0),),
        behaviours=tuple(_behaviour(item) for item in r.several("behaviours")),
        measures=tuple(_measure(item) for item in r.several("measures")),
        poll_s=r.seconds("poll", None),
        check_in_s=r.seconds("check_in", None),
        selftest_s=r.seconds("selftest", 2.0) or 0.0,
        probation_s=r.seconds("probation", 10.0) or 0.0,
    )
    r.done()
    if not sum(s.share for s in profile.slices):
        raise r.fail("slices", "shares above 0", [s.share for s in profile.slices])
    return profile


def _slice(r: _Reader, number: int) -> Slice:
    labels = {names.check_label_key(k): names.check_label_value(v) for k, v in _plain(r, "labels")}
    facts = {names.check_fact_key(k): v for k, v in _plain(r, "facts")}
    o, m = r.inner("offline", default={}), r.inner("metrics", default={})
    made = Slice(
        name=r.word("name", f"slice-{number}"),
        share=r.amount("share", 1.0),
        labels=labels,
        facts={**FACTS, **facts},
        mbit_s=r.amount("mbit_s", 20.0, low=0.001),
        latency_ms=r.amount("latency_ms", 20.0, high=60_000),
        offline=Offline(
            o.rate("share"), o.seconds("for", 0) or 0.0, o.seconds("every", 3600) or 1.0
        ),
        metrics=Metrics(
            latency_ms=m.amount("latency_ms", 20.0, low=0.001),
            spread=m.amount("spread", 0.25, high=5),
            error=m.rate("error", 0.002),
            score=m.amount("score", 0.9, low=-1e9),
            score_spread=m.amount("score_spread", 0.03),
            calls_per_s=m.amount("calls_per_s", 2.0),
        ),
        live_model=r.boolean("live_model", default=True),
    )
    for reader in (o, m, r):
        reader.done()
    return made


def _plain(r: _Reader, key: str) -> list[tuple[str, Any]]:
    found = r.raw(key, {})
    if not isinstance(found, Mapping):
        raise r.fail(key, "a mapping", found)
    for k, v in found.items():
        if not isinstance(k, str) or not isinstance(v, (str, int, float, bool)):
            raise r.fail(key, "names with text, a number or true/false each", found)
    return list(found.items())


def _behaviour(r: _Reader) -> Behaviour:
    made = Behaviour(
        model=r.word("model", "*"),
        version=r.word("version", "*"),
        slice=r.word("slice", "*"),
        selftest_failure=r.rate("selftest_failure"),
        probation_failure=r.rate("probation_failure"),
        silent=r.rate("silent"),
        latency_factor=r.amount("latency_factor", 1.0),
        error_added=r.amount("error_added", 0.0, low=-1, high=1),
        score_added=r.amount("score_added", 0.0, low=-1e9),
        disagreement=r.rate("disagreement"),
        memory_factor=r.amount("memory_factor", 1.0, low=0.001),
    )
    r.done()
    return made


def _measure(r: _Reader) -> Measure:
    made = Measure(
        variant=r.word("variant", "*"),
        slice=r.word("slice", "*"),
        p05_ms=r.amount("p05_ms", 10.0, low=0.000001),
        peak_mb=r.amount("peak_mb", 20.0),
        failed=r.word("failed", ""),
    )
    r.done()
    return made
