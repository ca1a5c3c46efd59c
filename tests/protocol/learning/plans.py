"""Training plans to change in tests."""

from __future__ import annotations

from datetime import datetime, timezone

from pilotwave_protocol.learning.device_plan import DevicePlan, Kind, Scores
from pilotwave_protocol.learning.plan import (
    Aggregate,
    Base,
    Method,
    StartHead,
    Steps,
    TrainingPlan,
    Validation,
)
from tests.protocol.learning.field import CLASSES, FEATURES

RIDGE = TrainingPlan(
    model="detector",
    plan="autumn-1",
    base=Base("1.0.0", "a" * 64, "onnx-fp32"),
    embedding="active",
    features=6,
    classes=3,
    method=Method.RIDGE,
    aggregate=Aggregate.LEAVE_ONE_OUT,
    clip="4",
    most_examples=1000,
    deadline=datetime(2027, 1, 31, 9, 30, tzinfo=timezone.utc),
    validation=Validation("b" * 64, 50 * 7 * 4, 50),
)
SGD = TrainingPlan(
    **{
        **vars(RIDGE),
        "method": Method.SGD,
        "aggregate": Aggregate.GEOMETRIC_MEDIAN,
        "rounds": 30,
        "steps": Steps(),
        "head": StartHead("d" * 64, "3.5"),
        "validation": None,
    }
)
DEVICE = DevicePlan(
    model="detector",
    plan="here-1",
    base=Base("1.0.0", "a" * 64, "onnx-fp32"),
    embedding="active",
    features=FEATURES,
    classes=CLASSES,
    scores=Scores("probs", Kind.PROBABILITIES),
    clip="20",
    distance="6",
    golden="0.8",
    deadline=datetime(2027, 1, 31, 9, 30, tzinfo=timezone.utc),
)
