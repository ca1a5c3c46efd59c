"""The query parameters by which every list of devices is filtered."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query

from pilotwave_server.devices.service import Standing
from pilotwave_server.devices.views import DeviceState
from pilotwave_server.fields import GroupName, ModelName, VersionName
from pilotwave_server.inventory.finding import DeviceFilter

SelectorText = Annotated[
    str | None,
    Query(
        max_length=4096,
        description="Only devices that this takes, like `site=berlin, fact.hw in (orin, nano)` or "
        "`runs detector<1.2`.",
        examples=["site=berlin, !quarantined"],
    ),
]


def get_filter(
    selector: SelectorText = None,
    state: Annotated[DeviceState | None, Query(description="Only devices in this state.")] = None,
    standing: Annotated[
        Standing | None,
        Query(
            description="Only enrolled devices that were heard of within three of the check-in "
            "intervals that they were told (`online`) or were not (`silent`); only those that "
            "refuse their orders (`refusing`); these and those on which a model failed or went "
            "back (`failing`); only those whose key two machines use (`conflict`); only those that "
            "said in the last two days that a version's inputs have drifted (`drifting`)."
        ),
    ] = None,
    model: Annotated[
        ModelName | None,
        Query(description="Only devices that run it, or have tried to install it."),
    ] = None,
    version: Annotated[
        VersionName | None, Query(description="Only devices that run this version.")
    ] = None,
    group: Annotated[GroupName | None, Query(description="Only devices in this group.")] = None,
    name: Annotated[
        str | None, Query(max_length=64, description="Only devices with this in their name.")
    ] = None,
    reason: Annotated[
        str | None,
        Query(
            max_length=64,
            description="Only devices on which a model is held or failed for this reason, or that "
            "refuse their orders for it: `selftest_mismatch`, `disk_full` …. With `model` or "
            "`version`: only devices on which that model is held or failed for it.",
        ),
    ] = None,
) -> DeviceFilter:
    return DeviceFilter(selector, state, standing, model, version, group, name, reason)


Filter = Annotated[DeviceFilter, Depends(get_filter)]
