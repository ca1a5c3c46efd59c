"""Groups and what they run; policies; both changed on the page."""

from __future__ import annotations

from fastapi.responses import Response
from sqlalchemy.orm import Session

from pilotwave_server.dashboard.confirm import sure
from pilotwave_server.dashboard.forms import Refused, answer_form, blank, in_transaction, validated
from pilotwave_server.dashboard.pages import ActOperator, Look, PageContext, page_router
from pilotwave_server.dashboard.rolled_back_before import taken_back
from pilotwave_server.dashboard.words import N_
from pilotwave_server.deps import Ctx, Now, ReadSession
from pilotwave_server.errors import NotFound
from pilotwave_server.fields import DeviceName, GroupName
from pilotwave_server.groups import routes as api
from pilotwave_server.groups.service import GroupUnknown, count_devices, get_group
from pilotwave_server.groups.tables import GroupRow
from pilotwave_server.groups.views import GroupChange, GroupRequest
from pilotwave_server.paging import PageRequest, Paging
from pilotwave_server.registry.service import list_models, list_versions
from pilotwave_server.rollouts.assignments import routes as running
from pilotwave_server.rollouts.assignments.views import BaselineRequest
from pilotwave_server.rollouts.operate import routes as rollout_routes
from pilotwave_server.rollouts.removals import orders
from pilotwave_server.rollouts.removals import routes as removal_routes

router = page_router()
REMOVED = N_("Devices that remove %(model)s at their next poll: %(count)s.")
NOT_SURE = N_("Tick the box to confirm.")
ASSIGNED = N_("%(fits)s of %(all)s devices are told at their next poll.")
ASSIGNS = N_(
    "Devices of %(group)s that get %(model)s %(version)s at once, without waves and gates: "
    "%(count)s."
)
CHANGES = N_(
    "Devices of %(group)s: %(before)s, and %(after)s with the new selector. Devices that join get "
    "what the group runs at their next poll."
)
DELETES = N_(
    "Devices of %(group)s: %(count)s. They keep what they run. The group is deleted permanently."
)
ALL = PageRequest(limit=500)


@router.get("/groups")
def list_groups(page: Look, session: ReadSession, paging: Paging) -> Response:
    """By name, and a form for a new one."""
    return _list(page, session, paging)


def _list(
    page: PageContext, session: ReadSession, paging: PageRequest, refusal: Refused | None = None
) -> Response:
    return page.render(
        "groups.html",
        status=refusal.status if refusal else 200,
        groups=api.list_groups(page.actor, session, paging),
        given=refusal.given if refusal else {},
        wrong=refusal.wrong if refusal else {},
        api="/api/v1/groups",
    )


@router.post("/groups")
async def create(page: ActOperator, context: Ctx, now: Now) -> Response:
    """Make a group, by selector or as a list of devices."""

    def make(session: Session, form: dict[str, str]) -> str:
        body = validated(
            GroupRequest,
            form,
            name=form.get("name", "").strip(),
            selector=blank(form.get("selector")),
            description=form.get("description", ""),
        )
        return api.create_group(page.actor, session, now, body).name

    return await answer_form(
        page.request,
        context,
        in_transaction(context, make),
        done=lambda name: page.go(f"/groups/{name}"),
        again=lambda session, refusal: _list(page, session, PageRequest(), refusal),
        fields={"bad_selector": "selector", "group_name_taken": "name"},
    )


@router.get("/groups/{group}")
def show(
    group: GroupName, page: Look, session: ReadSession, context: Ctx, paging: Paging
) -> Response:
    """What it runs, who is in it, its rollouts."""
    return _show(page, session, context, group, paging)


