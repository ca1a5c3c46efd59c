"""Rollouts: the list, one with its waves and verdicts, the steps that people take, a new one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Form, Query, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session

from pilotwave_server.dashboard.confirm import sure
from pilotwave_server.dashboard.forms import M, Refused, answer_form, in_transaction, validated
from pilotwave_server.dashboard.gate_pictures import pictures_of
from pilotwave_server.dashboard.pages import ActOperator, Look, PageContext, page_router
from pilotwave_server.dashboard.rolled_back_before import taken_back
from pilotwave_server.dashboard.words import N_
from pilotwave_server.deps import Ctx, Now, ReadSession, WriteSession
from pilotwave_server.errors import NotFound
from pilotwave_server.groups.service import list_groups
from pilotwave_server.operators.roles import Role
from pilotwave_server.paging import Page as Rows
from pilotwave_server.paging import PageRequest, Paging
from pilotwave_server.registry.service import list_models, list_versions
from pilotwave_server.rollouts.operate import routes as api
from pilotwave_server.rollouts.operate import step_routes
from pilotwave_server.rollouts.operate.views import (
    CreatedRollout,
    PreviewRequest,
    PreviewView,
    RollBackStep,
    RolloutName,
    RolloutRequest,
    StepRequest,
)
from pilotwave_server.rollouts.policies.chosen import policy_names
from pilotwave_server.rollouts.states import TRANSITIONS, RolloutState
from pilotwave_server.rollouts.waves import BadSalt, draw_salt, read_salt
from pilotwave_server.tracing import Traced

router = page_router()
ALL = PageRequest(limit=500)
Text = Annotated[str, Form(max_length=600)]
S = RolloutState
# What a person can do about a rollout in each state, in the order of the buttons.
STEPS: dict[RolloutState, tuple[str, ...]] = {
    S.DRAFT: ("start", "abort"),
    S.AWAITING_APPROVAL: ("approve", "abort"),
    S.SCHEDULED: ("start", "abort"),
    S.RUNNING: ("pause", "next", "retry", "rollback", "abort"),
    S.PAUSED: ("resume", "rollback", "abort"),
}
QUESTIONS = {
    "rollback": N_(
        "%(rollout)s brings %(model)s %(version)s to %(group)s. Devices that took it: %(count)s. "
        "They go back to what they had, and the group is not offered this version again."
    ),
    "abort": N_(
        "%(rollout)s brings %(model)s %(version)s to %(group)s. Devices that took it: %(count)s. "
        "They keep it, nobody else gets it, and the rollout cannot be resumed."
    ),
    "next": N_(
        "%(rollout)s brings %(model)s %(version)s to %(group)s. Devices that took it: %(count)s. "
        "The next wave takes %(takes)s, whatever the gates say."
    ),
}
BRINGS = N_("%(group)s gets %(model)s %(version)s in waves.")
OVER = {state for state, after in TRANSITIONS.items() if not after}


@router.get("/rollouts")
def list_rollouts(
    page: Look,
    session: ReadSession,
    paging: Paging,
    state: Annotated[str, Query(max_length=20)] = "",
    model: Annotated[str, Query(max_length=64)] = "",
    group: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """The newest first."""
    chosen = RolloutState(state) if state in set(RolloutState) else None
    found = api.list_rollouts(
        page.actor, session, paging, group=group or None, model=model or None, state=chosen
    )
    return page.render(
        "rollouts.html", rollouts=found, states=list(RolloutState), state=state, model=model,
        group=group, api="/api/v1/rollouts",
    )  # fmt: skip


@router.get("/rollouts/new")
def new(page: Look, session: ReadSession, request: Request) -> Response:
    """The form, filled from the address where it says something."""
    page.need(Role.OPERATOR)
    return _form(page, session, dict(request.query_params))


def _form(
    page: PageContext,
    session: Session,
    given: Mapping[str, str],
    refusal: Refused | None = None,
) -> Response:
    models = [found.row.name for found in list_models(session, page=ALL)[0]]
    model = given.get("model") or (models[0] if models else "")
    versions = (
        [row.version for row in list_versions(session, model=model, page=ALL)[0]]
        if model in models
        else []
    )
    return page.render(
        "rollout_new.html",
        status=refusal.status if refusal else 200,
        given={**given, "model": model, "salt": _salt(given.get("salt", ""))},
        models=models,
        versions=versions,
        groups=[row.name for row in list_groups(session, page=ALL)[0]],
        policies=policy_names(session),
        wrong=refusal.wrong if refusal else {},
    )


def _salt(given: str) -> str:
    """The draw that preview and rollout share: the form's own, so that both take the same."""
    try:
        return str(read_salt(given))
    except BadSalt:
        return str(draw_salt())


