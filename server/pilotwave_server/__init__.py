"""The server: registry, devices, groups, rollouts, and the faces that show them."""

from __future__ import annotations

from importlib.metadata import version

from pilotwave_protocol.build import build_of

__version__ = version("pilotwave")


def build() -> str:
    """Return the server's version and build."""
    packages = ("pilotwave_server", "pilotwave_protocol", "pilotwave_systemd", "pilotwave_deltas")
    return f"{__version__}+{build_of(*packages)}"
