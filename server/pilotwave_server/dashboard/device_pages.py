"""Devices: the list by selector, one with what it runs and why, and what people do about it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, cast, get_args

from fastapi import Form, Query
from fastapi.responses import Response
from pydantic import ValidationError
from sqlalchemy.orm import Session

from pilotwave_server.blobs.port import BlobStore
from pilotwave_server.context import Context
from pilotwave_server.dashboard.charts import Chart, of_courses
from pilotwave_server.dashboard.confirm import sure
from pilotwave_server.dashboard.device_filter import STANDINGS, STATES, PageFilter
from pilotwave_server.dashboard.forms import Refused, answer_form, in_transaction, validated
from pilotwave_server.dashboard.pages import ActOperator, Look, PageContext, page_router
from pilotwave_server.dashboard.rendering import with_query
from pilotwave_server.dashboard.words import N_
from pilotwave_server.deps import Ctx, Now, ReadSession, WriteSession
from pilotwave_server.devices.errors import DeviceUnknown
from pilotwave_server.devices.service import count_devices
from pilotwave_server.devices.shown import Shown, look
from pilotwave_server.devices.silence import silence
from pilotwave_server.devices.views import DeviceSort, LabelsRequest
from pilotwave_server.errors import NotFound, ServerError
from pilotwave_server.fields import DeviceName, ModelName
from pilotwave_server.groups.service import list_groups
from pilotwave_server.inventory import routes as api
from pilotwave_server.inventory.finding import matching
from pilotwave_server.paging import PageRequest, Paging
from pilotwave_server.registry.references import reference_of
from pilotwave_server.registry.service import list_models, list_versions
from pilotwave_server.rollouts.assignments import routes as running
from pilotwave_server.rollouts.assignments.views import PinRequest, RollBackRequest
from pilotwave_server.telemetry import routes as telemetry

router = page_router()
# with these a device that has a long past stays within a page's weight (bench/pages.py)
LOG_PAGE, HISTORY_PAGE = PageRequest(limit=12), PageRequest(limit=10)
SAY_WHY = N_("Give a reason: it goes into the audit log and to the device.")
WHICH = N_("Choose the version to pin it to.")
TURNED_DOWN = N_("%(device)s was rejected.")
WENT_BACK = N_(
    "%(device)s rolls back to %(model)s %(version)s at its next poll and is pinned there."
)
PINNED = N_("%(device)s is pinned to %(model)s %(version)s.")
UNPINNED = N_("%(device)s follows its groups again.")
RETRIED = N_("%(device)s retries at its next poll.")
QUESTIONS = {
    "revoke": N_(
        "1 device: the key of %(device)s is revoked permanently; it needs a new key and an "
        "enrolment code to return."
    ),
    "decommission": N_(
        "1 device: %(device)s is taken out of service; it needs an enrolment code to return."
    ),
    "reject": N_("1 device: %(device)s is removed; it may ask to join again."),
}
ALL = PageRequest(limit=500)


@router.get("/devices")
def list_devices(
    page: Look,
    session: ReadSession,
    context: Ctx,
    paging: Paging,
    now: Now,
    wanted: PageFilter,
    sort: Annotated[str, Query(max_length=20)] = "name",
) -> Response:
    """Those that a filter takes, sorted. A filter with a fault keeps what was typed."""
    chosen = cast(DeviceSort, sort if sort in get_args(DeviceSort) else "name")
    given = {**wanted.typed, "sort": chosen}
    wrong, status, found, seen = wanted.wrong, 422 if wanted.wrong else 200, None, Shown(0)
    try:
        if not wrong:
            found = api.list_devices(
                page.actor, session, context, paging, now, wanted.filter, chosen
            )
            rules = matching(session, wanted.filter, silence(context.settings, now))
            acts = page.may("operator")
            seen = look(session, rules) if acts else Shown(count_devices(session, rules))
    except ServerError as error:
        wrong, status = error.detail, error.status
    return page.render(
        "devices.html",
        status=status,
        devices=found,
        total=seen.devices,
        seen=seen,
        given=given,
        states=(*STANDINGS, *STATES),
        groups=[row.name for row in list_groups(session, page=ALL)[0]],
        models=[found.row.name for found in list_models(session, page=ALL)[0]],
        sort=chosen,
        now=now,
        wrong=wrong,
        api=with_query("/api/v1/devices", **wanted.query, sort=chosen),
        csv=with_query("/api/v1/devices.csv", **wanted.query),
    )


@router.get("/devices/{device}")
def show(device: DeviceName, page: Look, session: ReadSession, context: Ctx, now: Now) -> Response:
    """What it runs and why, what it said, what is known of it."""
    return _show(page, session, context, device, now)


def _show(
    page: PageContext,
    session: Session,
    context: Context,
    device: str,
    now: datetime,
    refusal: Refused | None = None,
) -> Response:
    found = api.get_device(device, page.actor, session, context)
    models = sorted({m.model for m in found.models} | {p.model for p in found.pins})
    whys = [running.explain(device, page.actor, session, context, model=model) for model in models]
    return page.render(
        "device.html",
        status=refusal.status if refusal else 200,
        device=found,
        whys=whys,
        pins={pin.model: pin for pin in found.pins},
        versions={m: _versions(session, m) for m in models},
        history=running.list_history(device, page.actor, session, HISTORY_PAGE),
        now=now,
        charts=_charts(device, page, session, context),
        also=[f"/api/v1/devices/{device}/metrics"],
        events=api.list_events(device, page.actor, session, LOG_PAGE),
        given=refusal.given if refusal else {},
        wrong=refusal.wrong if refusal else {},
        api=f"/api/v1/devices/{device}",
    )


def _charts(
    device: str, page: PageContext, session: Session, context: Context
) -> dict[str, list[Chart]]:
    courses = telemetry.device_metrics(device, page.actor, session).metrics
    bounds = _bounds(device, page, session, context) if courses else {}
    return of_courses(courses, bounds)


def _bounds(
    device: str, page: PageContext, session: Session, context: Context
) -> dict[tuple[str, str], float]:
    """What the references of the versions that it runs say of each metric."""
    found: dict[tuple[str, str], float] = {}
    for one in api.get_device(device, page.actor, session, context).models:
        if one.current_sha256 and one.current_variant:
            reference = reference_of(
                session,
                context.get(BlobStore),
                sha256=one.current_sha256,
                variant=one.current_variant,
            )
            bounds = reference.bounds if reference else {}
            found |= {(one.model, metric): bound for metric, bound in bounds.items()}
    return found


@router.get("/devices/{device}/health")
def health(device: DeviceName, page: Look, session: ReadSession, context: Ctx) -> Response:
    """The charts of a device's page."""
    return page.render("_device_health.html", charts=_charts(device, page, session, context))


