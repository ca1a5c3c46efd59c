"""Keyset paging: a page is a limit and the key after which it starts, so that rows which come or
go between two requests shift nothing.

The cursor is opaque to callers: base64 of the last row's key as JSON. It carries no authority.

Lists that people make row by row (groups, rollouts, tokens …) say how many rows they have. Logs and
lists of devices do not: counting them reads as much as the fleet is large, on each page.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Query
from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, Row, Select, func, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from pilotwave_server.errors import Invalid

T = TypeVar("T")
R = TypeVar("R")
Q = TypeVar("Q", bound=tuple[Any, ...])

DEFAULT_LIMIT = 50
MAX_LIMIT = 500


class BadCursor(Invalid):
    code = "bad_cursor"


class Page(BaseModel, Generic[T]):
    """A page of a list. `next_cursor` fetches the one after it; null on the last."""

    items: list[T] = Field(description="The rows of this page, in order.")
    next_cursor: str | None = Field(
        None, description="Pass as `cursor` for the next page; null: this is the last."
    )


class CountedPage(Page[T], Generic[T]):
    """A page of a list that says how many rows it has."""

    total: int = Field(description="How many rows the list has, on all pages together.")


def count_rows(session: Session, rows: type[Any], *rules: ColumnElement[bool]) -> int:
    """How many rows of a table there are for which all rules hold."""
    return session.scalar(select(func.count()).select_from(rows).where(*rules)) or 0


@dataclass(frozen=True)
class PageRequest:
    limit: int = DEFAULT_LIMIT
    cursor: str | None = None


def page_request(
    limit: Annotated[
        int, Query(ge=1, le=MAX_LIMIT, description="At most so many items.")
    ] = DEFAULT_LIMIT,
    cursor: Annotated[
        str | None, Query(max_length=1024, description="`next_cursor` of the page before.")
    ] = None,
) -> PageRequest:
    return PageRequest(limit, cursor)


Paging = Annotated[PageRequest, Depends(page_request)]


def paginate(
    session: Session,
    query: Select[tuple[R]],
    *,
    keys: Sequence[InstrumentedAttribute[Any]],
    page: PageRequest,
    descending: bool = False,
) -> tuple[list[R], str | None]:
    """One page of `query` ordered by `keys` (unique together), and the next page's cursor."""
    rows = list(session.scalars(_page_of(query, keys, page, descending=descending)))
    return _cut(rows, [key.key for key in keys], page)


def paginate_rows(
    session: Session,
    query: Select[Any],
    *,
    keys: Sequence[InstrumentedAttribute[Any]],
    labels: Sequence[str],
    page: PageRequest,
) -> tuple[list[Row[Any]], str | None]:
    """As `paginate`, for a query of columns; `labels` name those of the keys in its rows."""
    rows = list(session.execute(_page_of(query, keys, page)))
    return _cut(rows, labels, page)


def _page_of(
    query: Select[Q],
    keys: Sequence[InstrumentedAttribute[Any]],
    page: PageRequest,
    *,
    descending: bool = False,
) -> Select[Q]:
    order = [key.desc() if descending else key.asc() for key in keys]
    if page.cursor is not None:
        after = _decode(page.cursor, keys)
        here: ColumnElement[Any] = tuple_(*keys)
        there = tuple_(*after, types=[key.type for key in keys])
        query = query.where(here < there if descending else here > there)
    return query.order_by(*order).limit(page.limit + 1)


def _cut(rows: list[R], names: Sequence[str], page: PageRequest) -> tuple[list[R], str | None]:
    if len(rows) <= page.limit:
        return rows, None
    rows = rows[: page.limit]
    return rows, _encode([getattr(rows[-1], name) for name in names])


EMPTY = "."  # begins a cursor among the rows whose key is empty; no base64 does


def paginate_with_empty(
    session: Session,
    query: Select[tuple[R]],
    *,
    keys: Sequence[InstrumentedAttribute[Any]],
    page: PageRequest,
    descending: bool = False,
) -> tuple[list[R], str | None]:
    """As `paginate` where the first key may be empty: such rows come after all others, by the other
    keys. Two queries, each of which an index on the keys serves."""
    cursor = page.cursor
    rows: list[R] = []
    if cursor is None or not cursor.startswith(EMPTY):
        there = query.where(keys[0].is_not(None))
        rows, after = paginate(session, there, keys=keys, page=page, descending=descending)
        if after is not None:
            return rows, after
        if len(rows) == page.limit:
            return rows, EMPTY
        cursor = EMPTY
    rest = PageRequest(page.limit - len(rows), cursor.removeprefix(EMPTY) or None)
    more, after = paginate(session, query.where(keys[0].is_(None)), keys=keys[1:], page=rest)
    return [*rows, *more], after and EMPTY + after


def _encode(key: list[Any]) -> str:
    raw = json.dumps([v.isoformat() if isinstance(v, datetime) else v for v in key])
    return base64.urlsafe_b64encode(raw.encode()).decode().rstrip("=")


def _decode(cursor: str, keys: Sequence[InstrumentedAttribute[Any]]) -> list[Any]:
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        values = json.loads(raw)
        if not isinstance(values, list) or len(values) != len(keys):
            raise ValueError("wrong number of parts")
        return [_part(v, key.type.python_type) for v, key in zip(values, keys, strict=True)]
    except (ValueError, binascii.Error, RecursionError):
        raise BadCursor("the cursor is not one that this list gave out") from None


def _part(value: Any, kind: type) -> Any:
    if kind is datetime and isinstance(value, str):
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError("a time without a zone")
        return moment
    if type(value) is not kind or kind not in (int, str):
        raise ValueError("wrong type")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError("out of range")
    if isinstance(value, str) and ("\x00" in value or not _is_text(value)):
        raise ValueError("not text")
    return value


def _is_text(value: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in value)
