"""The numbers of updates as the database has them, some of them in memory at a time."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

from pilotwave_server.db import Database
from pilotwave_server.learning.masked.tables import GroupRow
from pilotwave_server.learning.tables import UpdateRow

BLOCK_BYTES = 4 << 20


class UpdatesGone(Exception):
    """Another process has ended the round meanwhile, or a device was removed from the fleet."""


class StoredNumbers(Sequence[bytes]):
    """The numbers of the updates (or sums of groups) with these row numbers, in this order, `size`
    bytes each.

    They are read in blocks, each in a session of its own; so go through them in order.
    """

    def __init__(
        self,
        db: Database,
        ids: Sequence[int],
        size: int,
        table: type[UpdateRow] | type[GroupRow] = UpdateRow,
    ) -> None:
        self._db, self._ids, self._table = db, ids, table
        self._at_once = max(1, BLOCK_BYTES // size)
        self._start, self._block = 0, list[bytes]()

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, place: int) -> bytes:  # type: ignore[override]  # one at a time
        if not 0 <= place - self._start < len(self._block):
            self._start = place - place % self._at_once
            self._block = self._read(self._ids[self._start : self._start + self._at_once])
        return self._block[place - self._start]

    def _read(self, ids: Sequence[int]) -> list[bytes]:
        u = self._table
        with self._db.read() as session:
            query = select(u.id, u.content).where(u.id.in_(ids))
            found = {id: raw for id, raw in session.execute(query).tuples() if raw is not None}
        if len(found) < len(ids):
            raise UpdatesGone(f"{len(ids) - len(found)} of {len(ids)} updates went meanwhile")
        return [found[id] for id in ids]
