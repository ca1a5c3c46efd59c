"""How far the numbers may be lifted because devices say that they have seen higher ones. Pure.

A device may lie. What one device says is believed for a little, what two say for much more; beyond
that a person decides (`pilotwave-server restore`). Lifts keep a distance in time (`worker.py`), so
that nobody gets the numbers near their limit (2^53).
"""

from __future__ import annotations

from pilotwave_server.recovery.ahead import Ahead, Numbers

ONE_MAY_LIFT = 16
"""By so much one device may have itself believed: a canary that saw the last change before a
failover."""
TWO_MAY_LIFT = 100_000
"""By so much the second of all devices, or the only one of a fleet."""
MAX_NUMBER = 2**53 - 1
ROOM = 2**52
"""No lift goes beyond it, so that there is always as much room above as below."""


def lift_of(ahead: Ahead) -> Numbers:
    """Return what the numbers should be at least, those here where nothing is to be lifted. Root
    is signed offline: no server can lift it."""
    alone = ahead.enrolled == 1
    seq, _, timestamp, snapshot = (
        _believed(ours, first, first if alone else second)
        for ours, first, second in zip(ahead.here, ahead.highest, ahead.second, strict=True)
    )
    lifts = ahead.stray or seq > ahead.here.seq
    # one more: at an equal number two sets would be a fork
    seq = seq + 1 if lifts else ahead.here.seq
    return Numbers(seq, ahead.here.root, *_past(ahead.here, timestamp, snapshot))


def _past(here: Numbers, timestamp: int, snapshot: int) -> tuple[int, int]:
    """The next versions after what is believed; a newer snapshot needs a newer timestamp."""
    if snapshot <= here.snapshot and timestamp <= here.timestamp:
        return here.timestamp, here.snapshot
    return timestamp + 1, snapshot + 1


def _believed(here: int, first: int, second: int) -> int:
    base = second if here < second <= min(here + TWO_MAY_LIFT, ROOM) else here
    return first if base < first <= min(base + ONE_MAY_LIFT, ROOM) else base
