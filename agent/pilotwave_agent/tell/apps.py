"""Tell applications that follow the links themselves (`LiveModel`, or by files or socket): they see
the switch, and say in their heartbeat files whether they took it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pilotwave_agent.apps import heartbeats
from pilotwave_agent.apps.heartbeats import App
from pilotwave_agent.settings.tell import Tell
from pilotwave_agent.tell.base import Quiet, Release, refused

_ROUNDED_S = 0.02  # applications tell the time in hundredths of a second


class Apps(Quiet):
    """Wait until each application that lives, and at least so many, serves the version."""

    def __init__(self, tell: Tell, live: Path, users: Collection[int] | None = None) -> None:
        """`users` may speak for the model; None: anyone who can write there."""
        self.within_s, self._least, self._live = tell.timeout_s, tell.apps, live
        self._users = users

    def activate(self, release: Release) -> None:
        """The link is the message."""

    def confirm(self, release: Release, since: float) -> bool:
        """One that refused is an end; one that lives and serves another version is not yet."""
        found = heartbeats.read(self._live / release.model, self._users)
        living = [app for app in found if app.lives()]
        for app in living:
            no = app.refused
            if no and no.name == release.name and no.at >= since - _ROUNDED_S:
                raise refused(f"{app.app} (process {app.pid or '?'}) refused it: {no.sentence}")
        return len(living) >= self._least and all(_takes(app, release) for app in living)

    def rollback(self, bad: Release | None, good: Release) -> None:
        """The link is the message."""


def _takes(app: App, release: Release) -> bool:
    return app.serving == release.name
