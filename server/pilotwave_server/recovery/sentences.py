"""Tell people and Prometheus which devices are ahead of this server."""

from __future__ import annotations

from typing import Any

from prometheus_client.core import GaugeMetricFamily
from pydantic import Field
from sqlalchemy.orm import Session

from pilotwave_server.db import Database
from pilotwave_server.fields import ApiReply
from pilotwave_server.recovery.ahead import Ahead, look


class RoleBehind(ApiReply):
    role: str = Field(description="A role that devices know a later document of.")
    seen: int = Field(description="The version that they say they know.")
    here: int = Field(description="The version that is valid here.")


class AheadView(ApiReply):
    """Devices that have seen more than this server's database holds."""

    sentence: str = Field(description="Which devices, and what they have seen.")
    devices: int = Field(description="How many there are.")
    names: list[str] = Field(description="The first of them.")
    directive_seq: int = Field(description="The highest number of a directive that one reports.")
    tuf: dict[str, int] = Field(description="The highest TUF versions that one reports.")


def view(ahead: Ahead) -> AheadView | None:
    """What /status says, None where nobody is ahead."""
    if not ahead.devices:
        return None
    seq, root, timestamp, snapshot = ahead.highest
    return AheadView(
        sentence=ahead.sentence,
        devices=ahead.devices,
        names=list(ahead.names),
        directive_seq=seq,
        tuf={"root": root, "timestamp": timestamp, "snapshot": snapshot},
    )


def roles_behind(found: dict[str, tuple[int, int]]) -> list[RoleBehind]:
    """The roles that devices say went back."""
    return [RoleBehind(role=role, seen=seen, here=here) for role, (seen, here) in found.items()]


def sentences(session: Session, roles: dict[str, tuple[int, int]]) -> list[str]:
    """What a person must know and do, a sentence each."""
    ahead = look(session)
    said = [ahead.sentence + ": run `pilotwave-server restore --data FOLDER` if it was restored"]
    lines = said if ahead.devices else []
    return lines + [
        f"{role}: devices know document {seen}, here it is {here}: sign past it (`pilotwave renew "
        f"--role {role} --past {seen}`), or `pilotwave keys rotate online`"
        for role, (seen, here) in roles.items()
    ]


def read_ahead(db: Database) -> list[GaugeMetricFamily]:
    """Devices that are ahead, for the metrics."""
    family: Any = GaugeMetricFamily(
        "pilotwave_devices_ahead",
        "Devices that have seen more than this server's database holds: was it restored?",
    )
    with db.read() as session:
        family.add_metric([], look(session).devices)
    return [family]
