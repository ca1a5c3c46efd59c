"""Challenges for devices whose agents know of none: those go on above the last number instead."""

from __future__ import annotations


class NoChallenges:
    """Good for nobody (`telemetry.freshness.Challenges`)."""

    def make(self, device: str, generation: int, about: str) -> str:
        return "none"

    def is_good(self, challenge: str, device: str, generation: int, about: str) -> bool:
        return False
