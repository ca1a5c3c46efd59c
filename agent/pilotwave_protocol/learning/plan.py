"""A training plan: what devices may compute from their labelled examples, and send.

It is its model's publisher who signs a plan, so a server can neither ask for more than it says nor
take the bounds away that it sets. Parsing is strict, as a manifest's is. Numbers that are no whole
ones are decimal texts, as they are in a manifest.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any

from pilotwave_protocol import names, strictjson
from pilotwave_protocol.errors import BadJson, BadName, BadPlan
from pilotwave_protocol.fields import Fields, format_time
from pilotwave_protocol.learning.privacy import OPEN, Privacy, read_privacy

SCHEMA = "pilotwave/plan/1"
MAX_PLAN_BYTES = 16 << 10
MAX_FEATURES = 1536
MAX_CLASSES = 256
MAX_EXAMPLES = 100_000
MAX_DEVICES = 1_000_000
MAX_ROUNDS = 200
MAX_SOURCES = 8
MAX_VALIDATION_ROWS = 10_000
LEAST_EXAMPLES = 20
"""Of fewer, the sum for a class is close to the embedding of a single example."""
LEAST_DEVICES = 3
"""Of two, each could take its own part out of the result and have the other's."""
MAX_VALIDATION_BYTES = 64 << 20


class Method(str, Enum):
    """How the last layer is learnt: in closed form in one round, or by gradient steps in many."""

    RIDGE = "ridge"
    SGD = "sgd"


class Aggregate(str, Enum):
    """How the server makes one result of many updates."""

    SUM = "sum"
    LEAVE_ONE_OUT = "leave_one_out"
    MEAN = "mean"
    CLIPPED_MEAN = "clipped_mean"
    GEOMETRIC_MEDIAN = "geometric_median"
    MULTI_KRUM = "multi_krum"


AGGREGATES = {
    Method.RIDGE: (Aggregate.LEAVE_ONE_OUT, Aggregate.SUM),
    Method.SGD: (
        Aggregate.GEOMETRIC_MEDIAN,
        Aggregate.MULTI_KRUM,
        Aggregate.CLIPPED_MEAN,
        Aggregate.MEAN,
    ),
}
"""Which may go with which method, the default first. What robust means do to sums of examples that
differ from device to device is worse than any attack (docs/learning.md)."""
ADDS_UP = (Aggregate.SUM, Aggregate.MEAN)
"""Results that are the sum of all updates, and nothing else."""


@dataclass(frozen=True)
class Base:
    """The version whose embedding is used: its manifest's digest, and the variant."""

    version: str
    sha256: str
    variant: str


@dataclass(frozen=True)
class Steps:
    """What `sgd` does in a round on a device: passes, examples in a step, step size."""

    epochs: int = 2
    batch: int = 16
    rate: str = "0.1"


@dataclass(frozen=True)
class StartHead:
    """The head that `sgd` begins with: a file among the blobs, [features + 1, classes] as numbers
    travel, and its Euclidean norm, which bounds the heads of later rounds too."""

    sha256: str
    length: str


@dataclass(frozen=True)
class Noise:
    """What is promised of all that one device sends: (epsilon, delta)-differential privacy of the
    sum over `least_devices` devices (`noise.py`)."""

    epsilon: str
    delta: str


@dataclass(frozen=True)
class Validation:
    """Embeddings and classes of the publisher's own examples: a file among the blobs."""

    sha256: str
    size: int
    rows: int


@dataclass(frozen=True)
class TrainingPlan:
    """What one plan asks of each device, and what is done with the answers.

    `embedding` names the output of the model that the last layer reads, `features` its width.
    `clip` is the longest an example's embedding (`ridge`) or a whole update (`sgd`) counts, as a
    Euclidean norm; `penalty` is the ridge penalty. A device counts with `least_examples` to
    `most_examples`, the result needs `least_devices`. `deadline` ends each round that is open.
    Where `label_sources` names any, examples count whose labels come from one of them.
    """

    model: str
    plan: str
    base: Base
    embedding: str
    features: int
    classes: int
    method: Method
    aggregate: Aggregate
    clip: str
    deadline: datetime
    penalty: str = "1"
    least_examples: int = LEAST_EXAMPLES
    most_examples: int = 200
    least_devices: int = 10
    rounds: int = 1
    steps: Steps | None = None
    head: StartHead | None = None
    noise: Noise | None = None
    validation: Validation | None = None
    label_sources: tuple[str, ...] = ()
    privacy: Privacy = OPEN

    def to_bytes(self) -> bytes:
        """Write the plan: equal plans give equal bytes."""
        return strictjson.dumps(_plain(self))

    @property
    def update_bytes(self) -> int:
        """How many bytes the arrays of one update have, as four-byte numbers."""
        d = self.features + 1
        return self.head_bytes + (2 * d * (d + 1) if self.method is Method.RIDGE else 0)

    @property
    def head_bytes(self) -> int:
        """How many bytes a head has, as four-byte numbers."""
        return 4 * (self.features + 1) * self.classes


