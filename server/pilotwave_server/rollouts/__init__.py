"""Who runs which version: baselines of groups, quarantines, and `resolve`, which decides."""

from __future__ import annotations
