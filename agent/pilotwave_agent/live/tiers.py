"""`Tiered`: a small model on the device, and a bigger one for what it is unsure of.

    from pilotwave_agent.live.tiers import Tiered

    model = Tiered("detector", data="/var/lib/pilotwave")
    answer = model.predict(image)      # answer.tier and answer.version say whose it is

`LiveModel` opens no network connection; this does, where two agree: the version's signed
`escalate.json`, and `[escalate]` of the device's own settings. Whatever goes wrong on the way, the
small model's answer is the answer.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Mapping
from typing import Any, NamedTuple

from pilotwave_agent.live.asking import Asking, NoAnswer
from pilotwave_agent.live.escalator import Escalator, Way
from pilotwave_agent.live.generation import Answer, Version
from pilotwave_agent.live.model import LiveModel
from pilotwave_agent.live.tier_rules import FILE, TierRules, parse_tier_rules
from pilotwave_agent.live.told import Told
from pilotwave_agent.net.inference import Inferred, Question
from pilotwave_protocol.errors import PilotwaveError
from pilotwave_protocol.escalate import (
    ESCALATE,
    MAX_ESCALATE_BYTES,
    Escalation,
    Target,
    confidence,
    encoded,
    parse_escalate,
)

DEVICE = "device"
ESCALATED, ESCALATE_MS, ESCALATE_FAILED = "escalated", "escalate_ms", "escalate_failed"
OVERRULED, OVERRULED_SURE = "overruled", "overruled_sure"


class TieredAnswer(dict[str, Any]):
    """The outputs of one call by name: those of the model in `version`, at `tier`. `device` is the
    small model's own answer."""

    __slots__ = ("device", "model", "tier", "version")

    def __init__(
        self, outputs: Mapping[str, Any], tier: str, model: str, version: str, device: Answer
    ) -> None:
        super().__init__(outputs)
        self.tier, self.model, self.version, self.device = tier, model, version, device


class _Plan:
    """What one version's file and the owner's rules come to: who is asked, and when."""

    def __init__(self, said: Escalation, target: Target, asking: Asking) -> None:
        self.said, self.target, self.asking = said, target, asking
        self.escalator = Escalator(said)

    def question(self, feeds: Mapping[str, Any], outputs: Mapping[str, Any]) -> Question:
        """Return the question, a copy of the inputs in it. Raises `ValueError`."""
        import numpy as np

        inputs = {n: encoded(np.array(a), self.said.encode) for n, a in feeds.items()}
        arrays = {n: np.asarray(a) for n, a in outputs.items()}
        wanted = {n: a for n, a in arrays.items() if a.dtype.kind in "biuf"}
        return Question(self.target.model, self.target.version, inputs, wanted)

    def sure(self, outputs: Mapping[str, Any]) -> float | None:
        """Return how sure the small model is; None where its answer does not tell. Raises
        `ValueError` for answers to several inputs."""
        import numpy as np

        scores = np.asarray(outputs.get(self.said.output))
        if scores.dtype.kind not in "iuf":
            return None  # there is no such output, or it scores nothing
        if scores.ndim == 0 or scores.size != scores.shape[-1]:
            shape = list(scores.shape)
            raise ValueError(f"expected one input a call; {self.said.output} has the shape {shape}")
        return confidence(scores.ravel().tolist(), self.said.rule, softmax=self.said.softmax)

    def overruled(self, small: Mapping[str, Any], big: Mapping[str, Any]) -> float:
        """Return 1.0 where the two models' classes differ."""
        import numpy as np

        classes = {int(np.asarray(a[self.said.output]).ravel().argmax()) for a in (small, big)}
        return float(len(classes) > 1)


class _Agreed(NamedTuple):
    """The plan of a version's folder under some rules in a process."""

    of: tuple[str, TierRules | None, int]
    plan: _Plan | None


