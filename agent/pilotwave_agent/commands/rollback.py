"""Go back to the version before, at the device and without the server.

The version that is left counts as failed here: it does not come back until an operator asks for a
retry or orders another one.
"""

from __future__ import annotations

from pilotwave_agent import permissions
from pilotwave_agent.core.journal import Journal, read_state
from pilotwave_agent.core.ways_back import step_back
from pilotwave_agent.host import lock
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.resident.run import wake
from pilotwave_agent.settings.config import Config
from pilotwave_agent.work import Job, now_of, work
from pilotwave_protocol.errors import PilotwaveError

_WAIT_S = 10.0


class NothingToGoBackTo(PilotwaveError):
    """No earlier version is on this device, or none that may run."""

    code = "nothing_to_go_back_to"


def rollback(config: Config, model: str) -> str:
    """Send a model back and return a sentence. Raises `NothingToGoBackTo`, `Held`."""
    layout, disk = Layout(config.data_dir), Disk()
    permissions.close_up(layout, config.apps_group)
    permissions.check(layout)
    before = read_state(layout.journal).slot(model)
    if before.current is None:
        raise NothingToGoBackTo(f"{model}: this device runs no version of it")
    lock.interrupt(layout.work_lock)
    with lock.held(layout.work_lock, "the agent's work", wait_s=_WAIT_S):
        journal = Journal(disk, layout.journal)
        state, now = journal.state, now_of(layout)
        records = step_back(state.slot(model), state.orders.get(model), state.memory, at=now.wall)
        if not records:
            raise NothingToGoBackTo(f"{model}: no earlier version here may run")
        for record in records:
            journal.append(record)
    work(config, Job())
    wake(layout)
    after = read_state(layout.journal).slot(model)
    if after.current is None or after.current == before.current:
        raise NothingToGoBackTo(f"{model}: {after.detail}")
    return f"{model}: {before.current.version} to {after.current.version}"
