"""Challenges for devices whose numbers are not those that are stored. Nothing is kept of them: each
is a token that is good for one purpose, made with the keys that all server processes share."""

from __future__ import annotations

from pilotwave_server.clock import Clock
from pilotwave_server.device_api.tokens import BadToken, DeviceTokens, ExpiredToken

LIFETIME_S = 300


class DeviceChallenges:
    """Makes and checks them (`telemetry.freshness.Challenges`)."""

    def __init__(self, tokens: DeviceTokens, clock: Clock) -> None:
        self._tokens = tokens
        self._clock = clock

    def make(self, device: str, generation: int, about: str) -> str:
        """Return a challenge about `about`, good for LIFETIME_S."""
        expires = int(self._clock().timestamp()) + LIFETIME_S
        return self._tokens.issue(device, generation, expires=expires, path=_scope(about))

    def is_good(self, challenge: str, device: str, generation: int, about: str) -> bool:
        """Say whether it was made for this device, about this, not long ago."""
        now = self._clock().timestamp()
        try:
            claim = self._tokens.check(challenge.encode(), now=now, path=_scope(about))
        except (BadToken, ExpiredToken):
            return False
        return (claim.device, claim.generation) == (device, generation)


def _scope(about: str) -> str:
    # a link's path begins with a slash, so neither is ever taken for the other
    return f"challenge {about}"
