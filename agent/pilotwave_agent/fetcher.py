"""Fetch small signed files over HTTP, and give up on a server that misbehaves.

TUF's client is handed this instead of its own fetcher, which follows redirects, obeys proxies from
the environment, inflates what it is sent and has no total deadline. Only status 200 counts, and
bytes are counted as they came. Whether the bytes are the right ones is decided by TUF.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import urllib3
from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    SlowRetrievalError,
)
from tuf.ngclient.fetcher import FetcherInterface

from pilotwave_agent.deadline import timed_pool

GAP_S = 10.0
DEADLINE_S = 60.0
MAX_BYTES = 8 << 20
_CHUNK = 1 << 16


class Fetcher(FetcherInterface):
    """A TUF fetcher over a pool with deadlines.

    `gap_s` bounds the wait for the next byte, `deadline_s` one whole answer, `max_bytes` its size
    (TUF has its own limits; this one holds even where signed metadata names a larger length).
    Keeps connections open between calls; not safe for threads.
    """

    def __init__(
        self,
        *,
        gap_s: float = GAP_S,
        deadline_s: float = DEADLINE_S,
        max_bytes: int = MAX_BYTES,
        ca_file: str | None = None,
    ) -> None:
        self._pool = timed_pool(gap_s=gap_s, deadline_s=deadline_s, ca_file=ca_file)
        self._max_bytes = max_bytes

    def close(self) -> None:
        """Close the connections that are kept open."""
        self._pool.clear()

    # not a generator itself: `fetch()` wraps the errors of this call, not those of an iteration
    def _fetch(self, url: str) -> Iterator[bytes]:
        return self.stream(url)

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
        try:
            return self._pool.request(
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
