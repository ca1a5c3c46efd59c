"""A device's part in choosing for its class: asked, then answered. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from pilotwave_protocol.figures import VariantFigures
from pilotwave_server.rollouts.choice.decide import Asked, Voice

ANSWER_WITHIN = timedelta(hours=1)
"""After so long without an answer others are asked in a device's place; it may answer still."""


@dataclass(frozen=True)
class Trial:
    """A variant that a device was asked to measure. `found` is None until it did."""

    device: str
    variant: str
    asked_at: datetime
    found: VariantFigures | None


Trials = Mapping[tuple[str, str], tuple[Trial, ...]]
"""By class and manifest (SHA-256), in the order in which the answers came."""
NO_TRIALS: Trials = {}


NO_CLASS = ""
"""The class under which a device's own failures are stored: no voice of any."""
OWN = "@"


def own_key(device: str) -> str:
    """Where `Trials` have a device's own failures, beside the classes: a fleet may have many."""
    return OWN + device


def own_failures(trials: Trials, device: str, class_of: str, sha256: str) -> set[str]:
    """Return the variants of a manifest whose self-test failed on the device, as it was told to run
    them or to compare them."""
    heard = (*trials.get((own_key(device), sha256), ()), *trials.get((class_of, sha256), ()))
    mine = (t for t in heard if t.device == device)
    return {t.variant for t in mine if t.found is not None and t.found.failed is not None}


def voices_of(trials: Iterable[Trial]) -> list[Voice]:
    """Return the voices of devices that have answered, in the order in which they did."""
    found: dict[str, dict[str, VariantFigures]] = defaultdict(dict)
    for trial in trials:
        if trial.found is not None:
            found[trial.device][trial.variant] = trial.found
    return [Voice(device, figures) for device, figures in found.items()]


def asked_of(trials: Iterable[Trial], now: datetime) -> list[Asked]:
    """Return whom to count: those who answered, and those who still have time to."""
    counted = (t for t in trials if t.found is not None or now - t.asked_at < ANSWER_WITHIN)
    return [Asked(t.device, t.variant) for t in counted]
