"""A version's page says what classes of devices measured of its variants, and what each gets."""

from __future__ import annotations

import httpx
import pytest

from pilotwave_protocol.figures import VariantFigures
from pilotwave_server.db import touch_fleet
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.fleet.state import FleetState
from pilotwave_server.rollouts.assignments.baselines import set_baseline
from pilotwave_server.rollouts.assignments.load_snapshot import RememberedSnapshot, read_snapshot
from pilotwave_server.rollouts.choice.classes import class_of
from pilotwave_server.rollouts.choice.store import Answer, Failure, Wish, ask, note_failures, take
from pilotwave_server.rollouts.policies.choose import Choose
from tests.server.dashboard.conftest import MakePerson, sign_in
from tests.server.dashboard.test_version_page import publish, text_of
from tests.server.device_api.peer import ONNX
from tests.server.fleet_fixtures import Fleet, only_sqlite

NAMES = ("int8", "fp32")
FAILED = VariantFigures(failed="selftest_mismatch")


def figures(p05_ms: float) -> VariantFigures:
    return VariantFigures(p05_ms=p05_ms, peak_mb=12.5)


@pytest.fixture
def page(fleet: Fleet, browser: httpx.Client, make_person: MakePerson) -> str:
    make_person("ada")
    assert sign_in(browser, "ada").status_code == 303
    address = publish(fleet, {"small.top1": "0.95"}, "small")
    for n in range(5):
        model = "N100 <b>" if n < 3 else "A53"
        facts = {**ONNX, "agent.manifest": 2, "cpu.model": model}
        if n >= 3:
            facts["agent.hides"] = "cpu.dotprod"
        assert fleet.device(f"cam-{n}").check_in(facts=facts).status_code == 200
    return address


def measure(fleet: Fleet) -> None:
    """Three of one class find int8 the faster; of two of another, one cannot run it, which is not
    enough to go from the publisher's order."""
    fleet.group("cams", "*")
    now = fleet.registry.clock()
    given = {"group": "cams", "model": "detector", "version": "2.0.0", "actor": "token/a"}
    with fleet.context.db.write() as session:
        snapshot = read_snapshot(session, RememberedSnapshot())
        set_baseline(session, snapshot, **given, now=now, choose=Choose("latency"))  # type: ignore[arg-type]  # by name
        sha256 = snapshot.versions["detector", "2.0.0"].sha256
        for n, device in enumerate(session.query(DeviceRow).order_by(DeviceRow.name)):
            key = device.id, class_of(device.facts), sha256
            ask(session, [Wish(*key, NAMES)], now=now)
            found = {"int8": FAILED if n == 4 else figures(2 + n / 8), "fp32": figures(4)}
            take(session, [Answer(*key, *one) for one in found.items()], now=now)
        # what failed where it was to run is that device's own: no class's
        note_failures(session, [Failure(key[0], sha256, "fp32", "selftest_load", 10**9)], now=now)
        touch_fleet(session)
    fleet.context.get(FleetState).refresh()


@only_sqlite
def test_each_class_has_its_figures_and_what_it_gets(
    fleet: Fleet, browser: httpx.Client, page: str
) -> None:
    assert "Measured on devices" not in browser.get(page).text
    measure(fleet)
    raw = browser.get(page).text
    assert "N100 <b>" not in raw
    shown = text_of(raw)
    assert "Processor Variant ms a call, 5th percentile Peak memory, MB Devices Chosen" in shown
    rows = shown.partition("Devices Chosen ")[2]
    first = "N100 <b> aarch64, onnxruntime 1.23.2"
    assert rows.startswith(f"{first} int8 2.125 12.5 3 Chosen cams {first} fp32 4 12.5 3 ")
    second = "A53 aarch64, onnxruntime 1.23.2, agent.hides cpu.dotprod"
    assert f"{second} int8 2.375 12.5 2 failed on 1 Chosen cams" in rows
    assert rows.count("failed on") == 1


@only_sqlite
def test_each_choice_of_a_class_names_its_groups_and_what_was_not_measured_is_there_too(
    fleet: Fleet, browser: httpx.Client, page: str
) -> None:
    """Of what `fp32` is for one group and `small` for another, only the former was measured."""
    measure(fleet)
    given = {"model": "detector", "version": "2.0.0", "actor": "token/a"}
    for group, choose in (
        ("tiny", Choose("bytes", subject={"top1": ">=0.9"})),
        ("night", Choose("latency")),
    ):
        fleet.group(group, "*")
        with fleet.context.db.write() as session:
            snapshot = read_snapshot(session, RememberedSnapshot())
            now = fleet.registry.clock()
            set_baseline(session, snapshot, group=group, **given, now=now, choose=choose)  # type: ignore[arg-type]  # by name
    fleet.context.get(FleetState).refresh()
    rows = text_of(browser.get(page).text).partition("Devices Chosen ")[2]
    first = "N100 <b> aarch64, onnxruntime 1.23.2"
    assert rows.startswith(f"{first} int8 2.125 12.5 3 Chosen night, cams {first} fp32 4 12.5 3 ")
    assert f"{first} small – – – Chosen tiny" in rows


@only_sqlite
def test_the_table_is_there_in_chinese(fleet: Fleet, browser: httpx.Client, page: str) -> None:
    measure(fleet)
    shown = text_of(browser.get(page, headers={"Accept-Language": "zh-CN"}).text)
    for words in ("在设备上测得", "处理器", "内存峰值", "在 1 台上失败", "已选"):
        assert words in shown
