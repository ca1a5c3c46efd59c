"""Act on the devices that were ticked in the list, or on all that its filter takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from fastapi.responses import Response
from pydantic import ValidationError

from pilotwave_server.dashboard.confirm import sure
from pilotwave_server.dashboard.device_filter import get_form
from pilotwave_server.dashboard.forms import Form, answer_form
from pilotwave_server.dashboard.pages import ActOperator, PageContext, page_router
from pilotwave_server.dashboard.rendering import with_query
from pilotwave_server.dashboard.words import N_
from pilotwave_server.deps import Ctx
from pilotwave_server.devices.shown import MOST
from pilotwave_server.errors import Invalid
from pilotwave_server.rollouts.bulk.acts import TooManyDevices
from pilotwave_server.rollouts.bulk.routes import (
    BulkAnswer,
    BulkRequest,
    act_on_devices,
    devices_of,
)
from pilotwave_server.rollouts.bulk.steps import BulkAction

router = page_router()
FILTERS = ("selector", "state", "model", "version", "group", "name", "reason")
FEW = 5
QUESTIONS: dict[BulkAction, str] = {
    "label": N_("%(devices)s: they get the labels %(labels)s."),
    "accept": N_("%(devices)s: they are accepted into the fleet."),
    "retry": N_("%(devices)s: they try %(model)s again at their next poll."),
    "rollback": N_(
        "%(devices)s: they go back to the last good version of %(model)s at their next poll and "
        "are pinned there."
    ),
    "decommission": N_(
        "%(devices)s: they are taken out of service; each needs an enrolment code to return."
    ),
}
COUNT = N_("Devices affected: %(count)s (%(names)s)")
AND_MORE = N_("%(names)s and %(more)s more")
DONE = N_("Done on %(done)s of %(matched)s devices.")
FIRST_NO = N_("%(device)s: %(sentence)s")


class NothingChosen(Invalid):
    code = "nothing_chosen"


@router.post("/devices/bulk")
async def act(page: ActOperator, context: Ctx) -> Response:
    """Ask with count and consequence, then act on exactly those that were shown."""

    def change(form: Form) -> Response:
        wish = _wish(form, form.every("device"))
        names = devices_of(context, wish)
        told = {"devices": _named(page, names), "model": wish.model, "labels": form.get("labels")}
        sure(form, page.told(QUESTIONS[wish.action], **told))
        answer = act_on_devices(page.actor, context, wish)
        return page.go(with_query("/devices", **_filter(form)), say=_said(page, answer))

    return await answer_form(page.request, context, change, done=lambda response: response)


def _filter(given: dict[str, str]) -> dict[str, str]:
    return {key: given[key] for key in FILTERS if given.get(key)}


def _wish(given: dict[str, str], chosen: Sequence[str]) -> BulkRequest:
    """What the form asks for. NothingChosen, or Invalid with a sentence."""
    action = given.get("action", "")
    if action not in get_args(BulkAction):
        raise NothingChosen("choose what is to be done")
    body: dict[str, Any] = {"action": action}
    if given.get("all") == "yes":
        body |= {"filter": get_form(**_filter(given)).query, **_shown(given)}
    elif chosen:
        body |= {"devices": list(chosen)}
    else:
        raise NothingChosen("tick the devices, or all that match")
    if action in ("retry", "rollback"):
        body |= {"model": given.get("of") or None}
    if action == "rollback":
        body |= {"reason": given.get("why", "").strip() or None}
    if action == "label":
        pairs = [part.partition("=") for part in given.get("labels", "").replace(",", " ").split()]
        if not pairs or not all(middle for _, middle, _ in pairs):
            raise NothingChosen("expected labels like shift=night")
        body |= {"labels": {key: value or None for key, _, value in pairs}}
    try:
        return BulkRequest.model_validate(body)
    except ValidationError as error:
        raise NothingChosen(error.errors()[0]["msg"].removeprefix("Value error, ")) from None


def _shown(given: dict[str, str]) -> dict[str, Any]:
    """What the list told of the devices that match. TooManyDevices where it could not."""
    if not given.get("digest"):
        raise TooManyDevices(f"more than {MOST:,} devices match: narrow the filter")
    expected = given.get("expected", "")[:9]
    number = int(expected) if expected.isdecimal() else None
    return {"digest": given["digest"], "sketch": given.get("sketch"), "expected": number}


def _named(page: PageContext, names: Sequence[str]) -> str:
    shown = ", ".join(names[:FEW])
    if len(names) > FEW:
        shown = page.told(AND_MORE, names=shown, more=len(names) - FEW)
    return page.told(COUNT, count=len(names), names=shown)


def _said(page: PageContext, answer: BulkAnswer) -> str:
    told = page.told(DONE, done=answer.done, matched=answer.matched)
    first = next((item for item in answer.items if not item.done), None)
    if first is None:
        return told
    sentence = page.said(first.sentence or "")
    return f"{told} {page.told(FIRST_NO, device=first.device, sentence=sentence)}"
