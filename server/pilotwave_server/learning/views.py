"""Experiments as the API shows and takes them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import Field
from sqlalchemy.orm import Session

from pilotwave_server.fields import ApiReply, ApiRequest
from pilotwave_server.learning.absent import absent_of
from pilotwave_server.learning.asked import ASKED, DECLINED, FAILED, counts
from pilotwave_server.learning.experiments import plan_of
from pilotwave_server.learning.rounds import best_round, newest_rounds, rounds_of
from pilotwave_server.learning.states import ExperimentState
from pilotwave_server.learning.tables import ExperimentRow, RoundRow
from pilotwave_server.learning.what_it_protects import what_it_protects
from pilotwave_server.rollouts.policies.views import PolicyName, PolicyText

NAME = "^[a-z0-9._-]+$"


class ExperimentRequest(ApiRequest):
    model: str = Field(max_length=64, pattern=NAME)
    plan: str = Field(max_length=64, pattern=NAME)
    group: str = Field(max_length=64, pattern=NAME)
    policy: PolicyName | None = Field(
        default=None, description="`everyone`, as without it, or `careful`."
    )
    policy_text: PolicyText = None


class RoundView(ApiReply):
    number: int = Field(description="From 1.")
    state: str = Field(description="`open`, `closing`, `done` or `failed`.")
    opened_at: datetime
    ends_at: datetime
    ended_at: datetime | None
    devices: int = Field(description="How many devices sent an update.")
    waiting: int = Field(description="How many were asked and have said nothing yet.")
    declined: int = Field(description="How many said that they take no part.")
    failed: int = Field(description="How many failed at it.")
    examples: int = Field(description="Of how many examples in all.")
    left_out: int | None = Field(description="How many were left out of the result.")
    right: float | None = Field(
        description="The share of the publisher's own examples that the result gets right."
    )
    right_with_all: float | None = Field(description="The same with no device left out.")


class ExperimentView(ApiReply):
    id: int
    model: str
    plan: str
    plan_sha256: str
    group: str
    state: ExperimentState
    detail: str | None = Field(description="Why it is in this state.")
    opened_at: datetime
    opened_by: str
    ended_at: datetime | None
    ended_by: str | None
    least_devices: int = Field(description="How many devices the plan asks for in a round.")
    least_examples: int = Field(description="How many examples it asks of a device.")
    masked: bool = Field(description="Whether this server sees sums over groups alone.")
    protects: str = Field(description="Who sees which numbers, in a sentence.")
    plan_rounds: int = Field(description="How many rounds the plan has.")
    method: str = Field(description="`ridge`, in one round, or `sgd`.")
    aggregate: str = Field(description="How one result is made of many updates.")
    base: str = Field(description="The version that the plan is based on.")
    variant: str
    embedding: str = Field(description="The output that the last layer reads.")
    features: int
    classes: int
    policy: dict[str, Any] = Field(description="With its defaults, in seconds and shares.")
    wave: int = Field(description="The wave that is open, from 0.")
    wave_devices: int = Field(description="How many devices the open waves take.")
    wave_opened_at: datetime
    round: RoundView | None = Field(description="The newest round.")


class AbsentView(ApiReply):
    kind: str = Field(description="`never_asked`, `waiting`, `silent`, `declined` or `failed`.")
    devices: int
    reason: str | None
    examples: int | None = Field(
        description="With `too_few_examples`: so many or more are there, in steps."
    )


class ExperimentDetail(ExperimentView):
    rounds: list[RoundView] = Field(description="The newest first.")
    result: int | None = Field(description="The number of the round whose result is the best.")
    absent: list[AbsentView] = Field(description="Who takes no part in the newest round, and why.")


class UpdateView(ApiReply):
    device: str
    examples: int
    received_at: datetime
    gain: float | None = Field(description="By how much the result is better without it.")


def round_views(session: Session, rows: Sequence[RoundRow]) -> list[RoundView]:
    """Rounds with how many devices were asked, and what came of it."""
    asked = counts(session, rows)
    found = []
    for row in rows:
        states, figures = asked.get(row.id, {}), row.figures or {}
        told = {key: getattr(row, key, figures.get(key)) for key in RoundView.model_fields}
        told |= {key: states.get(key, 0) for key in (DECLINED, FAILED)}
        told["waiting"] = states.get(ASKED, 0)
        found.append(RoundView.model_validate(told))
    return found


def summaries(session: Session, rows: Sequence[ExperimentRow]) -> list[ExperimentView]:
    """One line of a list for each."""
    newest = newest_rounds(session, rows)
    shown = round_views(session, list(newest.values()))
    by_experiment = dict(zip(newest, shown, strict=True))
    return [_view(session, row, by_experiment.get(row.id)) for row in rows]


def _view(session: Session, row: ExperimentRow, newest: RoundView | None) -> ExperimentView:
    plan = plan_of(session, row)
    shown = ("least_devices", "least_examples", "embedding", "features", "classes")
    told = {key: getattr(row, key, None) for key in ExperimentView.model_fields}
    told |= {key: getattr(plan, key) for key in shown}
    told |= {"method": plan.method.value, "aggregate": plan.aggregate.value}
    told |= {"base": plan.base.version, "variant": plan.base.variant, "plan_rounds": plan.rounds}
    told |= {"masked": plan.privacy.masked, "protects": what_it_protects(plan)}
    told["round"] = newest
    return ExperimentView.model_validate(told)


def detail(session: Session, row: ExperimentRow, *, now: datetime) -> ExperimentDetail:
    """All that there is to say."""
    found = rounds_of(session, row)
    rounds = round_views(session, found)
    shown = _view(session, row, rounds[0] if rounds else None)
    best = best_round(session, row)
    absent = absent_of(session, row, found[0], now=now) if found else []
    return ExperimentDetail(
        **shown.model_dump(),
        rounds=rounds,
        result=None if best is None else best.number,
        absent=[AbsentView(**vars(one)) for one in absent],
    )
