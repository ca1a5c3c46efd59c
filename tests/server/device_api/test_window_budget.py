"""Whose windows gates look at: a panel of devices that nobody can work their way into."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zlib import crc32

import pytest

from pilotwave_server.device_api.window_budget import (
    BURST,
    PERIOD_S,
    Panel,
    own_time,
    phase_of,
)

NOW = datetime(2026, 11, 29, 12, tzinfo=timezone.utc)


def test_many_windows_of_one_device_do_not_change_whom_the_gate_listens_to() -> None:
    panel = Panel(most=200)
    for _ in range(401):
        panel.takes(7, 5, 1000.0)
    assert panel.share == 2**32
    assert all(panel.takes(device, 2**32 - device, 1000.0) for device in range(100, 200))


def test_a_panel_of_many_devices_is_halved_until_they_are_few_enough() -> None:
    panel = Panel(most=50)
    phases = {device: phase_of(b"secret", f"cam-{device}") for device in range(1000)}
    for round in range(3):
        for device, phase in phases.items():
            panel.takes(device, phase, round * PERIOD_S)
    kept = [d for d, phase in phases.items() if phase < panel.share]
    assert 15 <= len(kept) <= 50
    assert len(panel.heard) <= 50


def test_a_device_gets_a_few_windows_at_first_and_one_in_each_period() -> None:
    panel = Panel(most=200)
    assert sum(panel.takes(7, 5, 0.0) for _ in range(401)) == BURST
    assert [panel.takes(7, 5, PERIOD_S), panel.takes(7, 5, PERIOD_S)] == [True, False]
    assert sum(panel.takes(7, 5, 5 * PERIOD_S) for _ in range(401)) == 4


def test_a_clock_that_goes_back_and_forth_earns_no_window() -> None:
    panel = Panel(most=200)
    taken = sum(panel.takes(7, 5, float(n % 2)) for n in range(401))
    assert taken == BURST


def test_accounts_are_forgotten_once_they_are_full_again() -> None:
    panel = Panel(most=200)
    for device in range(100):
        panel.takes(device, 5, 0.0)
    panel.takes(500, 5, (BURST + 2) * PERIOD_S)
    assert set(panel.accounts) == {500}


def test_names_that_were_chosen_for_their_hash_are_no_nearer_to_the_panel() -> None:
    """They have the least of all CRCs, by which the panel was once chosen."""
    chosen = sorted((f"cam-{n}" for n in range(100_000)), key=lambda n: crc32(n.encode()))[:500]
    near = sum(phase_of(b"secret", name) < 2**29 for name in chosen)
    assert 30 <= near <= 100  # an eighth of them


def test_each_rollout_has_a_panel_of_its_own() -> None:
    names = [f"cam-{n}" for n in range(4000)]
    one, other = ({n for n in names if phase_of(s, n) < 2**30} for s in (b"12 5", b"99 7"))
    assert 150 <= len(one & other) <= 350  # a quarter of a quarter


@pytest.mark.parametrize(
    ("begin_s", "end_s", "counts"),
    [
        (-900, 0, True),
        (-7 * 86_400, -60, True),  # it was away for a week and measured all the time
        (0, 900, True),  # a clock that is a little ahead
        (-3600 * 6, -3600 * 5, True),
        (-3600 * 7, -3600 * 6 - 60, False),
        (301, 302, False),
        (-900, 1801, False),
        (-86_400 * 365, -86_400 * 364, False),
    ],
)
def test_windows_count_by_their_own_time(begin_s: int, end_s: int, counts: bool) -> None:
    start, end = NOW + timedelta(seconds=begin_s), NOW + timedelta(seconds=end_s)
    at = own_time(start, end, moment=NOW.timestamp())
    assert (at is not None) is counts
    assert at is None or at == min(end, NOW).timestamp()
