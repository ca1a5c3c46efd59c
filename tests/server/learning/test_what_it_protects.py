"""What people are told of a plan: who sees which numbers."""

from __future__ import annotations

from dataclasses import replace

from pilotwave_protocol.learning.plan import Aggregate, Noise
from pilotwave_protocol.learning.privacy import Mode, Privacy
from pilotwave_server.learning.what_it_protects import what_it_protects
from tests.protocol.learning.plans import RIDGE


def test_each_mode_says_who_sees_what() -> None:
    assert (
        what_it_protects(RIDGE) == "This server sees what each device sent, until the round ends."
    )
    masked = what_it_protects(replace(RIDGE, privacy=Privacy(Mode.MASKED, 8)))
    assert "groups of 8 devices, of which 6 or more took part" in masked
    assert "makes devices up could" in masked
    noisy = replace(RIDGE, aggregate=Aggregate.SUM, noise=Noise("2", "1e-6"))
    assert "epsilon 2, delta 1e-6" in what_it_protects(noisy)
