"""Say whether the way to the server is paid by the megabyte, as far as the kernel's routes tell.

A modem that stands behind a router cannot be seen from here; the setting `metered` says it then.
"""

from __future__ import annotations

from pathlib import Path

from pilotwave_agent.hardware.texts import text

_MODEMS = ("wwan", "wwp", "ppp", "rmnet", "usb", "cdc-wdm", "mhi")
_ALL_IPV6 = "0" * 32


def metered(root: Path) -> bool | None:
    """Say whether the best default route leaves by a modem; None if there is no such route."""
    found = sorted([*_ipv4(root), *_ipv6(root)])
    return found[0][1].startswith(_MODEMS) if found else None


def _ipv4(root: Path) -> list[tuple[int, str]]:
    routes = []
    for line in (text(root / "proc/net/route") or "").splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7 and fields[1] == fields[7] == "00000000" and fields[6].isdecimal():
            routes.append((int(fields[6]), fields[0]))
    return routes


def _ipv6(root: Path) -> list[tuple[int, str]]:
    routes = []
    for line in (text(root / "proc/net/ipv6_route") or "").splitlines():
        fields = line.split()
        if len(fields) > 9 and fields[:2] == [_ALL_IPV6, "00"] and fields[9] != "lo":
            routes.append((int(fields[5], 16), fields[9]))
    return routes
