"""Count the energy that the device takes, where it has a counter or a gauge for it.

- powercap's packages (`energy_uj`; only root may read them): a counter, which wraps.
- A Jetson's INA3221, or a battery that discharges: power, which is sampled.

What is counted is of the whole package, board or device, so that what an idle stretch took is
subtracted. The parent of a self-test reads it: a model that could read a processor's energy could
learn of it what others compute. `root` stands in for `/`.
"""

from __future__ import annotations

import re
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from pilotwave_agent.hardware.texts import names, text

_SAMPLE_S = 0.02
_LEAST_READINGS = 3
"""A gauge that changes less often within a stretch is too slow to tell anything of it."""
_PACKAGE = re.compile(r"intel-rapl:\d+", re.ASCII)  # AMD's too; `intel-rapl-mmio` is the same again
_WHOLE_BOARD = ("VDD_IN", "POM_5V_IN")  # the other rails of these boards are parts of it


@dataclass
class Meter:
    """Something that counts energy. `read` returns the joules since the one before.

    A gauge of power needs longer stretches than a counter, and is given one round of them.
    """

    read: Callable[[float], float | None]
    stretch_s: float
    rounds: int


@dataclass
class Curve:
    """Joules over time (`time.monotonic`), a point for each new reading."""

    times: list[float] = field(default_factory=list)
    joules: list[float] = field(default_factory=list)

    def add(self, now: float, joules: float) -> None:
        """Note a reading; one that tells nothing new is no point."""
        if not self.joules or joules > self.joules[-1]:
            self.times.append(now)
            self.joules.append(joules)

    def watts(self, begun: float, ended: float) -> float | None:
        """Return the mean power of a stretch; None where too little is known of it."""
        first, last = bisect_left(self.times, begun), bisect_left(self.times, ended)
        inside = first > 0 and last < len(self.times)
        if not inside or ended <= begun or last - first < _LEAST_READINGS:
            return None
        return (self._at(last, ended) - self._at(first, begun)) / (ended - begun)

    def _at(self, after: int, when: float) -> float:
        (t0, t1), (j0, j1) = self.times[after - 1 : after + 1], self.joules[after - 1 : after + 1]
        return j0 + (j1 - j0) * (when - t0) / (t1 - t0)


def find_meter(root: Path) -> Meter | None:
    """Return the best way to count energy here; None where there is none."""
    return _packages(root) or _rails(root) or _batteries(root)


@contextmanager
def sampled(meter: Meter) -> Iterator[Curve]:
    """Read the meter, on a thread, for as long as the block runs."""
    curve, done = Curve(), threading.Event()

    def sample() -> None:
        joules = 0.0
        while True:
            last = done.is_set()
            now = time.monotonic()
            if (more := meter.read(now)) is None:
                return
            joules += more
            curve.add(now, joules)
            if last:
                return
            done.wait(_SAMPLE_S)

    thread = threading.Thread(target=sample, name="energy", daemon=True)
    thread.start()
    try:
        yield curve
    finally:
        done.set()
        thread.join()


def per_call_mj(curve: Curve, found: Mapping[str, Any]) -> list[float | None]:
    """Return the energy of a call of each model, in mJ, from the stretches that a child tells:
    `idle` as `[begun, ended]`, `busy` for each model as `[begun, ended, calls]`.

    The child ran foreign code, so that none of it is taken on trust.
    """
    try:
        idle = [curve.watts(float(b), float(e)) for b, e in found["idle"]]
        busy = [[(float(b), float(e), int(n)) for b, e, n in one] for one in found["busy"]]
    except (KeyError, TypeError, ValueError, OverflowError):
        return []
    rest = [w for w in idle if w is not None]
    if not rest or len(rest) < len(idle):
        return [None for _ in busy]
    return [_of_one(curve, stretches, fmean(rest)) for stretches in busy]


def _of_one(
    curve: Curve, stretches: Sequence[tuple[float, float, int]], rest_w: float
) -> float | None:
    joules, calls = 0.0, 0
    for begun, ended, count in stretches:
        watts = curve.watts(begun, ended)
        if watts is None or count < 1:
            return None
        joules += (watts - rest_w) * (ended - begun)
        calls += count
    return joules * 1000 / calls if calls and joules > 0 else None


def _packages(root: Path) -> Meter | None:
    top = root / "sys/class/powercap"
    zones = [
        zone
        for name in names(top)
        if _PACKAGE.fullmatch(name)
        and (text((zone := top / name) / "name") or "").startswith("package")
    ]
    ranges = [_number(zone / "max_energy_range_uj") or 0 for zone in zones]
    before = [_number(zone / "energy_uj") for zone in zones]
    if not zones or None in before:
        return None

    def read(now: float) -> float | None:
        del now
        joules = 0.0
        for n, zone in enumerate(zones):
            said, last = _number(zone / "energy_uj"), before[n]
            if said is None or last is None:
                return None
            joules += (said - last if said >= last else max(said - last + ranges[n], 0)) / 1e6
            before[n] = said
        return joules

    return Meter(read, stretch_s=0.5, rounds=2)


def _rails(root: Path) -> Meter | None:
    top = root / "sys/class/hwmon"
    chips = [top / name for name in names(top) if text(top / name / "name") == "ina3221"]
    rails = [(chip, n) for chip in chips for n in (1, 2, 3) if _rail_w(chip, n) is not None]
    whole = [(chip, n) for chip, n in rails if text(chip / f"in{n}_label") in _WHOLE_BOARD]
    return _gauge([partial(_rail_w, chip, n) for chip, n in whole or rails])


def _rail_w(chip: Path, channel: int) -> float | None:
    if (microwatts := _number(chip / f"power{channel}_input")) is not None:
        return microwatts / 1e6
    millivolts = _number(chip / f"in{channel}_input")
    milliamperes = _number(chip / f"curr{channel}_input")
    return None if millivolts is None or milliamperes is None else millivolts * milliamperes / 1e6


def _batteries(root: Path) -> Meter | None:
    top = root / "sys/class/power_supply"
    supplies = [top / name for name in names(top)]
    own = [s for s in supplies if text(s / "type") == "Battery" and text(s / "scope") != "Device"]
    if any(text(s / "status") != "Discharging" for s in own):
        return None  # what a charger brings is not counted
    return _gauge([partial(_battery_w, supply) for supply in own])


def _battery_w(supply: Path) -> float | None:
    if (microwatts := _number(supply / "power_now")) is not None:
        return abs(microwatts) / 1e6
    microamperes, microvolts = (_number(supply / f"{kind}_now") for kind in ("current", "voltage"))
    if microamperes is None or microvolts is None:
        return None
    return abs(microamperes) * microvolts / 1e12


def _gauge(sources: Sequence[Callable[[], float | None]]) -> Meter | None:
    """Add up power over time: each reading holds until one differs, which says what was taken."""
    known: list[float] = []  # when energy was last told, and the power then

    def read(now: float) -> float | None:
        watts = [source() for source in sources]
        if None in watts:
            return None
        power = sum(w for w in watts if w is not None)
        if known and power == known[1]:
            return 0.0
        joules = (now - known[0]) * known[1] if known else 0.0
        known[:] = now, power
        return joules

    if not sources or any(source() is None for source in sources):
        return None
    return Meter(read, stretch_s=1.5, rounds=1)


def _number(path: Path) -> int | None:
    said = text(path) or ""
    return int(said) if said.removeprefix("-").isdecimal() and len(said) < 20 else None
