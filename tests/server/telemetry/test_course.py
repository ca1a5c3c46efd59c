"""How a metric went on a device, in few points."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from pilotwave_protocol.sketch import Sketch
from pilotwave_server.telemetry.course import MOST, Stored, extended

START = datetime(2026, 1, 1, tzinfo=timezone.utc)


def window(value: float, count: int = 10) -> Sketch:
    sketch = Sketch()
    sketch.add(value, count)
    return sketch


def course(minutes: int) -> list[Stored]:
    points: list[Stored] = []
    for n in range(minutes):
        end = START + timedelta(minutes=n)
        begin = end - timedelta(minutes=1)
        points = extended(points, window(float(n + 1)), begin=begin, end=end, now=end)
    return points


def test_a_window_is_a_point() -> None:
    assert course(2) == [
        [START.timestamp(), 60, 10, 1.0, 1.0],
        [START.timestamp() + 60, 60, 10, 2.0, 2.0],
    ]


def test_a_week_of_minutes_fits_and_no_observation_is_lost() -> None:
    points = course(7 * 24 * 60)
    assert len(points) == MOST
    assert sum(point[2] for point in points) == 7 * 24 * 60 * 10
    times = [point[0] for point in points]
    assert times == sorted(times)
    # the newest are there one by one, and what is older is not all in one
    assert times[-1] - times[-3] == 120
    assert times[0] - START.timestamp() < 4 * 86_400


def test_a_clock_that_is_wrong_moves_no_point_out_of_order() -> None:
    ahead, behind = START + timedelta(days=9), START - timedelta(days=9)
    points = extended([], window(1.0), begin=behind, end=ahead, now=START)
    points = extended(points, window(1.0), begin=ahead, end=behind, now=START)
    assert [point[0] for point in points] == [START.timestamp()] * 2
    assert points[1][1] == 0
