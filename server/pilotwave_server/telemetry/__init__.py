"""What devices report: how each model stands, what happened, which versions they ran."""

from __future__ import annotations
