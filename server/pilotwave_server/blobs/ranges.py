"""Which part of a blob a request asks for (RFC 9110, sections 13 and 14). Pure.

One range is served. Several at once, another unit or a malformed header count as no range at all,
which the standard allows and every client copes with.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_ONE_RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", re.ASCII)


class Part(NamedTuple):
    """What to answer: status 200, 206, 304 or 416, and the bytes from `start` up to `stop`."""

    status: int
    start: int
    stop: int


def choose_part(
    *, size: int, etag: str, range_: str | None, if_range: str | None, if_none_match: str | None
) -> Part:
    """Decide on an answer for an unchanging body of `size` bytes with the strong tag `etag`."""
    if if_none_match is not None and _matches(if_none_match, etag):
        return Part(304, 0, 0)
    found = _ONE_RANGE.fullmatch(range_) if range_ is not None else None
    # Anything but the very tag (a weak one, a date) means that the client may hold other bytes.
    if found is None or (if_range is not None and if_range.strip() != etag):
        return Part(200, 0, size)
    first, last = found.groups()
    if not first and not last:
        return Part(200, 0, size)
    if not first:
        start, stop = max(size - int(last), 0), size
    else:
        start, stop = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return Part(200, 0, size)
    return Part(206, start, stop) if start < size and start < stop else Part(416, 0, 0)


def _matches(header: str, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return "*" in tags or etag in tags