class Tiered:
    """One model on this device with a bigger one behind it. It takes what `LiveModel` takes; that
    one is `small`. One input a call; from any thread."""

    def __init__(self, model: str, **options: Any) -> None:
        self.small = LiveModel(model, **options)
        self.trouble = ""
        """Why the last hard input got the small model's answer, or why none is escalated."""
        self._rules = Told(self.small.data / "live" / FILE, parse_tier_rules)
        self._lock = threading.Lock()
        self._agreed: _Agreed | None = None
        _all.add(self)

    def predict(self, x: Any) -> TieredAnswer:
        """Return the answer for one input: an array, or arrays by name.

        What the small model's runtime raises comes through; nothing of the network does.
        """
        feeds = x if isinstance(x, Mapping) else {self._only_input(): x}
        answered = self.small.run(feeds)
        small = answered.base  # who is asked was worked out for the version's own answers
        plan = self._current(small.version)
        sure = plan.sure(small) if plan is not None else None
        if plan is None or sure is None:
            return _own(answered)
        way = plan.escalator.decide(sure)
        if way in (Way.STAY, Way.SAMPLE):
            self._count(small, ESCALATED, 0.0)
            if way is Way.SAMPLE:
                self._sample(plan, feeds, small)
            return _own(answered)
        try:
            found = self._escalate(plan, feeds, small, way)
        except NoAnswer as e:
            self.trouble = str(e)
            self._count(small, ESCALATE_FAILED, 1.0)
            return _own(answered)
        self._count(small, ESCALATE_FAILED, 0.0)
        overruled = plan.overruled(small, found.outputs)
        self._count(small, OVERRULED, overruled)
        if overruled:
            both = {**small, **{f"bigger.{name}": a for name, a in found.outputs.items()}}
            self.small._capture.overruled(small.version, feeds, both)
        target = plan.target
        version = found.version or target.version or ""
        return TieredAnswer(found.outputs, target.tier, target.model, version, small)

    def _escalate(self, plan: _Plan, feeds: Mapping[str, Any], small: Answer, way: Way) -> Inferred:
        """Ask the bigger model, within the budget. Raises `NoAnswer`."""
        sent = False
        try:
            if way is Way.SPENT:
                raise NoAnswer(f"the share of {plan.said.budget.share} is spent")
            question = self._paid(plan, feeds, small)
            begun = time.perf_counter()
            future = plan.asking.begin(question)
            sent = True
            found = plan.asking.wait_for(future)
            self._count(small, ESCALATE_MS, (time.perf_counter() - begun) * 1000)
            return found
        finally:
            self._count(small, ESCALATED, float(sent))

    def _paid(self, plan: _Plan, feeds: Mapping[str, Any], small: Answer) -> Question:
        """Return the question, its bytes counted. Raises `NoAnswer`."""
        plan.asking.check_open()  # what is not sent costs nothing
        try:
            question = plan.question(feeds, small)
        except (ValueError, TypeError) as e:
            raise NoAnswer(f"the input cannot be sent: {e}") from e
        if not plan.escalator.pay(question.size):
            raise NoAnswer(f"the {plan.said.budget.bytes_per_day} bytes of today are spent")
        return question

    def _sample(self, plan: _Plan, feeds: Mapping[str, Any], small: Answer) -> None:
        """Send a confident input too; nobody waits for the answer, which is only counted."""

        def then(found: Inferred) -> None:
            self._count(small, OVERRULED_SURE, plan.overruled(small, found.outputs))

        with contextlib.suppress(NoAnswer):
            plan.asking.ask_later(self._paid(plan, feeds, small), then)

    def _count(self, answer: Answer, metric: str, value: float) -> None:
        with contextlib.suppress(ValueError):  # the application has used up the metrics' names
            self.small.score(value, answer, metric=metric)

    def _only_input(self) -> str:
        inputs = self.small.inputs
        if len(inputs) != 1:
            names = ", ".join(t.name for t in inputs)
            raise ValueError(f"{self.small.model} takes {names}: give arrays by these names")
        return str(inputs[0].name)

    def _current(self, version: Version) -> _Plan | None:
        """Return the plan for a version under the rules of now; after a fork, another one, as its
        threads are gone."""
        wanted = version.name, self._rules.current(), os.getpid()
        agreed = self._agreed
        if agreed is None or agreed.of != wanted:
            with self._lock:
                before, agreed = self._agreed, self._agreed
                if agreed is None or agreed.of != wanted:
                    agreed = self._agreed = _Agreed(wanted, self._agree(version, wanted[1]))
            if before is not agreed:
                _end(before, wait=False)
        return agreed.plan

    def _agree(self, version: Version, rules: TierRules | None) -> _Plan | None:
        """Return what the version's publisher and the device's owner agree on; None for nothing."""
        try:
            said = parse_escalate(_read(version))
        except FileNotFoundError:
            self.trouble = f"{version} has no {ESCALATE}"
            return None
        except (PilotwaveError, OSError) as e:
            self.trouble = f"{version} escalates nothing: {e}"
            return None
        for target in said.to:
            place = rules.place(target.tier) if rules else None
            if place is not None:
                return _Plan(said, target, Asking(place, said.timeout_ms / 1000))
        self.trouble = (
            f"[escalate] of agent.toml allows none of {', '.join(t.tier for t in said.to)}"
        )
        return None

    def close(self) -> None:
        """End it: calls in flight finish."""
        with self._lock:
            before, self._agreed = self._agreed, None
        _end(before, wait=True)
        self.small.close()

    def __enter__(self) -> Tiered:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


_all: weakref.WeakSet[Tiered] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for model in list(_all):
        model._lock = threading.Lock()  # whoever held it is not here


os.register_at_fork(after_in_child=_after_fork_in_child)


def _end(agreed: _Agreed | None, *, wait: bool) -> None:
    """End a plan's threads, if they are this process's."""
    if agreed is not None and agreed.plan is not None and agreed.of[2] == os.getpid():
        agreed.plan.asking.close(wait=wait)


def _own(small: Answer) -> TieredAnswer:
    version = small.version
    return TieredAnswer(small, DEVICE, version.model, version.version, small)


def _read(version: Version) -> bytes:
    with (version.path / ESCALATE).open("rb") as file:
        return file.read(MAX_ESCALATE_BYTES + 1)
