"""The server: registry, devices, groups, rollouts, and the faces that show them."""

from __future__ import annotations

from importlib.metadata import version

__version__ = version("pilotwave")
