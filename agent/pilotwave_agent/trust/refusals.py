"""Turn what TUF, the network and the disk raise into a "no" with a reason and a sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from tuf.api import exceptions as tuf

from pilotwave_agent.host.disk import refusal_of
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.states import Reason

# TUF has one exception for a version that falls and for one that is not the promised one.
_NOT_AS_PROMISED = re.compile(r"Expected (?:root version|snapshot version|.+ v\d+, got v)")
_VANISHED = "missing info for"


@contextmanager
def refusals(mismatch: Reason = Reason.METADATA_MISMATCH) -> Iterator[None]:
    """Raise `RefusedError` for everything that TUF, the network or the disk raise inside.

    `mismatch` is the reason for a wrong length or digest: it differs for metadata and for targets.
    """
    try:
        yield
    except (tuf.RepositoryError, tuf.DownloadError) as e:
        raise RefusedError(_reason(e, mismatch), _sentence(e)) from e
    except OSError as e:
        raise refusal_of(e) from e


def _reason(e: Exception, mismatch: Reason) -> Reason:
    match e:
        case tuf.ExpiredMetadataError():
            return Reason.METADATA_EXPIRED
        case tuf.UnsignedMetadataError():
            return Reason.METADATA_UNSIGNED
        case tuf.BadVersionNumberError():
            promised = _NOT_AS_PROMISED.match(str(e))
            return Reason.METADATA_MISMATCH if promised else Reason.METADATA_ROLLBACK
        case tuf.LengthOrHashMismatchError():
            return mismatch
        case tuf.RepositoryError():
            vanished = _VANISHED in str(e)
            return Reason.METADATA_ROLLBACK if vanished else Reason.METADATA_INVALID
        case tuf.SlowRetrievalError():
            return Reason.SLOW_RETRIEVAL
        case tuf.DownloadLengthMismatchError():
            return Reason.ENDLESS_DATA
        case _:
            return Reason.METADATA_UNAVAILABLE


def _sentence(e: Exception) -> str:
    """Keep a hostile server's words short and printable."""
    return ascii(str(e))[1:-1][:300] or type(e).__name__
