"""The form that filters the list of devices: what was typed there, and what it asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, get_args

from fastapi import Depends, Query
from pydantic import TypeAdapter, ValidationError

from pilotwave_server.devices.service import Standing
from pilotwave_server.devices.views import DeviceState
from pilotwave_server.fields import GroupName, ModelName, VersionName
from pilotwave_server.inventory.finding import DeviceFilter

STANDINGS = get_args(Standing)
STATES = get_args(DeviceState)
_CHECKED: dict[str, TypeAdapter[Any]] = {
    "model": TypeAdapter(ModelName),
    "version": TypeAdapter(VersionName),
    "group": TypeAdapter(GroupName),
}
Typed = Annotated[str, Query(max_length=4096)]


@dataclass(frozen=True)
class FilterForm:
    """`typed` is what the form shows again, `query` what the API is asked; `wrong` a sentence."""

    typed: dict[str, str]
    query: dict[str, str]
    wrong: str

    @property
    def filter(self) -> DeviceFilter:
        """What devices have to be like."""
        return DeviceFilter(**self.query)  # type: ignore[arg-type]  # checked by `get_form`


def get_form(
    selector: Typed = "",
    state: Typed = "",
    model: Typed = "",
    version: Typed = "",
    group: Typed = "",
    name: Typed = "",
    reason: Typed = "",
) -> FilterForm:
    """One field of the form chooses states and standings alike."""
    typed = {
        "name": name.strip()[:64],
        "state": state,
        "group": group,
        "model": model,
        "version": version.strip(),
        "reason": reason.strip()[:64],
        "selector": selector,
    }
    query = {key: value for key, value in typed.items() if value and key != "state"}
    query |= {"state": state} if state in STATES else {}
    query |= {"standing": state} if state in STANDINGS else {}
    wrong = ""
    for key, kind in _CHECKED.items():
        try:
            if key in query:
                kind.validate_python(query[key])
        except ValidationError as error:
            wrong = f"{key}: {error.errors()[0]['msg']}"
    return FilterForm(typed, query, wrong)


PageFilter = Annotated[FilterForm, Depends(get_form)]
