"""Models and versions: what there is, who signed it, where it runs; a new one from a browser."""

from __future__ import annotations

from fastapi.responses import Response
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pilotwave_server.attention.service import list_items_of
from pilotwave_server.audit.tables import AuditEventRow
from pilotwave_server.dashboard import class_table, variant_table
from pilotwave_server.dashboard.confirm import sure
from pilotwave_server.dashboard.forms import answer_form, in_transaction
from pilotwave_server.dashboard.pages import ActOperator, Look, page_router
from pilotwave_server.dashboard.words import N_
from pilotwave_server.deps import Ctx, Now, ReadSession
from pilotwave_server.devices.report_tables import DeviceModelRow
from pilotwave_server.errors import NotFound
from pilotwave_server.fields import ModelName, VersionName
from pilotwave_server.learning import routes as learning_routes
from pilotwave_server.operators.roles import Role
from pilotwave_server.paging import PageRequest, Paging
from pilotwave_server.registry import routes as api
from pilotwave_server.registry.tables import VersionRow
from pilotwave_server.registry.views import DenyRequest
from pilotwave_server.retention.routes import PurgeRequest, purge
from pilotwave_server.rollouts.assignments.fitting import count_each
from pilotwave_server.rollouts.assignments.snapshot import NewestSnapshot
from pilotwave_server.rollouts.operate import routes as rollout_routes
from pilotwave_server.rollouts.operate.queries import rolled_back

router = page_router()
TRUST = ("model.publishers", "model.reset")
MOST_TRUST = 10
PURGES = N_(
    "Devices that run %(model)s %(version)s: %(count)s. They roll back to the version before; no "
    "device is offered this one again. Its files are deleted permanently; the record stays."
)
DENIES = N_(
    "%(model)s %(version)s is no longer offered to any device. Devices that run it: %(count)s."
)

FIGURES = (
    ("top1", N_("Top-1")),
    ("agreement", N_("Agreement")),
    ("loss_bound", N_("Loss at most")),
    ("p05_ms", N_("Latency, p05")),
    ("peak_mb", N_("Peak MB")),
)


def running(session: Session, model: str) -> dict[str, int]:
    """By version, how many devices run it as their last report said."""
    m = DeviceModelRow
    query = (
        select(m.current_version, func.count())
        .where(m.model == model, m.current_version.is_not(None))
        .group_by(m.current_version)
    )
    return {str(version): count for version, count in session.execute(query)}


def trust_events(session: Session, model: str) -> list[AuditEventRow]:
    """When its publisher keys were replaced, and its resets: the newest first."""
    a = AuditEventRow
    query = select(a).where(a.object == f"model/{model}", a.verb.in_(TRUST))
    return list(session.scalars(query.order_by(a.id.desc()).limit(MOST_TRUST)))


@router.get("/models")
def list_models(page: Look, session: ReadSession, paging: Paging, now: Now) -> Response:
    """By name."""
    found = api.list_models(page.actor, session, paging)
    return page.render("models.html", models=found, now=now, api="/api/v1/models")


@router.get("/upload")
def upload(page: Look, session: ReadSession, model: str = "", version: str = "") -> Response:
    """Hash and upload the files of a new version, and say how it is signed."""
    page.need(Role.PUBLISHER)
    models = [m.name for m in api.list_models(page.actor, session, PageRequest(500)).items]
    return page.render("upload.html", models=models, model=model, version=version)


@router.get("/models/{model}/{version}/arrived")
def arrived(model: ModelName, version: VersionName, page: Look, session: ReadSession) -> Response:
    """Whether a version that is awaited is there: a fragment that asks again until it is."""
    query = select(VersionRow.id).where(VersionRow.model == model, VersionRow.version == version)
    here = session.scalar(query) is not None
    return page.render("_arrived.html", model=model, version=version, here=here)


@router.get("/models/{model}")
def show_model(
    model: ModelName, page: Look, session: ReadSession, paging: Paging, now: Now
) -> Response:
    """Its versions, the newest first, and where each runs."""
    return page.render(
        "model.html",
        model=api.get_model(model, page.actor, session),
        versions=api.list_versions(model, page.actor, session, paging),
        running=running(session, model),
        back=rolled_back(session, model),
        attention=list_items_of(session, model, now),
        trust=trust_events(session, model),
        experiments=learning_routes.list_experiments(
            page.actor, session, PageRequest(8), model=model
        ),
        rollouts=rollout_routes.list_rollouts(page.actor, session, PageRequest(8), model=model),
        now=now,
        api=f"/api/v1/models/{model}",
    )


@router.get("/models/{model}/{version}")
def show_version(
    model: ModelName, version: VersionName, page: Look, session: ReadSession, context: Ctx
) -> Response:
    """Its variants and files, its signers, where it runs."""
    found = api.get_version(model, version, page.actor, session)
    snapshot = context.get(NewestSnapshot).snapshot
    release = snapshot.versions.get((model, version))
    fits = count_each(session, release) if release else None
    rows = variant_table.rows_of(found.variants, found.metrics, fits)
    return page.render(
        "version.html",
        version=found,
        rows=rows,
        columns=[
            (k, page.told(t)) for k, t in FIGURES if any(r.figures[k] is not None for r in rows)
        ],
        picture=variant_table.picture_of(rows),
        classes=class_table.rows_of(session, release, snapshot) if release else [],
        other_metrics=variant_table.others(found.variants, found.metrics),
        running=running(session, model).get(version, 0),
        back=rolled_back(session, model).get(version, []),
        api=f"/api/v1/models/{model}/versions/{version}",
    )


@router.post("/models/{model}/{version}/{action}")
async def act(
    model: ModelName, version: VersionName, action: str, page: ActOperator, context: Ctx, now: Now
) -> Response:
    """Deny, or take a deny back. A yank is the publisher's: the page gives its command."""
    if action not in ("deny", "undeny", "purge"):
        raise NotFound(f"unknown action {action}")

    def change(session: Session, form: dict[str, str]) -> None:
        if action == "undeny":
            api.undeny(model, version, page.actor, session, now)
            return
        count = running(session, model).get(version, 0)
        sure(form, page.told(DENIES, model=model, version=version, count=count))
        body = DenyRequest(reason=form.get("reason", "").strip() or "denied on the page")
        api.deny(model, version, body, page.actor, session, now)

    def remove(form: dict[str, str]) -> None:
        page.need(Role.ADMIN)
        with context.db.read() as session:
            count = running(session, model).get(version, 0)
        sure(form, page.told(PURGES, model=model, version=version, count=count))
        reason = form.get("reason", "").strip() or "removed on the page"
        purge(model, version, PurgeRequest(reason=reason), page.actor, context, now)

    return await answer_form(
        page.request,
        context,
        remove if action == "purge" else in_transaction(context, change),
        done=lambda _: page.go(f"/models/{model}/{version}"),
    )
