"""Have a confined child fit a head to a model's labelled examples, and say what it found."""

from __future__ import annotations

import base64
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pilotwave_agent import overlays
from pilotwave_agent.effects.trial import terms_of
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.learning.judge import HeadFigures, Pairs
from pilotwave_agent.overlays import JUDGE_NEWEST, Work
from pilotwave_agent.runtimes.adapt import AdaptTask
from pilotwave_agent.selftest import adapt_from
from pilotwave_agent.settings.config import Config
from pilotwave_agent.take_part.gather import newest, write_examples
from pilotwave_protocol.learning.device_plan import DevicePlan
from pilotwave_protocol.learning.statistics import read_numbers
from pilotwave_protocol.manifest import Variant
from pilotwave_protocol.tensortypes import NUMBERS

_NONE = Pairs()


@dataclass(frozen=True)
class Head:
    """What came of it: what later labels say of the overlay in use (`judged`),
    the new head's figures and numbers, or in a `sentence` why there is none."""

    judged: Pairs = _NONE
    figures: HeadFigures | None = None
    numbers: bytes = b""
    sentence: str = ""


def compute_head(
    config: Config, layout: Layout, disk: Disk, model: str, work: Work, variant: Variant
) -> Head:
    """Return what a child found. Raises `RefusedError`, `OSError`."""
    plan, state = work.plan, work.state
    folder, most = layout.examples(model), plan.most_examples
    found = newest(folder, classes=plan.classes, most=most, until=work.newest)
    names = sorted(found)
    fit_from = sum(name <= state.after for name in names)
    if not names or (work.refit and len(names) - fit_from < plan.least_examples):
        return Head(sentence=f"of the examples {len(names) - fit_from} can be read")
    task = AdaptTask(
        plan=plan.to_bytes().decode(),
        last=_last(layout, disk, model, state.overlay),
        later=min(sum(name > state.trained for name in names), JUDGE_NEWEST),
        fit_from=fit_from,
        refit=work.refit,
    )
    with tempfile.TemporaryDirectory(prefix="pw-adapt-") as scratch:
        examples, out = Path(scratch) / "examples.safetensors", Path(scratch) / "out"
        write_examples([found[name] for name in names], examples)
        out.mkdir()
        said = adapt_from(
            layout.version(model, work.version),
            variant,
            examples,
            task.to_text(),
            out,
            *terms_of(config, variant),
        )
        numbers = (out / NUMBERS).read_bytes() if (out / NUMBERS).exists() else b""
    judged = Pairs(**said["judged"])
    if not work.refit:
        return Head(judged)
    return Head(judged, _figures(said["head"], numbers, plan), numbers)


def _last(layout: Layout, disk: Disk, model: str, digest: str) -> str:
    """Return the numbers of the overlay in use, as the child is told them."""
    raw = overlays.content(disk, layout, model, digest)
    return base64.b64encode(raw.partition(b"\n")[2]).decode() if raw else ""


def _figures(said: Mapping[str, Any], numbers: bytes, plan: DevicePlan) -> HeadFigures:
    """Read what the child says of the head; how long it is, is not for the child to say."""
    pairs = {key: Pairs(**said[key]) for key in ("held_out", "beside_last")}
    head = read_numbers(numbers, (plan.features + 1) * plan.classes)
    return replace(HeadFigures(**{**said, **pairs}), distance=math.hypot(*head.tolist()))
