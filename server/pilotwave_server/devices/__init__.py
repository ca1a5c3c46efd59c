"""Devices: who they are, what operators and they themselves say of them, what they report."""

from __future__ import annotations
