"""Tell by a program: one of the operator's own, or systemd's `systemctl`."""

from __future__ import annotations

from pilotwave_agent.health import Subject, run_program
from pilotwave_agent.settings.tell import Tell
from pilotwave_agent.tell.base import Quiet, Release, refused, silent
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.states import Reason


class Exec(Quiet):
    """Run a command; status 0 is its acknowledgement."""

    def __init__(self, tell: Tell) -> None:
        self.within_s, self._command = tell.timeout_s, tell.command

    def activate(self, release: Release) -> None:
        """Run it with PILOTWAVE_STATE=probation."""
        run(self._command, release, self.within_s)

    def rollback(self, bad: Release | None, good: Release) -> None:
        """Run it with PILOTWAVE_STATE=rolled_back."""
        run(self._command, good, self.within_s)

    def remove(self, release: Release) -> None:
        """Run it with PILOTWAVE_STATE=removed."""
        run(self._command, release, self.within_s)


class Systemd(Quiet):
    """Reload or restart a unit, then see that it is active."""

    def __init__(self, tell: Tell) -> None:
        self.within_s, self._unit, self._action = tell.timeout_s, tell.unit, tell.action

    def activate(self, release: Release) -> None:
        """`systemctl reload-or-restart UNIT`, which waits for the unit's own word."""
        run(("systemctl", self._action, "--", self._unit), release, self.within_s)

    def confirm(self, release: Release, since: float) -> bool:
        """`systemctl is-failed` ends it at once, `is-active` is the acknowledgement."""
        if _says_yes(("systemctl", "is-failed", "--quiet", "--", self._unit), release):
            raise refused(f"{self._unit} failed after {self._action}")
        return _says_yes(("systemctl", "is-active", "--quiet", "--", self._unit), release)

    def rollback(self, bad: Release | None, good: Release) -> None:
        """Do the same once more: the links are what they were."""
        self.activate(good)


def _says_yes(command: tuple[str, ...], release: Release) -> bool:
    try:
        run(command, release, 10.0)
    except RefusedError:
        return False
    return True


def run(command: tuple[str, ...], release: Release, timeout_s: float) -> None:
    """Run a program that knows the release by its environment."""
    subject = Subject(
        release.model, release.version, release.path, release.state, number=release.number
    )
    try:
        run_program(command, subject, timeout_s=timeout_s)
    except RefusedError as no:
        late = no.reason is Reason.PROBE_TIMEOUT
        raise (silent if late else refused)(no.sentence) from no
