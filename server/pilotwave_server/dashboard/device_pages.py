"""Devices: the list by selector, one with what it runs and why, and what people do about it."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from fastapi import Form, Query
from fastapi.responses import Response
from pydantic import ValidationError
from sqlalchemy.orm import Session

from pilotwave_server.dashboard.charts import Chart, of_courses
from pilotwave_server.dashboard.pages import ActOperator, Look, Page, page_router
from pilotwave_server.dashboard.rendering import with_query
from pilotwave_server.deps import Ctx, Now, ReadSession, WriteSession
from pilotwave_server.devices import routes as api
from pilotwave_server.devices.service import Standing
from pilotwave_server.devices.views import DeviceSort, LabelsRequest
from pilotwave_server.errors import Invalid, NotFound, ServerError
from pilotwave_server.fields import DeviceName, ModelName
from pilotwave_server.paging import PageRequest, Paging
from pilotwave_server.registry.service import list_versions
from pilotwave_server.rollouts import routes as running
from pilotwave_server.rollouts.views import PinRequest, RollBackRequest
from pilotwave_server.telemetry import routes as telemetry

router = page_router()
Text = Annotated[str, Form(max_length=600)]
STANDINGS = get_args(Standing)
STATES = ("pending", "enrolled", "revoked", "decommissioned")


@router.get("/devices")
def list_devices(
    page: Look,
    session: ReadSession,
    context: Ctx,
    paging: Paging,
    now: Now,
    selector: Annotated[str, Query(max_length=4096)] = "",
    state: Annotated[str, Query(max_length=20)] = "",
    sort: Annotated[str, Query(max_length=20)] = "name",
) -> Response:
    """Those that a selector takes, sorted. A selector with a fault keeps what was typed."""
    given = {"selector": selector, "sort": sort if sort in get_args(DeviceSort) else "name"}
    given |= {"state": state} if state in STATES else {}
    given |= {"standing": state} if state in STANDINGS else {}
    chosen: dict[str, Any] = {name: value or None for name, value in given.items()}
    wrong, status, found = "", 200, None
    try:
        found = api.list_devices(
            viewer=page.actor, session=session, context=context, page=paging, now=now, **chosen
        )
    except ServerError as error:
        wrong, status = error.detail, error.status
    return page.render(
        "devices.html",
        status=status,
        devices=found,
        selector=selector,
        state=state,
        states=(*STANDINGS, *STATES),
        sort=chosen["sort"],
        wrong=wrong,
        api=with_query("/api/v1/devices", **given),
    )


@router.get("/devices/{device}")
def show(device: DeviceName, page: Look, session: ReadSession, context: Ctx, now: Now) -> Response:
    """What it runs and why, what it said, what is known of it."""
    found = api.get_device(device, page.actor, session, context)
    models = sorted({m.model for m in found.models} | {p.model for p in found.pins})
    whys = [running.explain(device, page.actor, session, context, model=model) for model in models]
    return page.render(
        "device.html",
        device=found,
        whys=whys,
        pins={pin.model: pin for pin in found.pins},
        versions={m: _versions(session, m) for m in models},
        history=api.list_history(device, page.actor, session, PageRequest(limit=30)),
        silent_after_s=3 * context.settings.check_in_interval_s,
        now=now,
        charts=_charts(device, page, session),
        also=[f"/api/v1/devices/{device}/metrics"],
        events=api.list_events(device, page.actor, session, PageRequest(limit=30)),
        api=f"/api/v1/devices/{device}",
    )


def _charts(device: str, page: Page, session: Session) -> dict[str, list[Chart]]:
    return of_courses(telemetry.device_metrics(device, page.actor, session).metrics)


@router.get("/devices/{device}/health")
def health(device: DeviceName, page: Look, session: ReadSession) -> Response:
    """The charts of a device's page."""
    return page.render("_device_health.html", charts=_charts(device, page, session))


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
    found = api.list_events(device, page.actor, session, PageRequest(limit=30))
    return page.render("_device_log.html", name=device, events=found)


def _simple(name: str) -> Any:
    return {"accept": api.accept, "revoke": api.revoke, "decommission": api.decommission}.get(name)


@router.post("/devices/{device}/do/{deed}")
def act(
    device: DeviceName,
    deed: str,
    page: ActOperator,
    session: WriteSession,
    now: Now,
    context: Ctx,
) -> Response:
    """Accept, reject, revoke, decommission."""
    if deed == "reject":
        api.reject(device, page.actor, session, now)
        return page.go("/devices?state=pending", say=f"{device} was turned down")
    simple = _simple(deed)
    if simple is None:
        raise NotFound(f"there is no deed {deed}")
    simple(device, page.actor, session, now, context)
    return page.go(f"/devices/{device}")


@router.post("/devices/{device}/labels")
def set_labels(
    device: DeviceName,
    page: ActOperator,
    session: WriteSession,
    now: Now,
    context: Ctx,
    labels: Annotated[str, Form(max_length=8000)] = "",
) -> Response:
    """All labels, one `key=value` a line."""
    pairs = [line.partition("=") for line in labels.splitlines() if line.strip()]
    given = {key.strip(): value.strip() for key, _, value in pairs}
    try:
        body = LabelsRequest(labels=given)
    except ValidationError as error:
        raise Invalid(f"labels: {error.errors()[0]['msg']}") from None
    api.set_labels(device, page.actor, session, now, context, body)
    return page.go(f"/devices/{device}")


@router.post("/devices/{device}/models/{model}/{deed}")
def steer(
    device: DeviceName,
    model: ModelName,
    deed: str,
    page: ActOperator,
    session: WriteSession,
    now: Now,
    context: Ctx,
    version: Text = "",
    reason: Text = "",
) -> Response:
    """Roll back, pin, unpin, retry one model on one device."""
    if deed in ("rollback", "pin") and not reason.strip():
        raise Invalid("say why, in a few words: it goes into the log and to the device")
    who: Any = {"device": device, "model": model, "operator": page.actor, "session": session}
    who["now"] = now
    said = ""
    match deed:
        case "rollback":
            wish = RollBackRequest(to=version or None, reason=reason)
            done = running.roll_back(**who, context=context, body=wish)
            said = (
                f"{device} goes back to {model} {done.version} at its next poll and is held there"
            )
        case "pin":
            done = running.pin(
                **who, context=context, body=PinRequest(version=version, reason=reason)
            )
            said = done.warning or f"{device} is held on {model} {done.version}"
        case "unpin":
            running.unpin(**who)
            said = f"{device} follows its groups again"
        case "retry":
            running.retry(**who)
            said = f"{device} tries again at its next poll"
        case _:
            raise NotFound(f"there is no deed {deed}")
    return page.go(f"/devices/{device}", say=said)
