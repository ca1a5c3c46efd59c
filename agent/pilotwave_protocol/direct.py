"""The event by which a device says what it fetched from an object store: bytes that no server sent.

`kind` is `fetched_direct`; `detail` is their number, as `25165824 bytes`.
"""

from __future__ import annotations

import re

FETCHED_DIRECTLY = "fetched_direct"
MOST = 1 << 36
"""No event counts for more, so that a device that lies cannot make a sum overflow."""
_DETAIL = re.compile(r"(\d{1,15}) bytes", re.ASCII)


def direct_detail(came: int) -> str:
    """What the event says."""
    return f"{came} bytes"


def read_direct(detail: str | None) -> int:
    """How many bytes an event speaks of, at most `MOST`; 0 where it says none."""
    found = _DETAIL.fullmatch(detail or "")
    return min(int(found[1]), MOST) if found else 0
