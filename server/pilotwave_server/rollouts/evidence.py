"""Gather what gates look at."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pilotwave_server.rollouts.leases import DID_NOT, HEALTHY, SILENT, SWITCHED
from pilotwave_server.rollouts.policies.document import Policy
from pilotwave_server.rollouts.tables import RolloutDeviceRow, RolloutRow


@dataclass(frozen=True)
class Evidence:
    """How many devices there are of each outcome."""

    healthy: int = 0
    failed: int = 0
    silent: int = 0
    in_probation: int = 0


def load(session: Session, rollout: RolloutRow, policy: Policy, now: datetime) -> Evidence:
    """Return what is known of the rollout now."""
    d = RolloutDeviceRow
    query = select(d.outcome, func.count()).where(d.rollout_id == rollout.id).group_by(d.outcome)
    found = dict(session.execute(query).tuples().all())
    return Evidence(
        healthy=found.get(HEALTHY, 0),
        failed=sum(found.get(word, 0) for word in DID_NOT),
        silent=found.get(SILENT, 0),
        in_probation=found.get(SWITCHED, 0),
    )
