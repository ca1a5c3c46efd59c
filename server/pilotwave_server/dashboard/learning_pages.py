"""Learning: experiments with training plans, one with its rounds and who took part, its buttons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Form, Query
from fastapi.responses import Response
from sqlalchemy.orm import Session

from pilotwave_server.dashboard.charts import Chart, Series
from pilotwave_server.dashboard.confirm import sure
from pilotwave_server.dashboard.pages import ActOperator, Look, PageContext, page_router
from pilotwave_server.dashboard.words import N_
from pilotwave_server.deps import Ctx, Now, ReadSession
from pilotwave_server.errors import NotFound
from pilotwave_server.learning import routes as api
from pilotwave_server.learning import steer
from pilotwave_server.learning.routes import Experiment
from pilotwave_server.learning.states import OPEN, ExperimentState
from pilotwave_server.learning.views import ExperimentDetail, RoundView
from pilotwave_server.paging import Paging

router = page_router()
S = ExperimentState
# What a person can do about an experiment in each state, in the order of the buttons.
STEPS: dict[ExperimentState, tuple[str, ...]] = {
    S.RUNNING: ("pause", "end", "stop"),
    S.PAUSED: ("resume", "end", "stop"),
}
QUESTIONS = {
    "end": N_(
        "Round %(number)s of experiment %(experiment)s takes no more updates; its result is made "
        "of what came. Devices that took part: %(count)s."
    ),
    "stop": N_(
        "Experiment %(experiment)s ends, and round %(number)s has no result. Devices that took "
        "part: %(count)s. Their updates are deleted."
    ),
}
# ending a round commits by itself, and then works out its result
DOING = {"pause": steer.pause, "resume": steer.resume, "stop": steer.stop, "end": None}
RIGHT, RIGHT_WITH_ALL = N_("with leaving out"), N_("with all devices")


@router.get("/learning")
def list_experiments(
    page: Look,
    session: ReadSession,
    paging: Paging,
    model: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """The newest first."""
    found = api.list_experiments(page.actor, session, paging, model=model or None)
    where = "/api/v1/learning/experiments"
    return page.render("learning.html", experiments=found, model=model, api=where)


def _shown(page: PageContext, experiment: int, session: Session, now: Now) -> dict[str, Any]:
    found = api.show(experiment, page.actor, session, now)
    steps = STEPS.get(found.state, ()) if page.may("operator") else ()
    if found.round is None or found.round.state != OPEN:
        steps = tuple(step for step in steps if step != "end")
    left_out = [
        one for one in api.list_devices(experiment, page.actor, session) if one.gain is not None
    ]
    return {
        "experiment": found,
        "steps": steps,
        "over": found.state not in STEPS,
        "left_out": sorted(left_out, key=lambda one: -(one.gain or 0)),
        "accuracy": _accuracy(page, found.rounds),
    }


def _accuracy(page: PageContext, rounds: Sequence[RoundView]) -> Chart | None:
    """The share of the publisher's own examples that is right, by the end of each round."""
    done = [one for one in reversed(rounds) if one.right is not None and one.ended_at is not None]
    if len(done) < 2:
        return None
    lines = [
        Series(page.told(RIGHT), [_percent(one.right) for one in done], 0),
        Series(page.told(RIGHT_WITH_ALL), [_percent(one.right_with_all) for one in done], 1, True),
    ]
    times = [round(one.ended_at.timestamp()) for one in done if one.ended_at is not None]
    return Chart("accuracy", "lines", times, lines, "%")


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 2)


@router.get("/learning/{experiment}")
def show(experiment: Experiment, page: Look, session: ReadSession, now: Now) -> Response:
    """State, waves, rounds, accuracy, who took no part and why, buttons."""
    return page.render(
        "experiment.html",
        **_shown(page, experiment, session, now),
        api=f"/api/v1/learning/experiments/{experiment}",
    )


@router.get("/learning/{experiment}/live")
def live(experiment: Experiment, page: Look, session: ReadSession, now: Now) -> Response:
    """The part that moves."""
    return page.render("_experiment_live.html", **_shown(page, experiment, session, now))


@router.post("/learning/{experiment}/{step}")
def take_step(
    experiment: Experiment,
    step: str,
    page: ActOperator,
    session: ReadSession,
    now: Now,
    context: Ctx,
    answer: Annotated[str, Form(alias="sure", max_length=3)] = "",
) -> Response:
    """One of the buttons."""
    if step not in DOING:
        raise NotFound(f"there is no step {step}")
    found = api.show(experiment, page.actor, session, now)
    if step in QUESTIONS:
        sure({"sure": answer}, _consequence(page, found, step))
    take = DOING[step]
    if take is None:
        api.end(experiment, page.actor, context, now)
    else:
        with context.db.write() as writing:
            take(writing, experiment, actor=str(page.actor), now=now)
    return page.go(f"/learning/{experiment}")


def _consequence(page: PageContext, found: ExperimentDetail, step: str) -> str:
    number, count = (found.round.number, found.round.devices) if found.round else (0, 0)
    return page.told(QUESTIONS[step], experiment=found.id, number=number, count=count)