def parse_plan(raw: bytes) -> TrainingPlan:
    """Read a plan, or raise `BadPlan` naming the field and what was expected."""
    f = fields_of(raw)
    if f.raw("schema") != SCHEMA:
        raise f.fail("schema", SCHEMA, f.raw("schema"))
    method = f.one_of("method", Method)
    plan = TrainingPlan(
        model=f.named("model", names.check_model),
        plan=f.named("plan", names.check_plan),
        base=read_base(f.inner("base")),
        embedding=f.text("embedding", limit=256),
        features=f.integer("features", low=1, high=MAX_FEATURES),
        classes=f.integer("classes", low=2, high=MAX_CLASSES),
        method=method,
        aggregate=f.one_of("aggregate", Aggregate),
        clip=decimal(f, "clip"),
        deadline=f.time("deadline"),
        penalty=decimal(f, "penalty"),
        least_examples=f.integer("least_examples", low=LEAST_EXAMPLES, high=MAX_EXAMPLES),
        most_examples=f.integer("most_examples", low=LEAST_EXAMPLES, high=MAX_EXAMPLES),
        least_devices=f.integer("least_devices", low=LEAST_DEVICES, high=MAX_DEVICES),
        rounds=f.integer("rounds", low=1, high=1 if method is Method.RIDGE else MAX_ROUNDS),
        steps=_steps(f.opt_inner("steps")),
        head=_head(f.opt_inner("head")),
        noise=_noise(f.opt_inner("noise")),
        validation=_validation(f.opt_inner("validation")),
        label_sources=_sources(f),
        privacy=read_privacy(f.opt_inner("privacy")),
    )
    f.done()
    _check_together(plan, f)
    return plan


def fields_of(raw: bytes) -> Fields:
    """Open a plan of any scope, or raise `BadPlan`."""
    try:
        return Fields(strictjson.loads(raw, max_bytes=MAX_PLAN_BYTES, max_depth=4), "", BadPlan)
    except BadJson as e:
        raise BadPlan(f"plan: {e}") from e


def _check_together(plan: TrainingPlan, f: Fields) -> None:
    allowed = AGGREGATES[plan.method]
    if plan.aggregate not in allowed:
        words = " or ".join(allowed)
        raise f.fail("aggregate", f"{words} with {plan.method.value}", plan.aggregate.value)
    if plan.most_examples < plan.least_examples:
        raise f.fail("most_examples", f"at least {plan.least_examples}", plan.most_examples)
    for key, value in (("steps", plan.steps), ("head", plan.head)):
        if (value is not None) is not (plan.method is Method.SGD):
            raise f.fail(key, "it with sgd, and with nothing else", plan.method.value)
    if plan.noise is not None and plan.aggregate not in ADDS_UP:
        words = " or ".join(ADDS_UP)
        raise f.fail("aggregate", f"{words} with noise, which promises nothing of other rules",
                     plan.aggregate.value)  # fmt: skip
    if plan.privacy.masked and (plan.method is not Method.RIDGE or plan.noise is not None):
        words = "open with sgd or noise: sums of groups are checked as those of ridge alone"
        raise f.fail("privacy.mode", words, plan.privacy.mode.value)
    if plan.validation is None and plan.aggregate is Aggregate.LEAVE_ONE_OUT:
        raise f.fail("validation", "it with leave_one_out", plan.validation)
    if plan.validation is not None:
        size = 4 * plan.validation.rows * (plan.features + 1)
        if plan.validation.size != size:
            raise f.fail("validation.size", f"{size}, for so many rows", plan.validation.size)


def read_base(f: Fields) -> Base:
    """Read which version a plan is based on."""
    base = Base(
        f.named("version", names.check_version),
        f.named("sha256", names.check_sha256),
        f.named("variant", names.check_variant),
    )
    f.done()
    return base


def _steps(f: Fields | None) -> Steps | None:
    if f is None:
        return None
    steps = Steps(
        f.integer("epochs", low=1, high=100),
        f.integer("batch", low=1, high=4096),
        decimal(f, "rate"),
    )
    f.done()
    return steps


def _head(f: Fields | None) -> StartHead | None:
    if f is None:
        return None
    head = StartHead(f.named("sha256", names.check_sha256), decimal(f, "length"))
    f.done()
    return head


def _noise(f: Fields | None) -> Noise | None:
    if f is None:
        return None
    noise = Noise(
        decimal(f, "epsilon", low="0.01", high="100"),
        decimal(f, "delta", low="1e-12", high="0.1"),
    )
    f.done()
    return noise


def _validation(f: Fields | None) -> Validation | None:
    if f is None:
        return None
    found = Validation(
        f.named("sha256", names.check_sha256),
        f.integer("size", low=1, high=MAX_VALIDATION_BYTES),
        f.integer("rows", low=1, high=MAX_VALIDATION_ROWS),
    )
    f.done()
    return found


def _sources(f: Fields) -> tuple[str, ...]:
    found = tuple(f.texts("label_sources", limit=MAX_SOURCES, default=[]))
    try:
        for name in found:
            names.check_label_source(name)
    except BadName as e:
        raise f.fail("label_sources", f"names; {e}", list(found)) from e
    if found != tuple(sorted(set(found))):
        raise f.fail("label_sources", "each name once, in order", list(found))
    return found


def decimal(f: Fields, key: str, *, low: str = "1e-9", high: str = "1e9") -> str:
    """Read a number within bounds, as decimal text."""
    text = f.text(key, limit=32)
    try:
        number = Decimal(text)
    except InvalidOperation as e:
        raise f.fail(key, "a decimal number as text, like 0.5", text) from e
    if not (number.is_finite() and Decimal(low) <= number <= Decimal(high)):
        raise f.fail(key, f"a number from {low} to {high}, as text", text)
    return text


def _plain(plan: TrainingPlan) -> dict[str, Any]:
    plain = {"schema": SCHEMA, **vars(plan), "base": vars(plan.base)}
    plain |= {"method": plan.method.value, "aggregate": plan.aggregate.value}
    plain["deadline"] = format_time(plan.deadline)
    for key in ("steps", "head", "noise", "validation"):
        value = getattr(plan, key)
        plain[key] = None if value is None else vars(value)
    # left out where it is open, so that older devices take part too
    privacy = plain.pop("privacy")
    if plan.privacy.masked:
        plain["privacy"] = {"mode": privacy.mode.value, "group": privacy.group}
    return plain
