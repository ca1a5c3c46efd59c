"""HTTP connections that end on time: every answer, its headers included, has one total deadline.

A read timeout alone measures the gap between two bytes, so a server that drips one byte now and
then holds a client for ever, in the headers as much as in the body. Here each single receive waits
for the shorter of the gap and what is left of the deadline. What is asked, and what the answer
means, is the caller's.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from pilotwave_agent.settings.proxies import Proxy


class _DeadlineReader(io.RawIOBase):
    """Read a socket's stream, never longer than `gap_s` at a time nor past `ends` in total."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, gap_s: float, ends: float) -> None:
        self._raw, self._sock, self._gap_s, self._ends = raw, sock, gap_s, ends

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer took longer than its deadline")
        self._sock.settimeout(min(left, self._gap_s))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _response_class(gap_s: float, deadline_s: float) -> type[http.client.HTTPResponse]:
    class TimedResponse(http.client.HTTPResponse):
        def __init__(self, sock: socket.socket, *args: Any, **kw: Any) -> None:
            super().__init__(sock, *args, **kw)
            self.fp.close()
            raw = sock.makefile("rb", buffering=0)
            ends = time.monotonic() + deadline_s
            self.fp = io.BufferedReader(_DeadlineReader(raw, sock, gap_s, ends))

    return TimedResponse


def timed_pool(
    *,
    gap_s: float,
    deadline_s: float,
    ca_file: str | None = None,
    proxy: Proxy | None = None,
) -> urllib3.PoolManager:
    """Make a pool whose answers end after `deadline_s` seconds, or `gap_s` without a byte.

    It knows no proxy but the one given, and `ca_file` (PEM) replaces the system's roots.
    """
    response_class = _response_class(gap_s, deadline_s)
    plain = type("TimedHTTP", (HTTPConnection,), {"response_class": response_class})
    tls = type("TimedHTTPS", (HTTPSConnection,), {"response_class": response_class})
    given: dict[str, Any] = {
        "timeout": urllib3.Timeout(connect=gap_s, read=gap_s),
        "ca_certs": ca_file,
        "maxsize": 2,
    }
    pool = urllib3.PoolManager(**given)
    if proxy:
        pool = urllib3.ProxyManager(proxy.url, proxy_headers=proxy.headers, **given)
    pool.pool_classes_by_scheme = {
        "http": type("TimedHTTPPool", (HTTPConnectionPool,), {"ConnectionCls": plain}),
        "https": type("TimedHTTPSPool", (HTTPSConnectionPool,), {"ConnectionCls": tls}),
    }
    return pool
