"""Say up to which row everything is there that will ever be there.

Rows get their numbers when they are written and show when their transaction commits, so on
PostgreSQL number 5 may show after number 6: whoever then stands at 6 would never see 5. A place is
settled once every transaction is over that ran when it was already visible. SQLite has one writer
at a time, and rows show in order.
"""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.orm import Session

from pilotwave_server.db import Database
from pilotwave_server.events.feed import START, Cursor, newest

RUNNING = text(
    "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint,"
    " pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
)


class Settled:
    """`look` is called every now and then by one thread; `place` may be read by any.

    `known` is False until a first place is settled, which takes a few looks.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._visible = START
        self._fence: tuple[Cursor, int] | None = None
        self.place = START
        self.known = False

    def look(self) -> Cursor:
        """Look at the tables and return the settled place, which never goes back."""
        with self._db.read() as session:
            if self._db.is_sqlite:
                self._advance(newest(session))
            else:
                self._look_past_transactions(session)
        return self.place

    def _look_past_transactions(self, session: Session) -> None:
        oldest, next_one = session.execute(RUNNING).one()
        if self._fence is not None and oldest >= self._fence[1]:
            self._advance(self._fence[0])
            self._fence = None
        if self._fence is None:
            # what was visible at the look before: a number is drawn a moment before its
            # transaction has one of its own
            self._fence = self._visible, next_one
        self._visible = newest(session)

    def _advance(self, place: Cursor) -> None:
        self.place = self.place.furthest(place)
        self.known = True
