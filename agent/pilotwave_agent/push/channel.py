"""What the keeper asks of a channel, whichever it is."""

from __future__ import annotations

from typing import Protocol

from pilotwave_protocol.errors import PilotwaveError

PONG_S = 20.0
"""An answer to a ping that takes longer than this does not come any more."""


class Lost(PilotwaveError):
    """The channel cannot be opened, or is dead. `after_s`: the other end asked for that wait;
    `silent`: it was idle, and then a ping was not answered."""

    code = "push_lost"

    def __init__(
        self, words: str, *, after_s: float = 0.0, bad_token: bool = False, silent: bool = False
    ) -> None:
        super().__init__(words)
        self.after_s, self.bad_token, self.silent = after_s, bad_token, silent


class PushChannel(Protocol):
    """An open channel. All times are of the agent's clock, in seconds."""

    @property
    def alive(self) -> bool:
        """Whether a call would come through, as far as can be seen from here."""

    def fileno(self) -> int:
        """Return the descriptor that is readable when something has come."""

    def hear(self, now: float) -> list[bytes]:
        """Take in what has come, and return the calls among it. Raises `Lost`."""

    def tend(self, now: float) -> float:
        """Ping if it is time, and return when to come again. Raises `Lost`."""

    def close(self) -> None:
        """Say goodbye and close it. Never fails."""
