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

from pilotwave_agent.net.http import TimedReader
from pilotwave_agent.settings.proxies import Proxy


def _response_class(gap_s: float, deadline_s: float) -> type[http.client.HTTPResponse]:
    class TimedResponse(http.client.HTTPResponse):
        def __init__(self, sock: socket.socket, *args: Any, **kw: Any) -> None:
            super().__init__(sock, *args, **kw)
            self.fp.close()
            ends = time.monotonic() + deadline_s
            self.fp = io.BufferedReader(TimedReader(sock, gap_s, ends))

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