def _request(kind: type[M], form: dict[str, str], **more: object) -> M:
    fields = ("group", "model", "version", "policy", "description", "start_at", "salt")
    given = {key: form[key] for key in fields if form.get(key) and key in kind.model_fields}
    return validated(kind, form, **given, **more)


FIELD_OF = {
    "group_unknown": "group",
    "nobody_there": "group",
    "rollout_in_the_way": "group",
    "canary_group_unknown": "policy",
    "policy_unknown": "policy",
    "older_host": "policy",
    "bad_times": "start_at",
    "model_unknown": "model",
}


@router.post("/rollouts/preview")
async def preview(page: ActOperator, context: Ctx, now: Now) -> Response:
    """Who would get it, in which variant, and who has none: a fragment beside the form."""

    def look(form: dict[str, str]) -> PreviewView:
        body = _request(PreviewRequest, form, limit=12)
        with context.db.read() as session:
            return api.preview(page.actor, session, now, context, body)

    def shown(found: PreviewView | None, sentence: str = "") -> Response:
        return page.render("_preview.html", preview=found, sentence=sentence)

    return await answer_form(
        page.request,
        context,
        look,
        done=shown,
        again=lambda _, refusal: shown(None, refusal.wrong.get("", "")),
    )


@router.post("/rollouts/new")
async def create(page: ActOperator, context: Ctx, now: Now, traced: Traced) -> Response:
    """Make it; what was typed stays where something is wrong with it."""

    def make(session: Session, form: dict[str, str]) -> CreatedRollout:
        body = _request(
            RolloutRequest,
            form,
            start=form.get("start") == "yes",
            allow_empty=form.get("allow_empty") == "yes",
        )
        _ask_if_taken_back(page, session, body, form)
        return api.create(page.actor, session, now, context, traced, body)

    return await answer_form(
        page.request,
        context,
        in_transaction(context, make),
        done=lambda made: page.go(
            f"/rollouts/{made.id}", say=" ".join(map(page.said, made.warnings))
        ),
        again=lambda session, refusal: _form(page, session, refusal.given, refusal),
        fields=FIELD_OF,
        otherwise="version",
    )


def _ask_if_taken_back(
    page: PageContext, session: Session, wish: Any, form: dict[str, str]
) -> None:
    """Ask before what brings a version to a group that was rolled back in a rollout before."""
    back = taken_back(page, session, wish.model, wish.version)
    if back:
        named = {"group": wish.group, "model": wish.model, "version": wish.version}
        sure(form, " ".join([page.told(BRINGS, **named), *back]))


def _shown(page: PageContext, name: str, session: Session, now: Now) -> dict[str, Any]:
    found = api.show(name, page.actor, session, now)
    steps = STEPS.get(found.state, ()) if page.may("operator") else ()
    if found.wave + 1 >= found.wave_count:
        steps = tuple(step for step in steps if step != "next")
    if not any(wave.failed for wave in found.waves):
        steps = tuple(step for step in steps if step != "retry")
    return {"rollout": found, "steps": steps, "over": found.state in OVER}


