"""A device's view of what is about to be committed: a real TUF client reads the new rows first.

It starts from root 1, as a device does that has been switched off ever since. Whatever it refuses,
every device would refuse, so the transaction is rolled back.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime

from sqlalchemy.orm import Session
from tuf.api.exceptions import DownloadError, DownloadHTTPError, RepositoryError
from tuf.api.metadata import Root, TargetFile
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from pilotwave_server.errors import Conflict
from pilotwave_server.registry import documents

_NAME = re.compile(r"(?:(\d{1,18})\.)?([a-z0-9._-]+)\.json", re.ASCII)


class CanaryRefused(Conflict):
    """A device would refuse the result, so nothing was changed."""

    code = "canary_refused"


class RowFetcher(FetcherInterface):
    """Serves the rows that a session sees, committed or not, as a TUF repository."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def _fetch(self, url: str) -> Iterator[bytes]:
        found = _NAME.fullmatch(url.rpartition("/")[2])
        if found is None:
            raise DownloadHTTPError(f"{url} is not metadata", 404)
        version, role = found.groups()
        row = documents.find(self._session, role, int(version) if version else None)
        if row is None:
            raise DownloadHTTPError(f"there is no {url}", 404)
        return iter([row.document])


def updater_for(session: Session, folder: str, *, now: datetime) -> Updater:
    """A TUF client of the session's rows, with its cache in `folder` and its clock at `now`."""
    first = documents.find(session, Root.type, 1)
    if first is None:
        raise documents.NotBootstrapped
    updater = Updater(
        folder,
        "rows://metadata/",
        fetcher=RowFetcher(session),
        bootstrap=first.document,
    )
    # python-tuf offers no other way to tell a client the time.
    updater._trusted_set.reference_time = now
    return updater


def check_with_canary(
    session: Session, *, expected: Mapping[str, TargetFile], now: datetime
) -> None:
    """Refresh a client and look up each path; anything but `expected` raises CanaryRefused."""
    try:
        with tempfile.TemporaryDirectory(prefix="pilotwave-canary-") as folder:
            updater = updater_for(session, folder, now=now)
            updater.refresh()
            seen = {path: updater.get_targetinfo(path) for path in expected}
    except (RepositoryError, DownloadError) as error:
        raise CanaryRefused(
            f"a device would refuse the result, so nothing was changed: {error}"
        ) from error
    for path, target in expected.items():
        if seen[path] != target:
            raise CanaryRefused(f"a device would see another {path}, so nothing was changed")
