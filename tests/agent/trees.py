"""Fake trees that stand in for `/` where a device is described: batteries, boards, buses."""

from __future__ import annotations

from pathlib import Path

ROUTES = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"


def put(root: Path, files: dict[str, str]) -> Path:
    """Write files below a root; a value `-> target` makes a link."""
    for name, words in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if words.startswith("-> "):
            path.unlink(missing_ok=True)
            path.symlink_to(words[3:])
        else:
            path.write_text(words)
    return root


def route(interface: str, metric: int = 100) -> str:
    """Return the line of an IPv4 default route."""
    return f"{interface}\t00000000\t0100A8C0\t0003\t0\t0\t{metric}\t00000000\t0\t0\t0\n"


def tree(
    folder: Path,
    *,
    battery: int | None = None,
    status: str = "Discharging",
    interface: str = "eth0",
    load: str = "0.00",
) -> Path:
    """Return a root for a device: its battery (percent), its way to the network, its load."""
    root = folder / "root"
    files = {
        "proc/net/route": ROUTES + route(interface),
        "proc/loadavg": f"{load} 0.00 0.00 1/100 4242\n",
        "etc/timezone": "UTC\n",
    }
    if battery is not None:
        top = "sys/class/power_supply/BAT0"
        files |= {
            f"{top}/type": "Battery\n",
            f"{top}/capacity": f"{battery}\n",
            f"{top}/status": f"{status}\n",
        }
    return put(root, files)
