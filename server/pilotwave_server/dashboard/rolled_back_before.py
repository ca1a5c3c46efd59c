"""Say where a version was rolled back before, for the question that a page asks."""

from __future__ import annotations

from sqlalchemy.orm import Session

from pilotwave_server.dashboard.pages import PageContext
from pilotwave_server.dashboard.words import N_
from pilotwave_server.rollouts.operate.queries import rolled_back

WAS_BACK = N_("It was rolled back in %(rollout)s (%(group)s).")


def taken_back(page: PageContext, session: Session, model: str, version: str) -> list[str]:
    """Return a sentence for each rollout that rolled the version back, the newest first."""
    found = rolled_back(session, model).get(version, [])
    return [page.told(WAS_BACK, rollout=back.rollout, group=back.group) for back in found]
