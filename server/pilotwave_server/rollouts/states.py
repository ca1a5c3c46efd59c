"""The states of a rollout and the steps between them. The table is the whole truth."""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType


class RolloutState(str, Enum):
    """Where a rollout stands (DESIGN section 7)."""

    DRAFT = "draft"
    AWAITING_APPROVAL = "awaiting_approval"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    PAUSED = "paused"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    COMPLETED = "completed"
    ABORTED = "aborted"

    def __str__(self) -> str:
        return str(self.value)


_S = RolloutState

# Nothing leads out of the last three: a version that shall go out again gets another rollout.
TRANSITIONS = MappingProxyType(
    {
        _S.DRAFT: frozenset({_S.AWAITING_APPROVAL, _S.SCHEDULED, _S.RUNNING, _S.ABORTED}),
        _S.AWAITING_APPROVAL: frozenset({_S.SCHEDULED, _S.RUNNING, _S.ABORTED}),
        _S.SCHEDULED: frozenset({_S.RUNNING, _S.ABORTED}),
        _S.RUNNING: frozenset({_S.PAUSED, _S.ROLLING_BACK, _S.COMPLETED, _S.ABORTED}),
        _S.PAUSED: frozenset({_S.RUNNING, _S.ROLLING_BACK, _S.ABORTED}),
        _S.ROLLING_BACK: frozenset({_S.ROLLED_BACK}),
        _S.ROLLED_BACK: frozenset(),
        _S.COMPLETED: frozenset(),
        _S.ABORTED: frozenset(),
    }
)
OVER = frozenset({_S.ROLLED_BACK, _S.COMPLETED, _S.ABORTED})
# While paused, devices that took the version keep it; no other device is offered it.
OFFERING = frozenset({_S.RUNNING, _S.PAUSED})


def may_follow(before: RolloutState, after: RolloutState) -> bool:
    """Say whether the table allows the step."""
    return after in TRANSITIONS[before]
