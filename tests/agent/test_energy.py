"""The energy of a call: which counter or gauge is read, and what is made of its readings."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from pilotwave_agent.hardware.energy import Curve, find_meter, per_call_mj, sampled
from pilotwave_agent.selftest import TestLimits, run_in_turns
from tests.agent.runtimes.samples import lay_out
from tests.agent.trees import put

RAPL = "sys/class/powercap/intel-rapl:0"
CHIP = "sys/class/hwmon/hwmon3"
BATTERY = "sys/class/power_supply/BAT0"
PACKAGE = {f"{RAPL}/name": "package-0\n", f"{RAPL}/max_energy_range_uj": "10000000\n"}
DISCHARGING = {f"{BATTERY}/type": "Battery\n", f"{BATTERY}/status": "Discharging\n"}
BOARD = {
    f"{CHIP}/name": "ina3221\n",
    f"{CHIP}/in1_label": "VDD_IN\n",
    f"{CHIP}/in1_input": "5000\n",
    f"{CHIP}/curr1_input": "1000\n",
    f"{CHIP}/in2_label": "VDD_CPU_GPU_CV\n",
    f"{CHIP}/in2_input": "5000\n",
    f"{CHIP}/curr2_input": "400\n",
}


def taken(root: Path, *then: dict[str, str]) -> list[float | None]:
    """Read the meter after each change, a second apart; the joules of each second."""
    meter = find_meter(root)
    assert meter is not None
    meter.read(0.0)
    found = []
    for second, change in enumerate(then, 1):
        put(root, change)
        found.append(meter.read(float(second)))
    return found


def test_a_counter_is_read_over_its_wrap(tmp_path: Path) -> None:
    root = put(tmp_path, {**PACKAGE, f"{RAPL}/energy_uj": "9000000\n"})
    uj = f"{RAPL}/energy_uj"
    assert taken(root, {uj: "9500000"}, {uj: "500000"}, {uj: "500000"}) == [0.5, 1.0, 0.0]


def test_packages_are_added_up_and_what_is_counted_twice_is_not(tmp_path: Path) -> None:
    other = "sys/class/powercap/intel-rapl:1"
    files = {
        **PACKAGE,
        f"{RAPL}/energy_uj": "1000000",
        f"{other}/name": "package-1",
        f"{other}/energy_uj": "1000000",
    }
    for again in ("intel-rapl:0:0", "intel-rapl-mmio:0", "intel-rapl:2"):
        name = "psys" if again == "intel-rapl:2" else "package-0"
        files |= {f"sys/class/powercap/{again}/{key}": "1" for key in ("energy_uj",)}
        files[f"sys/class/powercap/{again}/name"] = name
    root = put(tmp_path, files)
    assert taken(root, {f"{where}/energy_uj": "3000000" for where in (RAPL, other)}) == [4.0]


@pytest.mark.parametrize(
    ("files", "change", "joules"),
    [
        # the board's input alone: the other rail is a part of it
        (BOARD, {f"{CHIP}/curr1_input": "2000"}, 5.0),
        # no rail is the whole board's: all of them
        ({**BOARD, f"{CHIP}/in1_label": "GPU"}, {f"{CHIP}/curr1_input": "2000"}, 7.0),
        ({**BOARD, f"{CHIP}/power1_input": "3000000"}, {f"{CHIP}/power1_input": "1"}, 3.0),
        ({**DISCHARGING, f"{BATTERY}/power_now": "8000000"}, {f"{BATTERY}/power_now": "1"}, 8.0),
        # some count what leaves the battery as negative
        (
            {
                **DISCHARGING,
                f"{BATTERY}/current_now": "-500000",
                f"{BATTERY}/voltage_now": "12000000",
            },
            {f"{BATTERY}/current_now": "-1"},
            6.0,
        ),
    ],
)
def test_a_gauge_of_power_is_added_up_over_time(
    tmp_path: Path, files: dict[str, str], change: dict[str, str], joules: float
) -> None:
    root = put(tmp_path, files)
    assert taken(root, {}, change)[0] == 0.0  # nothing new: not known yet
    assert taken(put(tmp_path, files), change)[0] == pytest.approx(joules)


@pytest.mark.parametrize(
    "files",
    [
        {},
        PACKAGE,  # its counter is missing, or not for us
        {**PACKAGE, f"{RAPL}/energy_uj": "many"},
        {f"{CHIP}/name": "coretemp", f"{CHIP}/in1_input": "1", f"{CHIP}/curr1_input": "1"},
        {**DISCHARGING, f"{BATTERY}/power_now": "8", f"{BATTERY}/status": "Charging"},
        {**DISCHARGING, f"{BATTERY}/power_now": "8", f"{BATTERY}/scope": "Device"},
        DISCHARGING,
    ],
)
def test_what_counts_nothing_is_no_meter(tmp_path: Path, files: dict[str, str]) -> None:
    assert find_meter(put(tmp_path, files)) is None


def curve_of(watts: Callable[[float], float]) -> Curve:
    curve, joules = Curve(), 0.0
    for n in range(1001):
        curve.add(n / 100, joules)
        joules += watts(n / 100) / 100
    return curve


STEADY = curve_of(lambda t: 10.0 if 2 <= t < 4 else 30.0 if 4 <= t < 6 else 6.0)


def test_what_an_idle_stretch_took_is_subtracted() -> None:
    told = {"idle": [[1, 2]], "busy": [[[2, 4, 100]], [[4, 6, 100]]]}
    assert per_call_mj(STEADY, told) == pytest.approx([80.0, 480.0])


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ({}, []),
        ({"idle": [], "busy": [[[2, 4, 100]]]}, [None]),
        ({"idle": [[1, 2]], "busy": [[]]}, [None]),
        ({"idle": "ab", "busy": 3}, []),
        ({"idle": [[1, 2]], "busy": [[[2, 4, 0]], [[4, 2, 9]]]}, [None, None]),
        ({"idle": [[1, 2]], "busy": [[["nan", 4, 1]], [[2, "inf", 1]]]}, [None, None]),
        ({"idle": [[-5, 2]], "busy": [[[2, 4, 9]]]}, [None]),  # before anything was read
        ({"idle": [[1, 2]], "busy": [[[2, 40, 9]]]}, [None]),  # after the end
        ({"idle": [[4, 6]], "busy": [[[1, 2, 9]]]}, [None]),  # less than at rest
        ({"idle": [[1, 2]], "busy": [[[2, 2.01, 9]]]}, [None]),  # too few readings
    ],
)
def test_what_a_child_tells_is_not_taken_on_trust(
    told: dict[str, Any], found: list[float | None]
) -> None:
    assert per_call_mj(STEADY, told) == found


def cpu_seconds_of_children() -> float:
    found = 0.0
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            found += sum(child.cpu_times()[:2])
    return found


def test_the_calls_of_a_child_are_counted(tmp_path: Path) -> None:
    """A simulated processor takes 2 W at rest and 10 W more for each core that the child uses."""
    root = put(tmp_path / "root", {**PACKAGE, f"{RAPL}/energy_uj": "0"})
    path, done, begun = root / RAPL / "energy_uj", threading.Event(), time.monotonic()

    def processor() -> None:
        busy = 0.0
        while not done.wait(0.01):
            busy = max(busy, cpu_seconds_of_children())
            new = path.with_name("new")
            new.write_text(str(int(1e6 * (2 * (time.monotonic() - begun) + 10 * busy)) % 10**7))
            new.replace(path)

    thread = threading.Thread(target=processor)
    thread.start()
    try:
        file, names = "digits.onnx", ("x", "logits")
        variant = lay_out(tmp_path / file, file, cases="digits", names=names)
        meter = find_meter(root)
        assert meter is not None
        began = time.monotonic()
        (turns,) = run_in_turns([(tmp_path / file, variant)], TestLimits(60, 512), meter=meter)
        took_s = time.monotonic() - began
    finally:
        done.set()
        thread.join()
    assert turns.energy_mj is not None
    assert 4 * turns.p05_ms < turns.energy_mj < 40 * turns.p05_ms
    assert took_s < 20


def test_a_meter_that_goes_away_ends_the_sampling(tmp_path: Path) -> None:
    root = put(tmp_path, {**PACKAGE, f"{RAPL}/energy_uj": "0"})
    meter = find_meter(root)
    assert meter is not None
    with sampled(meter) as curve:
        (root / RAPL / "energy_uj").unlink()
        time.sleep(0.1)
    assert curve.watts(0, time.monotonic()) is None
