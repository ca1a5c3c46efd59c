"""What an operator may ask for at all: versions that exist and that nobody took back."""

from __future__ import annotations

from typing import ClassVar

from sqlalchemy.orm import Session

from pilotwave_server.errors import Conflict
from pilotwave_server.registry.service import get_version
from pilotwave_server.rollouts.assignments.resolve import Candidate, may_not_be_offered
from pilotwave_server.rollouts.assignments.snapshot import DeviceView, FleetSnapshot


class VersionNotOffered(Conflict):
    """The version was yanked, denied or quarantined, or is below the floor. `reason` says which."""

    code: ClassVar[str] = "version_not_offered"


def check_may_be_offered(
    session: Session,
    snapshot: FleetSnapshot,
    device: DeviceView,
    *,
    model: str,
    version: str,
) -> None:
    """Return if `version` may be ordered for `device`. ModelUnknown, VersionUnknown,
    VersionNotOffered."""
    get_version(session, model=model, version=version)
    check_not_withheld(snapshot, device, model=model, version=version)


def check_not_withheld(
    snapshot: FleetSnapshot, device: DeviceView, *, model: str, version: str
) -> None:
    """Return if `version`, which there is, may be ordered for `device`. VersionNotOffered."""
    hold = may_not_be_offered(device, snapshot, Candidate("pin", model, version))
    if hold is not None:
        raise VersionNotOffered(hold.sentence, reason=str(hold.reason))