def _show(
    page: PageContext,
    session: ReadSession,
    context: Ctx,
    group: str,
    paging: PageRequest,
    refusal: Refused | None = None,
) -> Response:
    models = [found.row.name for found in list_models(session, page=ALL)[0]]
    baselines = running.list_baselines(group, page.actor, session).items
    return page.render(
        "group.html",
        status=refusal.status if refusal else 200,
        group=api.get_group(group, page.actor, session),
        baselines=baselines,
        have_it={
            b.model: orders.of_group(session, group=group, model=b.model).have_it for b in baselines
        },
        members=api.list_members(group, page.actor, session, context, paging),
        rollouts=rollout_routes.list_rollouts(page.actor, session, PageRequest(8), group=group),
        choices=[
            (model, row.version)
            for model in models[:50]
            for row in list_versions(session, model=model, page=PageRequest(20))[0]
        ],
        now=context.clock(),
        given=refusal.given if refusal else {},
        wrong=refusal.wrong if refusal else {},
        api=f"/api/v1/groups/{group}",
    )


FIELD_OF = {
    "bad_selector": "selector",
    "device_unknown": "device",
    "version_not_offered": "version",
}


@router.post("/groups/{group}/{action}")
async def act(group: GroupName, action: str, page: ActOperator, context: Ctx, now: Now) -> Response:
    """Change it, assign at once, add and remove devices, delete it."""
    after = "/groups" if action == "delete" else f"/groups/{group}"
    return await answer_form(
        page.request,
        context,
        in_transaction(
            context,
            lambda session, form: _change(page, session, context, group, action, form, now),
        ),
        done=lambda said: page.go(after, say=said),
        again=lambda session, refusal: _show(page, session, context, group, PageRequest(), refusal),
        fields=FIELD_OF,
        gone=GroupUnknown,
    )


def _change(
    page: PageContext,
    session: Session,
    context: Ctx,
    group: str,
    action: str,
    form: dict[str, str],
    now: Now,
) -> str:
    who = page.actor
    match action:
        case "change":
            body = validated(
                GroupChange,
                form,
                selector=blank(form.get("selector")),
                description=form.get("description", ""),
            )
            _sure_of_change(page, session, group, body, form)
            api.change_group(group, who, session, now, body)
        case "assign":
            model, _, version = form.get("version", "").partition(" ")
            wish = validated(BaselineRequest, form, version=version)
            sure(form, _assigning(page, session, group, model, version))
            done = running.set_baseline(group, model, who, session, now, context, wish)
            return page.told(ASSIGNED, fits=done.fits, all=done.devices)
        case "unassign":
            running.end_baseline(group, form.get("model", ""), who, session, now)
        case "wipe":
            model = form.get("model", "")
            if form.get("sure") != "yes":
                raise Refused(form, {f"wipe-{model}": page.told(NOT_SURE)})
            gone = removal_routes.remove_from_group(group, model, who, session, now)
            return page.told(REMOVED, count=gone.can_remove, model=model)
        case "add":
            api.add_member(group, _device(form), who, session, now)
        case "remove":
            api.remove_member(group, _device(form), who, session, now)
        case "delete":
            count = api.get_group(group, who, session).devices
            sure(form, page.told(DELETES, group=group, count=count))
            api.delete_group(group, who, session, now)
        case _:
            raise NotFound(f"unknown action {action}")
    return ""


def _sure_of_change(
    page: PageContext, session: Session, group: str, change: GroupChange, form: dict[str, str]
) -> None:
    """Ask before a selector that takes other devices: they get what the group runs."""
    row = get_group(session, group)
    if change.selector is None or change.selector == row.selector:
        return
    before = count_devices(session, row)
    after = count_devices(session, GroupRow(name=group, selector=change.selector))
    sure(form, page.told(CHANGES, group=group, before=before, after=after))


def _assigning(page: PageContext, session: Session, group: str, model: str, version: str) -> str:
    """Whom an assignment concerns, and where the version was taken back."""
    count = api.get_group(group, page.actor, session).devices
    told = page.told(ASSIGNS, group=group, model=model, version=version, count=count)
    return " ".join([told, *taken_back(page, session, model, version)])


def _device(form: dict[str, str]) -> DeviceName:
    return form.get("device", "").strip()
