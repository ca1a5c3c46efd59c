"""Count what devices say that they fetched from an object store: the server did not see it.

It is their own word, bounded for each event; each event is counted once, and only for versions that
there are.
"""

from __future__ import annotations

from collections.abc import Sequence

from pilotwave_protocol.direct import FETCHED_DIRECTLY, read_direct
from pilotwave_protocol.messages.check_in import DeviceEvent
from pilotwave_server.downloads.counting import Counting, For
from pilotwave_server.fleet.records import DeviceRecord
from pilotwave_server.fleet.state import FleetState
from pilotwave_server.telemetry.store import Stored, VerifiedCheckIn


def count_direct(
    fleet: FleetState,
    counting: Counting,
    items: Sequence[VerifiedCheckIn],
    stored: Sequence[Stored],
) -> None:
    """Add them to the bytes of the version, as if this server had sent them."""
    for item, one in zip(items, stored, strict=True):
        for event in one.events:
            came = read_direct(event.detail) if event.kind == FETCHED_DIRECTLY else 0
            if came and (event.model, event.version) in fleet.snapshot.versions:
                record = fleet.records.get(item.check_in.device)
                counting.add(_key(item.device_id, event, record), full=came)


def _key(device_id: int, event: DeviceEvent, record: DeviceRecord | None) -> For:
    """For what: the device's order says, if it has the version still."""
    model, version = event.model or "", event.version or ""
    entries = record.order.entries if record and record.order else ()
    found = next((e for e in entries if (e.model, e.version) == (model, version)), None)
    return For(
        device_id,
        model,
        version,
        found.variant if found else "",
        (found.rollout or "") if found else "",
        record.site if record else "",
    )
