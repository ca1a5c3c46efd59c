"""Reach servers through a forward proxy, where the device's owner says so.

    proxy = "http://proxy.example:3128"     # or "environment": http_proxy, https_proxy, no_proxy
    no_proxy = ["10.0.0.0/8", "gateway.example"]

A proxy is asked to lead to a server (`CONNECT`), with which TLS is then spoken as without it; for a
plain `http` server it is asked for the whole URL. It is a proxy over plain HTTP: one that is spoken
to over TLS, SOCKS and automatic configuration are not known. Nothing it says is believed.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

ENVIRONMENT = "environment"
_MAX_HEAD = 16 << 10
_EXPECTED = "http://proxy.example:3128"


class NoWay(OSError):
    """The proxy does not lead to the server."""


@dataclass(frozen=True)
class Proxy:
    """One proxy, and the value of `Proxy-Authorization` that it wants."""

    host: str
    port: int
    authorization: str = ""

    @property
    def url(self) -> str:
        """Where it is, without a secret."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        """What it is sent with each request."""
        return {"Proxy-Authorization": self.authorization} if self.authorization else {}


@dataclass(frozen=True)
class Proxies:
    """The proxy of `http` and of `https` servers, and the hosts that are reached without one."""

    http: Proxy | None = None
    https: Proxy | None = None
    without: tuple[str, ...] = ()

    def to(self, scheme: str, host: str, port: int | None) -> Proxy | None:
        """Return the proxy that leads to a server, None where it is reached directly."""
        proxy = self.https if scheme == "https" else self.http
        port = port or (443 if scheme == "https" else 80)
        direct = proxy is not None and any(_names(each, host, port) for each in self.without)
        return None if direct else proxy


DIRECT = Proxies()


def read_proxy(url: str, password: str = "") -> Proxy:
    """Read a proxy's URL; `password` replaces the one in it. Raises `ValueError`."""
    found = urlsplit(url if "://" in url else f"http://{url}")
    plain = not (found.path.strip("/") or found.query or found.fragment)
    if found.scheme != "http" or not found.hostname or found.port == 0 or not plain:
        raise ValueError(f"a proxy over plain HTTP such as {_EXPECTED}")
    authorization = ""
    if found.username:
        word = password or unquote(found.password or "")
        pair = f"{unquote(found.username)}:{word}".encode()
        authorization = f"Basic {base64.b64encode(pair).decode()}"
    return Proxy(found.hostname, found.port or 3128, authorization)


def from_environment(names: Mapping[str, str] = os.environ) -> Proxies:
    """Return what the usual variables say. Small letters come first. Raises `ValueError`."""

    def value(name: str) -> str:
        return names.get(name) or names.get(name.upper()) or ""

    def proxy(scheme: str) -> Proxy | None:
        url = value(f"{scheme}_proxy") or value("all_proxy")
        return read_proxy(url) if url else None

    without = tuple(word.strip() for word in value("no_proxy").split(",") if word.strip())
    return Proxies(proxy("http"), proxy("https"), without)


def named_in_environment(names: Mapping[str, str] = os.environ) -> str:
    """Return the name of a variable that asks for a proxy, empty if none does."""
    keys = ("https_proxy", "http_proxy", "all_proxy")
    return next((key for k in keys for key in (k, k.upper()) if names.get(key)), "")


def _names(rule: str, host: str, port: int) -> bool:
    """Say whether a word of `no_proxy` names a host: `*`, a name with all below it, an address, a
    network; each may carry a port."""
    rule, host = rule.lower(), host.lower().rstrip(".")
    name, _, number = rule.rpartition(":")
    if name and number.isdecimal() and (":" not in name or name.endswith("]")):
        if int(number) != port:
            return False
        rule = name
    rule = rule.strip("[]")
    if rule == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(rule, strict=False)
    except ValueError:
        name = rule.removeprefix("*").strip(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))


def connect(proxy: Proxy, host: str, port: int, *, gap_s: float, ends: float) -> socket.socket:
    """Return a socket that the proxy leads on to a server, by `ends` (monotonic seconds).

    Raises `OSError`, of which `NoWay` is the proxy's refusal.
    """
    found = socket.create_connection((proxy.host, proxy.port), timeout=gap_s)
    try:
        name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {name} HTTP/1.1", f"Host: {name}"]
        lines += [f"{key}: {value}" for key, value in proxy.headers.items()]
        found.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
        _check(_head(found, gap_s, ends), proxy)
    except BaseException:
        found.close()
        raise
    found.settimeout(gap_s)
    return found


def _head(found: socket.socket, gap_s: float, ends: float) -> bytes:
    """Read up to the blank line and not a byte further: what follows is the server's."""
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        left = ends - time.monotonic()
        if left <= 0:
            raise TimeoutError("the proxy took longer than the deadline")
        found.settimeout(min(left, gap_s))
        byte = found.recv(1)
        if not byte or len(head) >= _MAX_HEAD:
            raise NoWay("the proxy's answer to CONNECT is not HTTP")
        head += byte
    return bytes(head)


def _check(head: bytes, proxy: Proxy) -> None:
    words = head.split(b"\r\n", 1)[0].split(b" ", 2)
    status = words[1] if len(words) > 1 and words[0].startswith(b"HTTP/1.") else b""
    if not status.isdigit():
        raise NoWay("the proxy's answer to CONNECT is not HTTP")
    if status == b"407":
        raise NoWay(wants_credentials(proxy))
    if not 200 <= int(status) < 300:
        raise NoWay(f"the proxy {proxy.url} answers CONNECT with status {int(status)}")


def wants_credentials(proxy: Proxy) -> str:
    """The sentence for status 407."""
    words = "refuses these credentials" if proxy.authorization else "asks for credentials"
    return f"the proxy {proxy.url} {words} (407); set them in `proxy` or `proxy_password_file`"
