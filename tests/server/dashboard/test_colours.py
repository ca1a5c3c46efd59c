"""A version keeps its colour, whichever versions stand beside it and in whatever order."""

from __future__ import annotations

from datetime import datetime, timezone

from pilotwave_server.dashboard.charts import of_versions
from pilotwave_server.telemetry.distribution import Distribution

AT = [datetime(2026, 1, 1, tzinfo=timezone.utc)]
COUNTERS = {("m", f"1.{n}.0"): n + 1 for n in range(9)}


def tones(*names: str) -> dict[str, int]:
    found = Distribution(times=AT, devices={name: [1] for name in names})
    return {s.name: s.tone for s in of_versions("m", found, counters=COUNTERS).series}


def test_a_version_keeps_its_colour() -> None:
    first = tones("1.0.0", "1.1.0", "1.2.0")
    assert len(set(first.values())) == 3
    for more in (("1.1.0",), ("1.2.0", "1.1.0"), ("1.1.0", "1.8.0", "1.0.0")):
        assert tones(*more)["1.1.0"] == first["1.1.0"]
