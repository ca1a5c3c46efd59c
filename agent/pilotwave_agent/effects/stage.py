"""Build a version's folder from the files that are here, and prove it."""

from __future__ import annotations

import contextlib

from pilotwave_agent import version_folder
from pilotwave_agent.apps import heartbeats
from pilotwave_agent.core import outcomes
from pilotwave_agent.core.records import Record
from pilotwave_agent.core.steps import Stage
from pilotwave_agent.effects.tools import Tools, disk_says_no
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.states import Reason


def stage(tools: Tools, step: Stage) -> Record:
    """Build the candidate's folder; bytes that are not the signed ones are fetched again."""
    slot = tools.slot(step.model)
    version, build = tools.candidate(slot)
    prepare_desks(tools, slot.model)
    try:
        with disk_says_no():
            version_folder.stage(tools.disk, tools.layout, slot.model, version, build)
    except RefusedError as no:
        if no.reason is not Reason.BLOB_MISMATCH:
            raise
        return outcomes.unstageable(slot, no, tools.now())
    return outcomes.staged(slot, tools.now())


def prepare_desks(tools: Tools, model: str) -> None:
    """Make the folder for applications; where it cannot be made, they serve on unheard."""
    with contextlib.suppress(OSError):
        heartbeats.prepare(tools.layout.live, model, tools.config.apps_group)
