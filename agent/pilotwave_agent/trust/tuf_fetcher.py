"""Fetch small signed files over the device's own connection to the server.

TUF's client is handed this instead of its own fetcher, which follows redirects, obeys proxies from
the environment unasked, inflates what it is sent and has no total deadline. It is given paths in
place of URLs. Only status 200 counts. Whether the bytes are the right ones is decided by TUF.

What never changes may come from a mirror: all that carries its version or digest in its name, but
no root and no timestamp. So a mirror cannot hold back that there is something newer; and where what
it gave is refused, it is left alone and the server asked (`honest`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    RepositoryError,
    SlowRetrievalError,
)
from tuf.ngclient.fetcher import FetcherInterface

from pilotwave_agent.net.http import MAX_BODY, BadAnswer, Channel, TooLong, TooSlow, Unreachable
from pilotwave_agent.net.mirrors import Mirrors
from pilotwave_protocol.errors import RefusedError

DEADLINE_S = 60.0
MAX_BYTES = 8 << 20
"""What is read at most, even where signed metadata names a larger length."""
_PLAIN = {"Accept-Encoding": "identity"}
_UNCHANGING = re.compile(
    r"/tuf/metadata/\d+\.(?!root\.)[a-z0-9._-]+\.json|/tuf/targets/[a-z0-9._/-]*[0-9a-f]{64}\.[^/]+",
    re.ASCII,
)
_T = TypeVar("_T")


class Fetcher(FetcherInterface):
    """A TUF fetcher over one channel; `mirrors` are asked first for what never changes.

    `deadline_s` bounds one whole answer. Not safe for threads.
    """

    def __init__(
        self,
        channel: Channel,
        mirrors: Mirrors | None = None,
        *,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._channel, self._deadline_s = channel, deadline_s
        self._mirrors = mirrors or Mirrors()
        self._used: set[str] = set()
        self._without: set[str] = set()  # mirrors that keep no metadata

    def _fetch(self, url: str) -> Iterator[bytes]:
        yield self.download_bytes(url, MAX_BYTES)

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """Return the whole body of at most `max_length` bytes that the path `url` has.

        Raises `DownloadError` or one of its kinds.
        """
        most = min(max_length, MAX_BYTES)
        body = self._from_mirror(url, most) if _UNCHANGING.fullmatch(url) else None
        return self._asked(self._channel, url, most) if body is None else body

    def _from_mirror(self, path: str, most: int) -> bytes | None:
        for mirror in self._mirrors.usable():
            if mirror in self._without:
                continue
            try:
                body = self._asked(self._mirrors.channel(mirror), path, most)
            except DownloadHTTPError:
                self._without.add(mirror)
            except DownloadError as e:
                self._mirrors.failed(mirror, str(e))
            else:
                self._used.add(mirror)
                return body
        return None

    def _asked(self, channel: Channel, path: str, most: int) -> bytes:
        given: Any = {"headers": _PLAIN, "deadline_s": self._deadline_s}
        try:
            # the words of a refusal may be longer than what was asked for
            answer = channel.request("GET", path, **given, max_body=max(most, MAX_BODY))
        except TooSlow as e:
            raise SlowRetrievalError(f"{path}: {e}") from e
        except TooLong as e:
            raise DownloadLengthMismatchError(str(e)) from e
        except (Unreachable, BadAnswer) as e:
            raise DownloadError(f"{path}: {e}") from e
        if answer.status != 200:
            raise DownloadHTTPError(f"{path}: status {answer.status}", answer.status)
        if len(answer.body) > most:
            raise DownloadLengthMismatchError(f"{path}: more than {most} bytes")
        return answer.body

    def honest(self, do: Callable[[], _T]) -> _T:
        """Return what `do` returns; where it fails and a mirror had a part in it, do it again
        without that mirror. Raises what `do` raises."""
        while True:
            self._used.clear()
            try:
                return do()
            except (RepositoryError, DownloadError, RefusedError) as e:
                if not self._used:
                    raise
                for mirror in self._used:
                    self._mirrors.failed(mirror, str(e))