@router.get("/rollouts/{rollout}")
def show(rollout: RolloutName, page: Look, session: ReadSession, now: Now) -> Response:
    """Waves, counts, verdicts, what it waits for, decisions, buttons."""
    devices = api.list_devices(rollout, page.actor, session, PageRequest(limit=25))
    return page.render(
        "rollout.html",
        **_shown(page, rollout, session, now),
        devices=devices,
        outcome="",
        live=True,
        api=f"/api/v1/rollouts/{rollout}",
        pictures=pictures_of(session, rollout, now),
    )


@router.get("/rollouts/{rollout}/live")
def live(rollout: RolloutName, page: Look, session: ReadSession, now: Now) -> Response:
    """The part that moves."""
    return page.render("_rollout_live.html", **_shown(page, rollout, session, now))


@router.get("/rollouts/{rollout}/gates")
def gates(rollout: RolloutName, page: Look, session: ReadSession, now: Now) -> Response:
    """What the gates of the open wave look at, and their evidence, as pictures."""
    found = api.show(rollout, page.actor, session, now)
    pictures = pictures_of(session, rollout, now)
    return page.render("_gate_courses.html", rollout=found, pictures=pictures)


@router.get("/rollouts/{rollout}/devices")
def devices(
    rollout: RolloutName,
    page: Look,
    session: ReadSession,
    paging: Paging,
    outcome: Annotated[str, Query(max_length=20)] = "",
) -> Response:
    """What came of it on each device."""
    found: Rows[Any] = api.list_devices(
        rollout,
        page.actor,
        session,
        paging,
        outcome=outcome or None,  # type: ignore[arg-type]  # an unknown one finds nothing
    )
    values: dict[str, Any] = {"rollout_id": rollout, "devices": found, "outcome": outcome}
    values["live"] = page.is_fragment
    if page.is_fragment:
        return page.render("_rollout_devices.html", **values)
    return page.render("rollout_devices.html", **values, api=f"/api/v1/rollouts/{rollout}/devices")


DOING: dict[str, Any] = {
    "approve": step_routes.approve,
    "start": step_routes.start,
    "pause": step_routes.pause,
    "resume": step_routes.resume,
    "next": step_routes.next_wave,
    "abort": step_routes.abort,
    "rollback": step_routes.roll_back,
    "retry": step_routes.retry,
}
OFFERS = {"approve", "start", "resume"}


def _consequence(page: PageContext, found: Any, step: str) -> str:
    took = sum(wave.healthy + wave.in_flight + wave.failed for wave in found.waves)
    more = found.waves[found.wave + 1 :][:1]
    return page.told(
        QUESTIONS[step],
        rollout=found.id,
        model=found.model,
        version=found.version,
        group=found.group,
        count=took,
        takes=more[0].takes if more else "–",
    )


@router.post("/rollouts/{rollout}/{step}")
def take_step(
    rollout: RolloutName,
    step: str,
    page: ActOperator,
    session: WriteSession,
    now: Now,
    context: Ctx,
    traced: Traced,
    reason: Text = "",
    answer: Annotated[str, Form(alias="sure", max_length=3)] = "",
) -> Response:
    """One of the buttons."""
    if step not in DOING:
        raise NotFound(f"there is no step {step}")
    plain = step in ("rollback", "retry")
    more: dict[str, Any] = {} if plain else {"context": context, "traced": traced}
    told = reason.strip()[:500]
    found, given = api.show(rollout, page.actor, session, now), {"sure": answer, "reason": told}
    if step in OFFERS:
        _ask_if_taken_back(page, session, found, given)
    if step in QUESTIONS:
        sure(given, _consequence(page, found, step), wants_reason=step == "rollback")
    body: Any = RollBackStep(reason=told) if step == "rollback" else StepRequest(reason=told)
    DOING[step](rollout=rollout, operator=page.actor, session=session, now=now, body=body, **more)
    return page.go(f"/rollouts/{rollout}")