def _versions(session: ReadSession, model: str) -> list[str]:
    try:
        return [
            row.version for row in list_versions(session, model=model, page=PageRequest(100))[0]
        ]
    except ServerError:
        return []


@router.get("/devices/{device}/log")
def log(device: DeviceName, page: Look, session: ReadSession) -> Response:
    """The part of a device's page that moves: what it said happened."""
    found = api.list_events(device, page.actor, session, LOG_PAGE)
    return page.render("_device_log.html", name=device, events=found)


DOING: dict[str, Any] = {
    "accept": api.accept,
    "revoke": api.revoke,
    "settle": api.settle,
    "decommission": api.decommission,
}


@router.post("/devices/{device}/do/{action}")
def act(
    device: DeviceName,
    action: str,
    page: ActOperator,
    session: WriteSession,
    now: Now,
    context: Ctx,
    answer: Annotated[str, Form(alias="sure", max_length=3)] = "",
) -> Response:
    """Accept, reject, revoke, settle, decommission."""
    if action in QUESTIONS:
        sure({"sure": answer}, page.told(QUESTIONS[action], device=device))
    if action == "reject":
        api.reject(device, page.actor, session, now)
        return page.go("/devices?state=pending", say=page.told(TURNED_DOWN, device=device))
    simple = DOING.get(action)
    if simple is None:
        raise NotFound(f"unknown action {action}")
    simple(device, page.actor, session, now, context)
    return page.go(f"/devices/{device}")


@router.post("/devices/{device}/labels")
async def set_labels(device: DeviceName, page: ActOperator, context: Ctx, now: Now) -> Response:
    """All labels, one `key=value` a line."""

    def change(session: Session, form: dict[str, str]) -> str:
        lines = [line.strip() for line in form.get("labels", "").splitlines() if line.strip()]
        for line in lines:
            if "=" not in line:
                raise Refused(form, {"labels": f"expected key=value on each line; got {line}"})
        pairs = [line.partition("=") for line in lines]
        given = {key.strip(): value.strip() for key, _, value in pairs}
        body = validated(LabelsRequest, form, labels=given)
        api.set_labels(device, page.actor, session, now, context, body)
        return ""

    return await _change(page, context, device, now, change, field="labels")


@router.post("/devices/{device}/models/{model}/{action}")
async def steer(
    device: DeviceName, model: ModelName, action: str, page: ActOperator, context: Ctx, now: Now
) -> Response:
    """Roll back, pin, unpin, retry one model on one device."""
    if action not in ("rollback", "pin", "unpin", "retry"):
        raise NotFound(f"unknown action {action}")

    def change(session: Session, form: dict[str, str]) -> str:
        version, reason = form.get("version", ""), form.get("reason", "").strip()
        if action in ("rollback", "pin") and not reason:
            raise Refused(form, {f"reason-{model}": SAY_WHY})
        if action == "pin" and not version:
            raise Refused(form, {f"version-{model}": WHICH})
        who: Any = {"device": device, "model": model, "operator": page.actor, "session": session}
        try:
            return _steer(page, action, {**who, "now": now}, context, version, reason)
        except ValidationError as error:
            raise Refused(form, {f"reason-{model}": error.errors()[0]["msg"]}) from None

    return await _change(page, context, device, now, change, field=f"reason-{model}")


def _steer(
    page: PageContext, action: str, who: dict[str, Any], context: Context, version: str, reason: str
) -> str:
    """Do it; return what the page says of it."""
    device, model = who["device"], who["model"]
    match action:
        case "rollback":
            wish = RollBackRequest(to=version or None, reason=reason[:500])
            done = running.roll_back(**who, context=context, body=wish)
            return page.told(WENT_BACK, device=device, model=model, version=done.version)
        case "pin":
            body = PinRequest(version=version, reason=reason[:500])
            done = running.pin(**who, context=context, body=body)
            said = page.told(PINNED, device=device, model=model, version=done.version)
            return done.warning or said
        case "unpin":
            running.unpin(**who)
            return page.told(UNPINNED, device=device)
        case _:
            running.retry(**who)
            return page.told(RETRIED, device=device)


async def _change(
    page: PageContext,
    context: Context,
    device: str,
    now: datetime,
    change: Callable[[Session, dict[str, str]], str],
    *,
    field: str,
) -> Response:
    """Do what a form asks; where that will not do, the page again with what was typed, and what is
    wrong beside the `field`."""
    return await answer_form(
        page.request,
        context,
        in_transaction(context, change),
        done=lambda said: page.go(f"/devices/{device}", say=said),
        again=lambda session, refusal: _show(page, session, context, device, now, refusal),
        otherwise=field,
        gone=DeviceUnknown,
    )
