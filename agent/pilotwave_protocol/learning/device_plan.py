"""A training plan of the scope `device`: how a device may adapt a version to what it sees itself.

Nothing is sent for such a plan. Devices work out an overlay (`overlay`), and keep it only while it
passes what the plan asks. The model's publisher signs it as any plan; parsing is as strict.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from pilotwave_protocol import names, strictjson
from pilotwave_protocol.fields import Fields, format_time
from pilotwave_protocol.learning.plan import (
    MAX_CLASSES,
    MAX_FEATURES,
    SCHEMA,
    Base,
    TrainingPlan,
    decimal,
    fields_of,
    parse_plan,
    read_base,
)

SCOPE = "device"
LEAST_EXAMPLES = 30
"""Of fewer, a third that is held out shows nothing."""
MAX_EXAMPLES = 10_000


class Kind(str, Enum):
    """What the output of scores holds: shares that sum to one, or scores before a softmax."""

    PROBABILITIES = "probabilities"
    LOGITS = "logits"


@dataclass(frozen=True)
class Scores:
    """The output that an overlay changes."""

    output: str
    kind: Kind


@dataclass(frozen=True)
class DevicePlan:
    """What a device may do for itself.

    `embedding` names the output that the last layer reads, `features` its width; `clip` is the
    longest an embedding counts. `penalty` is that of the fit. An overlay is at most `distance` long
    (Frobenius norm), raises the share of right answers on held-out labels by at least `least_gain`,
    and has the share `golden` of the version's golden cases in the class that they are of. It takes
    `least_examples`, the newest `most_examples` count, and it ends at `deadline`.
    """

    model: str
    plan: str
    base: Base
    embedding: str
    features: int
    classes: int
    scores: Scores
    clip: str
    distance: str
    deadline: datetime
    least_gain: str = "0.02"
    golden: str = "0.95"
    penalty: str = "1"
    least_examples: int = 60
    most_examples: int = 1000

    def to_bytes(self) -> bytes:
        """Write the plan: equal plans give equal bytes."""
        plain: dict[str, Any] = {"schema": SCHEMA, "scope": SCOPE, **vars(self)}
        plain |= {"base": vars(self.base), "deadline": format_time(self.deadline)}
        plain["scores"] = {"output": self.scores.output, "kind": self.scores.kind.value}
        return strictjson.dumps(plain)


def parse_any_plan(raw: bytes) -> TrainingPlan | DevicePlan:
    """Read a plan of either scope, or raise `BadPlan`."""
    return (
        parse_device_plan(raw) if fields_of(raw).raw("scope", None) is not None else parse_plan(raw)
    )


def parse_device_plan(raw: bytes) -> DevicePlan:
    """Read a plan of the scope `device`, or raise `BadPlan` naming the field."""
    f = fields_of(raw)
    for key, expected in (("schema", SCHEMA), ("scope", SCOPE)):
        if f.raw(key) != expected:
            raise f.fail(key, expected, f.raw(key))
    plan = DevicePlan(
        model=f.named("model", names.check_model),
        plan=f.named("plan", names.check_plan),
        base=read_base(f.inner("base")),
        embedding=f.text("embedding", limit=256),
        features=f.integer("features", low=1, high=MAX_FEATURES),
        classes=f.integer("classes", low=2, high=MAX_CLASSES),
        scores=_scores(f.inner("scores")),
        clip=decimal(f, "clip"),
        distance=decimal(f, "distance"),
        deadline=f.time("deadline"),
        least_gain=decimal(f, "least_gain", high="1"),
        golden=decimal(f, "golden", high="1"),
        penalty=decimal(f, "penalty"),
        least_examples=f.integer("least_examples", low=LEAST_EXAMPLES, high=MAX_EXAMPLES),
        most_examples=f.integer("most_examples", low=LEAST_EXAMPLES, high=MAX_EXAMPLES),
    )
    f.done()
    if plan.most_examples < plan.least_examples:
        raise f.fail("most_examples", f"at least {plan.least_examples}", plan.most_examples)
    if plan.scores.output == plan.embedding:
        raise f.fail("scores.output", "another output than the embedding", plan.embedding)
    return plan


def _scores(f: Fields) -> Scores:
    found = Scores(f.text("output", limit=256), f.one_of("kind", Kind))
    f.done()
    return found
