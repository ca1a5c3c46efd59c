"""A policy of an experiment: whom it asks when, and when it gives up.

What it shares with a rollout's policy is read by the same kinds and written the same way; what a
rollout alone can do (gates, shadow waves, canaries, rolling back) is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any

from pydantic import TypeAdapter

from pilotwave_server.rollouts.policies import kinds
from pilotwave_server.rollouts.policies.chosen import PolicyUnknown
from pilotwave_server.rollouts.policies.faults import Told
from pilotwave_server.rollouts.policies.kinds import duration, items, share, whole
from pilotwave_server.rollouts.policies.parse import parse_as
from pilotwave_server.rollouts.policies.policy import (
    NAME,
    SIZES,
    Devices,
    Percent,
    Window,
    size_in,
    waits_for,
    wave_name,
)
from pilotwave_server.rollouts.policies.read_part import PolicyPart, listed, one_of, twice
from pilotwave_server.rollouts.policies.shadow import faults_of_order
from pilotwave_server.rollouts.policies.yaml_text import read_text

TEXTS = {
    "everyone": """\
name: everyone
description: All devices at once.
waves: [{percent: 100%}]
""",
    "careful": """\
name: careful
description: On 1, 10 and 100 percent, stopped when three devices fail at it.
waves:
  - {percent: 1%, advance: {answered: 20%, after: 1d}}
  - {percent: 10%, advance: {answered: 20%, after: 1d}}
  - {percent: 100%}
max_failed: 2
pace: {max_in_flight: 100}
""",
}


@dataclass(frozen=True)
class Advance(PolicyPart):
    """When the next wave opens: once this share of the devices that the open waves take has
    answered in the round, or this long after the last one opened."""

    answered: Annotated[float, share(0.01, 1)] = 0.5
    after_s: Annotated[int, duration(60)] = 86_400


@dataclass(frozen=True)
class LearnWave(PolicyPart):
    """One step. Exactly one of `count` and `percent` (0 to 100) is set."""

    name: Annotated[str, kinds.text(64)]
    count: Devices = None
    percent: Percent = None
    advance: Advance = field(default_factory=Advance)

    @classmethod
    def rules(cls, given: dict[str, Any]) -> Iterator[Told]:
        yield from one_of([key for key in SIZES if key in given], *SIZES)
        given.setdefault("name", wave_name(given))


@dataclass(frozen=True)
class LearnPace(PolicyPart):
    """How many devices may be at it at once: asked, and neither answered nor declined. None: no
    limit."""

    max_in_flight: Devices = None


@dataclass(frozen=True)
class LearnConditions(PolicyPart):
    """What must hold on the device, beside what its owner asks for. None: it does not matter."""

    power: Annotated[str | None, kinds.word("external")] = None
    network: Annotated[str | None, kinds.word("unmetered")] = None
    idle: Annotated[bool | None, kinds.FLAG] = None


@dataclass(frozen=True)
class LearnDeadlines(PolicyPart):
    """`lease_s`: a device that was asked and says nothing for so long counts as silent, and another
    takes its place."""

    lease_s: Annotated[int, duration(60)] = 3600


@dataclass(frozen=True)
class LearnPolicy(PolicyPart):
    """A recipe, complete and consistent. With more than `max_failed` devices that failed at it, the
    experiment fails (None: it goes on)."""

    name: Annotated[str, NAME]
    waves: Annotated[tuple[LearnWave, ...], items(100)] = ()
    description: Annotated[str, kinds.text(512, empty=True)] = ""
    max_failed: Annotated[int | None, whole(0, 1_000_000)] = None
    pace: LearnPace = field(default_factory=LearnPace)
    windows: Annotated[tuple[Window, ...], items(8)] = ()
    conditions: LearnConditions = field(default_factory=LearnConditions)
    deadlines: LearnDeadlines = field(default_factory=LearnDeadlines)

    @classmethod
    def rules(cls, given: dict[str, Any]) -> Iterator[Told]:
        waves = listed(given, "waves")
        if given.get("waves", []) == []:
            yield ("waves",), "expected at least one wave"
        sizes = {key: [size_in(wave, key) for wave in waves] for key in SIZES}
        yield from faults_of_order([False] * len(waves), sizes)
        yield from twice(given, "waves", wave_name)

    @property
    def waits_for(self) -> dict[str, Any]:
        """What a device is told to wait for before it takes part."""
        return waits_for(self.conditions, self.windows)


POLICY = TypeAdapter(LearnPolicy)


def read_policy(*, name: str | None, text: str | None) -> LearnPolicy:
    """Return the policy of that name, or what a text says; `everyone` where neither is given.

    PolicyUnknown, PolicyInvalid.
    """
    if text is not None:
        data, lines = read_text(text)
        return parse_as(POLICY, data, name=name, lines=lines)
    return _builtin(name or "everyone")


@cache
def _builtin(name: str) -> LearnPolicy:
    if name not in TEXTS:
        raise PolicyUnknown(name, known=TEXTS)
    return read_policy(name=None, text=TEXTS[name])


def store_policy(policy: LearnPolicy) -> dict[str, Any]:
    """Return the policy as plain JSON, for `stored_policy`."""
    found: dict[str, Any] = POLICY.dump_python(policy, mode="json")
    return found


def stored_policy(document: Mapping[str, Any]) -> LearnPolicy:
    """Return the policy that `store_policy` stored; no rule is asked again."""
    return POLICY.validate_python(document)
