"""What can go wrong on the command line, and the exit status that says so.

CliError (2: how it was called or set up)
└── Failed (1: the server or a file said no)
"""

from __future__ import annotations

from typing import Any

from pilotwave_protocol.errors import PilotwaveError


class CliError(PilotwaveError):
    """The command was called or set up wrongly; the sentence says what to do."""

    code = "usage"
    exit_status = 2


class Failed(CliError):
    """The command could not be carried out."""

    code = "failed"
    exit_status = 1


class ApiError(Failed):
    """The server's "no" (problem+json): `status`, its `problem` code and its members."""

    def __init__(self, status: int, problem: str, detail: str, members: dict[str, Any]) -> None:
        super().__init__(detail)
        self.status = status
        self.problem = problem
        self.members = members


class NoAnswer(Failed):
    """The server cannot be reached, or the connection broke."""
