"""The states of an experiment and the steps between them, and those of its rounds."""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType


class ExperimentState(str, Enum):
    """Where an experiment stands. A paused one asks no device, and takes what still comes."""

    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"

    def __str__(self) -> str:
        return str(self.value)


_S = ExperimentState
_ENDS = frozenset({_S.COMPLETED, _S.FAILED, _S.STOPPED})
TRANSITIONS = MappingProxyType(
    {
        _S.RUNNING: _ENDS | {_S.PAUSED},
        _S.PAUSED: _ENDS | {_S.RUNNING},
        **{state: frozenset[_S]() for state in _ENDS},
    }
)
GOING = (_S.RUNNING.value, _S.PAUSED.value)
CAME_TO_NOTHING = (_S.FAILED.value, _S.STOPPED.value)

# of a round
OPEN, CLOSING, DONE, FAILED = "open", "closing", "done", "failed"
