"""What operators allow a site. A site is the value of the label `site`; a device without that label
has no site, and no limit but the server's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from pilotwave_server.audit.service import record
from pilotwave_server.downloads.tables import SiteLimitRow
from pilotwave_server.paging import PageRequest, paginate

LABEL = "site"


@dataclass(frozen=True)
class SiteLimit:
    """What a site may take: rates in kilobits per second, None: no limit."""

    max_rate_kbps: int | None = None
    max_device_rate_kbps: int | None = None
    max_downloads: int | None = None


def read_limits(session: Session) -> dict[str, SiteLimit]:
    """All limits, by site."""
    s = SiteLimitRow
    rows = session.execute(select(s.site, s.max_rate_kbps, s.max_device_rate_kbps, s.max_downloads))
    return {site: SiteLimit(*found) for site, *found in rows.tuples()}


def list_limits(
    session: Session, *, page: PageRequest
) -> tuple[Sequence[SiteLimitRow], str | None]:
    """By site."""
    return paginate(session, select(SiteLimitRow), keys=[SiteLimitRow.site], page=page)


def set_limit(
    session: Session, *, site: str, limit: SiteLimit, actor: str, now: datetime
) -> SiteLimitRow | None:
    """Replace what a site may take; a limit of nothing is taken away, and None returned."""
    row = session.get(SiteLimitRow, site, with_for_update=True)
    before = None if row is None else asdict(_limit_of(row))
    if limit == SiteLimit():
        if row is not None:
            session.delete(row)
        row = None
    else:
        row = row or SiteLimitRow(site=site)
        session.add(row)
        for name, value in asdict(limit).items():
            setattr(row, name, value)
        row.set_by, row.set_at = actor, now
    after = None if row is None else asdict(limit)
    if before != after:
        said = {"verb": "site.limit", "object": f"site/{site}"}
        record(session, actor=actor, now=now, before=before, after=after, **said)
    return row


def _limit_of(row: SiteLimitRow) -> SiteLimit:
    return SiteLimit(row.max_rate_kbps, row.max_device_rate_kbps, row.max_downloads)
