"""Groups: named sets of devices, a static list each or a selector over labels and facts."""

from __future__ import annotations
