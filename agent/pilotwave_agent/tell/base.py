"""What every way to tell an application offers: stage, activate, confirm, roll back.

Each may be repeated after a crash at any point in it. A "no" is a `RefusedError`: `APP_REFUSED`
where the application answered with one, `APP_SILENT` where it did not answer in time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.states import Reason


@dataclass(frozen=True)
class Release:
    """A version that is to be served. `number` rises with each switch and is never used again,
    `path` is the folder of its files, `keep` are the numbers of other versions still of use."""

    model: str
    version: str
    variant: str
    number: int
    path: Path
    entrypoint: str
    state: str
    keep: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The version folder's name, by which applications speak of it."""
        return self.path.name


class Teller(Protocol):
    """One way to tell. Its deadline is `within_s` seconds."""

    within_s: float

    def stage(self, release: Release) -> None:
        """Put the files where the application will look; it does not look yet. May raise
        `OSError`."""

    def activate(self, release: Release) -> None:
        """Tell it, now that `current` names the version."""

    def confirm(self, release: Release, since: float) -> bool:
        """Say whether it has taken the version, which it could hear of from `since` (uptime)
        on; False: not yet."""

    def rollback(self, bad: Release | None, good: Release) -> None:
        """Tell it that `current` names `good` again instead of `bad`."""

    def remove(self, release: Release) -> None:
        """Tell it that the model goes; links and files follow. May raise `OSError`."""


def refused(sentence: str) -> RefusedError:
    """Return the "no" of an application that said so."""
    return RefusedError(Reason.APP_REFUSED, sentence)


def silent(sentence: str) -> RefusedError:
    """Return the "no" of an application that said nothing in time."""
    return RefusedError(Reason.APP_SILENT, sentence)


class Quiet:
    """What a way to tell need not do, as nothing."""

    def stage(self, release: Release) -> None:
        """Nothing is staged: the application reads the version's own folder."""

    def confirm(self, release: Release, since: float) -> bool:
        """What was told has been acknowledged by then."""
        return True

    def remove(self, release: Release) -> None:
        """The application sees that the link is gone, or serves on what it has loaded."""
