"""Note in the audit log when a device begins to refuse its orders, and when it takes them again.

Webhooks and the stream read that log. What stays the same from report to report is noted once.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from pilotwave_protocol.messages.check_in import CheckIn
from pilotwave_server.audit.service import record

Refusal = Mapping[str, Any] | None


def has_turned(before: Refusal, check_in: CheckIn) -> bool:
    """Say whether the device refuses since this report, or does not any more."""
    return (before is None) != (check_in.refusal is None)


def note(session: Session, check_in: CheckIn, before: Refusal, *, now: datetime) -> None:
    """Say so in the caller's transaction."""
    device, after = f"device/{check_in.device}", check_in.refusal
    verb = "device.refusing_end" if after is None else "device.refusing"
    record(session, actor=device, verb=verb, object=device, now=now, before=before, after=after)


def since(before: Any, check_in: CheckIn, *, now: datetime) -> datetime | None:
    """Since when a device refuses its orders for the reason that it gives; `before` has its
    `refusal` and `refused_since`."""
    if check_in.refusal is None:
        return None
    same = before.refusal is not None and before.refusal.get("reason") == check_in.refusal["reason"]
    return before.refused_since if same and before.refused_since is not None else now
