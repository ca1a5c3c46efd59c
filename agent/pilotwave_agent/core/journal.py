"""Keep the journal: a file of checksummed JSON lines, appended and fsynced one by one.

A line is eight hex digits of CRC-32, a space, the record, a newline. A power cut can tear the last
line only; it is cut off before the next one is written. A line damaged in the middle is passed over
and counted, since the facts after it still hold. When the file has grown, it is replaced at one
stroke by one line that holds the state. What records mean is in `records`.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pilotwave_agent.core.records import Record, apply, snapshot
from pilotwave_agent.core.state import DeviceState
from pilotwave_agent.host.disk import Disk
from pilotwave_protocol import strictjson

COMPACT_BYTES = 64 << 10


def read_state(path: Path) -> DeviceState:
    """Return the state without changing anything; no journal yet is an empty state."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return DeviceState()
    state, _, _ = _replay(raw)
    return state


def line_of(record: Record) -> bytes:
    """Write one line."""
    body = strictjson.dumps(record)
    return b"%08x %b\n" % (zlib.crc32(body), body)


def _replay(raw: bytes) -> tuple[DeviceState, int, int]:
    """Return (state, bytes up to the last whole line, damaged lines before it)."""
    state, whole, damaged = DeviceState(), 0, 0
    pending = 0  # damaged lines are a torn tail unless a good one follows
    for line, end in _lines(raw):
        record = _parse(line)
        if record is None:
            pending += 1
            continue
        try:
            state = apply(state, record)
        except (KeyError, TypeError, ValueError):
            pending += 1
            continue
        whole, damaged, pending = end, damaged + pending, 0
    return state, whole, damaged


def _lines(raw: bytes) -> Iterator[tuple[bytes, int]]:
    start = 0
    while (end := raw.find(b"\n", start)) >= 0:
        yield raw[start:end], end + 1
        start = end + 1


def _parse(line: bytes) -> Any:
    body = line[9:]
    if line[:9] != b"%08x " % zlib.crc32(body):
        return None
    return json.loads(body)


class Journal:
    """The journal of the one process that holds the work lock."""

    def __init__(self, disk: Disk, path: Path) -> None:
        """Read the journal and make its end fit to append to. May raise `OSError`."""
        self._disk = disk
        self._path = path
        disk.make_dirs(path.parent)
        raw = disk.read(path) if disk.size(path) is not None else b""
        if raw:
            disk.sync_file(path)  # what is acted upon now may be a killed process's last write
        self.state, whole, self.damaged = _replay(raw)
        """The state after every record so far."""
        self._size = whole
        if whole < len(raw):
            disk.truncate(path, whole)
        if not raw:
            disk.append(path, b"")
            disk.sync_dir(path.parent)
        self._limit = COMPACT_BYTES
        if self.damaged or self._size > self._limit:
            self._try_compact()

    def append(self, record: Record) -> DeviceState:
        """Put a record on disk, fold it, and return the state after it."""
        state = apply(self.state, record)  # a record that cannot be folded is never written
        line = line_of(record)
        try:
            self._disk.append(self._path, line)
        except OSError:
            self._cut_back()
            raise
        self._size += len(line)
        self.state = state
        if self._size > self._limit:
            self._try_compact()
        return self.state

    def compact(self) -> None:
        """Replace the file by one line that holds the state."""
        line = line_of(snapshot(self.state))
        self._disk.write_atomic(self._path, line)
        self._size = len(line)
        self._limit = max(COMPACT_BYTES, 2 * len(line))

    def _try_compact(self) -> None:
        """Compaction only saves space: where it cannot be had, the longer file serves as well."""
        try:
            self.compact()
        except OSError:
            self._limit *= 2

    def _cut_back(self) -> None:
        """After a failed append (a full disk), leave no half line under the next one."""
        size = self._disk.size(self._path)
        if size is not None and size > self._size:
            self._disk.truncate(self._path, self._size)
