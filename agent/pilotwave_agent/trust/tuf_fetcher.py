"""Fetch small signed files over HTTP, and give up on a server that misbehaves.

TUF's client is handed this instead of its own fetcher, which follows redirects, obeys proxies from
the environment unasked, inflates what it is sent and has no total deadline. Only status 200 counts,
and bytes are counted as they came. Whether the bytes are the right ones is decided by TUF.

What never changes may come from a mirror: all that carries its version or digest in its name, but
no root and no timestamp. So a mirror cannot hold back that there is something newer; and where what
it gave is refused, it is left alone and the server asked (`honest`).
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

import urllib3
from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    RepositoryError,
    SlowRetrievalError,
)
from tuf.ngclient.fetcher import FetcherInterface

from pilotwave_agent.net.deadline import timed_pool
from pilotwave_agent.net.http import LEAST_IDLE_S, MAX_IDLE_S
from pilotwave_agent.net.mirrors import Mirrors
from pilotwave_agent.settings.proxies import DIRECT, Proxies, Proxy
from pilotwave_protocol.errors import RefusedError

GAP_S = 10.0
DEADLINE_S = 60.0
MAX_BYTES = 8 << 20
_CHUNK = 1 << 16
_UNCHANGING = re.compile(
    r"/tuf/metadata/\d+\.(?!root\.)[a-z0-9._-]+\.json|/tuf/targets/[a-z0-9._/-]*[0-9a-f]{64}\.[^/]+",
    re.ASCII,
)
_T = TypeVar("_T")


class Fetcher(FetcherInterface):
    """A TUF fetcher over a pool with deadlines.

    `gap_s` bounds the wait for the next byte, `deadline_s` one whole answer, `max_bytes` its size
    (TUF has its own limits; this one holds even where signed metadata names a larger length).
    `mirrors` are asked first for what is below `server` and never changes.
    Keeps connections open between calls; not safe for threads.
    """

    def __init__(
        self,
        *,
        gap_s: float = GAP_S,
        deadline_s: float = DEADLINE_S,
        max_bytes: int = MAX_BYTES,
        ca_file: str | None = None,
        server: str = "",
        mirrors: Mirrors | None = None,
        proxies: Proxies = DIRECT,
    ) -> None:
        self._given: dict[str, Any] = {"gap_s": gap_s, "deadline_s": deadline_s, "ca_file": ca_file}
        self._proxies = proxies
        self._pools: dict[Proxy | None, urllib3.PoolManager] = {}
        self._answered: dict[str, float] = {}  # by host, when it last answered
        self._max_bytes = max_bytes
        self._server, self._mirrors = server, mirrors
        self._used: set[str] = set()
        self._without: set[str] = set()  # mirrors that keep no metadata

    def close(self) -> None:
        """Close the connections that are kept open."""
        for pool in self._pools.values():
            pool.clear()

    # not a generator itself: `fetch()` wraps the errors of this call, not those of an iteration
    def _fetch(self, url: str) -> Iterator[bytes]:
        return self._from_mirror(url) or self.stream(url)

    def _from_mirror(self, url: str) -> Iterator[bytes] | None:
        path = url.removeprefix(self._server)
        if self._mirrors is None or path == url or not _UNCHANGING.fullmatch(path):
            return None
        for mirror in self._mirrors.usable():
            if mirror in self._without:
                continue
            try:
                body = self.stream(mirror + path)
            except DownloadHTTPError:
                self._without.add(mirror)
            except DownloadError as e:
                self._mirrors.failed(mirror, str(e))
            else:
                self._used.add(mirror)
                return body
        return None

    def honest(self, do: Callable[[], _T]) -> _T:
        """Return what `do` returns; where it fails and a mirror had a part in it, do it again
        without that mirror. Raises what `do` raises."""
        while True:
            self._used.clear()
            try:
                return do()
            except (RepositoryError, DownloadError, RefusedError) as e:
                if self._mirrors is None or not self._used:
                    raise
                for mirror in self._used:
                    self._mirrors.failed(mirror, str(e))

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """Return a whole body of at most `max_length` bytes, without a file in between."""
        received = bytearray()
        for chunk in self.fetch(url):
            received += chunk
            if len(received) > max_length:
                raise DownloadLengthMismatchError(f"{url}: more than {max_length} bytes")
        return bytes(received)

    def stream(self, url: str, *, headers: Mapping[str, str] | None = None) -> Iterator[bytes]:
        """Return the body of a 200 as it arrives. TUF's own requests carry no extra headers.

        Raises `DownloadError` or one of its kinds, also while the body is read.
        """
        response = self._open(url, headers or {})
        if response.status != 200:
            response.close()
            raise DownloadHTTPError(f"{url}: status {response.status}", response.status)
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            response.close()
            raise DownloadError(f"{url}: expected plain bytes; got encoding {ascii(encoding)[:40]}")
        return self._body(response, url)

    def _open(self, url: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        """Ask; where nothing comes back on a connection that was idle, once more on a fresh one."""
        host = urlsplit(url).netloc
        # where the host has not answered yet, no connection to it can have been idle
        idle_s = time.monotonic() - self._answered.get(host, math.inf)
        pool = self._pool_of(url)
        if idle_s > MAX_IDLE_S:
            pool.clear()
        try:
            response = self._asked(pool, url, headers)
        except DownloadError:
            pool.clear()
            if idle_s < LEAST_IDLE_S:
                raise
            response = self._asked(pool, url, headers)
        self._answered[host] = time.monotonic()
        return response

    def _pool_of(self, url: str) -> urllib3.PoolManager:
        found = urlsplit(url)
        proxy = self._proxies.to(found.scheme, found.hostname or "", found.port)
        if proxy not in self._pools:
            self._pools[proxy] = timed_pool(**self._given, proxy=proxy)
        return self._pools[proxy]

    def _asked(
        self, pool: urllib3.PoolManager, url: str, headers: Mapping[str, str]
    ) -> urllib3.BaseHTTPResponse:
        try:
            return pool.request(
                "GET",
                url,
                headers={
                    "User-Agent": "pilotwave-agent",
                    "Accept-Encoding": "identity",
                    **headers,
                },
                preload_content=False,
                decode_content=False,
                redirect=False,
                retries=False,
            )
        except urllib3.exceptions.NewConnectionError as e:  # is a kind of TimeoutError too
            raise DownloadError(f"{url}: no connection") from e
        except urllib3.exceptions.TimeoutError as e:
            raise SlowRetrievalError(f"{url}: no answer in time") from e
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as e:
            raise DownloadError(f"{url}: {e}") from e

    def _body(self, response: urllib3.BaseHTTPResponse, url: str) -> Iterator[bytes]:
        received, done = 0, False
        try:
            # read1 hands on what has arrived; read(n) and stream(n) would wait for n bytes
            while chunk := response.read1(_CHUNK):
                received += len(chunk)
                if received > self._max_bytes:
                    raise DownloadLengthMismatchError(f"{url}: more than {self._max_bytes} bytes")
                yield chunk
            done = True
        except urllib3.exceptions.TimeoutError as e:
            raise SlowRetrievalError(f"{url}: broke off after {received} bytes: too slow") from e
        except (urllib3.exceptions.HTTPError, OSError) as e:
            raise DownloadError(f"{url}: broke off after {received} bytes") from e
        finally:
            if done:
                response.release_conn()
            else:
                response.close()
