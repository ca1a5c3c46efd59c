"""Do all that is to be done now, then end: for devices that are awake for minutes a day.

It talks as the resident agent does and works in this process; a probation that has begun is seen
through to its end.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from pilotwave_agent.core.journal import read_state
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.resident.run import alone
from pilotwave_agent.resident.session import Session, keep_directive, session_of
from pilotwave_agent.settings.config import Config
from pilotwave_agent.work import Done, Job, work

_NO_TOKEN = "the server refuses the token that it gave"


def once(config: Config, config_path: Path) -> str | None:
    """Check in, poll, work, check in. Return a sentence if something could not be done."""
    with alone(config) as (layout, who):
        session = session_of(config, who, warn=lambda words: None)
        try:
            return _visit(config, layout, session)
        finally:
            session.close()


def _visit(config: Config, layout: Layout, session: Session) -> str | None:
    accepted = session.check_in(read_state(layout.journal)) is not None
    heard = session.poll(read_state(layout.journal))
    if heard is not None and heard.directive is not None:
        keep_directive(Disk(), layout, heard.directive)
    trouble = session.said or ("" if session.token else _NO_TOKEN)
    done = _work(config, session)
    if accepted and done.changed:
        session.check_in(read_state(layout.journal))
    return session.said or trouble or done.sentence or None


def _work(config: Config, session: Session) -> Done:
    def tell(line: dict[str, Any]) -> None:
        if "span" in line and session.traces:
            session.traces.heard(line["span"])

    done = work(config, Job(**session.job(), refresh=bool(session.token), boot=True), tell=tell)
    session.worked()
    changed = done.changed
    while done.next_wake_s is not None:
        time.sleep(done.next_wake_s)
        done = work(config, Job(**session.job(), probed=done.probed), tell=tell)
        changed = changed or done.changed
    return replace(done, changed=changed)
