"""Make the signed directive of a device."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol

from pilotwave_protocol.messages.directive import DIRECTIVE_TYPE, Directive
from pilotwave_server.fleet.records import DeviceRecord, Order


class Director(Protocol):
    """Whoever holds the director key (`registry.trust.TrustStore`)."""

    def sign_directive(self, payload_type: str, payload: bytes) -> bytes:
        """Return the envelope over a directive's payload. Raises `Unavailable` without a key."""
        ...


def make_directive(
    record: DeviceRecord,
    order: Order,
    *,
    fleet: str,
    fleet_revision: int,
    min_snapshot: int,
    now: datetime,
    lifetime_s: int,
    director: Director,
) -> bytes:
    """Return the envelope that tells the device of `record` to run `order`."""
    directive = Directive(
        fleet=fleet,
        device=record.name,
        seq=max(fleet_revision, record.revision),
        issued=now,
        expires=now + timedelta(seconds=lifetime_s),
        min_snapshot=min_snapshot,
        entries=order.entries,
        remove=order.remove,
    )
    return director.sign_directive(DIRECTIVE_TYPE, directive.to_bytes())
