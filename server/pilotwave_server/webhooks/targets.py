"""Decide which addresses webhooks may call, so that they open no way into the server's network.

What counts is the address that is connected to, looked up once per call: a name that is public at
first and private later leads nowhere.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import ClassVar, Literal, NamedTuple
from urllib.parse import urlsplit

from pilotwave_server.errors import Invalid

Targets = Literal["public", "private", "any"]
MAX_URL = 1024


class BadWebhookUrl(Invalid):
    code: ClassVar[str] = "bad_webhook_url"


class TargetForbidden(Invalid):
    """The address is one that the setting `webhook_targets` keeps webhooks from."""

    code: ClassVar[str] = "webhook_target_forbidden"


class Target(NamedTuple):
    """Where a call goes. `host` is a name or an address without brackets."""

    tls: bool
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The value of the `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def read_url(url: str) -> Target:
    """Take a URL apart. BadWebhookUrl."""
    if len(url) > MAX_URL or not re.fullmatch(r"[\x21-\x7e]+", url):
        raise BadWebhookUrl(f"expected a URL of at most {MAX_URL} printable ASCII characters")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode()
    except ValueError as error:
        raise BadWebhookUrl(f"expected a URL as https://example.com/hook: {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise BadWebhookUrl("expected a URL as https://example.com/hook")
    if parts.username is not None or parts.fragment:
        raise BadWebhookUrl("expected a URL without a user name, a password and a #fragment")
    if port == 0:
        raise BadWebhookUrl("expected a port above 0")
    tls = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(tls, host, port or (443 if tls else 80), path)


def check_literal(target: Target, allowed: Targets) -> None:
    """Refuse at once an address that could never be called. TargetForbidden."""
    try:
        ipaddress.ip_address(target.host)
    except ValueError:
        if target.host == "localhost" or target.host.endswith(".localhost"):
            choose(["127.0.0.1"], allowed)
        return
    choose([target.host], allowed)


def choose(addresses: Iterable[str], allowed: Targets) -> str:
    """Return the first of a name's addresses, if all of them may be called. TargetForbidden."""
    found = list(addresses)
    for address in found:
        if not may_call(address, allowed):
            raise TargetForbidden(
                f"{address} is {_kind(address)}; webhooks may call {_WORDS[allowed]} "
                "(setting webhook_targets)"
            )
    return found[0]


def may_call(address: str, allowed: Targets) -> bool:
    """Say whether this address may be called."""
    kind = _kind(address)
    return allowed == "any" or kind == "public" or (allowed == "private" and kind == "private")


_WORDS = {"public": "public addresses", "private": "public and private addresses", "any": "any"}
# Private networks in the narrow sense: RFC 1918 and RFC 4193.
_PRIVATE = [
    ipaddress.ip_network(n) for n in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
]


_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_LOCAL_NAT64 = ipaddress.ip_network("64:ff9b:1::/48")  # older Pythons hold it for global


def _kind(address: str) -> str:
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        ip = _inner(ip) or ip
    if ip.is_loopback:
        return "this machine"
    if any(ip in network for network in _PRIVATE if network.version == ip.version):
        return "private"
    if ip.is_multicast or not ip.is_global or (ip.version == 6 and ip in _LOCAL_NAT64):
        return "link-local or reserved"
    return "public"


def _inner(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one carries, which is where a call would end."""
    if ip in _NAT64 or (int(ip) >> 32 == 0 and int(ip) > 1):
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
