"""A version's page: its variants beside each other, with the figures that its publisher signed."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html import unescape
from itertools import combinations
from typing import Any

import httpx
import pytest

from pilotwave_protocol.manifest import Requires, SelfTest, VersionManifest
from pilotwave_server.context import Context
from pilotwave_server.dashboard.variant_table import figure, others, picture_of, rows_of
from pilotwave_server.fleet.state import FleetState
from pilotwave_server.registry.views import VariantView
from tests.server.dashboard.conftest import MakePerson, sign_in
from tests.server.device_api.peer import ONNX
from tests.server.fleet_fixtures import Fleet, only_sqlite
from tests.server.rollouts.worlds import variant

MEASURED = {
    "fp32.top1": "0.9760", "fp32.p05_ms": "0.50", "fp32.peak_mb": "60.4",
    "int8.top1": "0.9700", "int8.p05_ms": "0.20", "int8.loss_bound": "0.0066",
    "slow.top1": "0.9600", "slow.p05_ms": "0.90",
}  # fmt: skip


def views(*names: str) -> list[VariantView]:
    return [VariantView.model_validate(variant(name)) for name in names]


def publish(fleet: Fleet, metrics: dict[str, str], *more: str, **int8: Any) -> str:
    """Publish 2.0.0 of two variants and `more`, and return its page's address."""
    made: VersionManifest = fleet.registry.manifest("detector", "2.0.0")
    (fp32,) = made.variants
    others = (replace(fp32, name=name) for name in ("fp32", *more))
    variants = (replace(fp32, name="int8", **int8), *others)
    manifest = replace(made, variants=variants, metrics=metrics)
    fleet.registry.hand_in("detector", fleet.registry.signed_with_version(manifest), manifest)
    fleet.context.get(FleetState).refresh()
    return "/models/detector/2.0.0"


def text_of(html: str) -> str:
    return unescape(" ".join(re.sub(r"<[^>]*>", " ", html).split()))


@only_sqlite
def test_variants_stand_beside_each_other_with_what_they_require_and_how_many_they_fit(
    fleet: Fleet, browser: httpx.Client, make_person: MakePerson, context: Context
) -> None:
    make_person("ada")
    assert sign_in(browser, "ada").status_code == 303
    for n, facts in enumerate(({"cpu.dotprod": True, "app": "2.4"}, {"app": "1.0"}, {})):
        fleet.device(f"cam-{n}").check_in(facts={**ONNX, "agent.manifest": 2, **facts})
    fleet.device("old").check_in(facts={**ONNX, "cpu.dotprod": True, "app": "2.4"})
    page = publish(
        fleet,
        {**MEASURED, "night": "0.91"},
        requires=Requires(cpu_any=("cpu.avx_vnni", "cpu.dotprod"), facts={"app": ">=2.1,<3"}),
    )
    shown = browser.get(page).text
    int8, fp32 = re.findall(r"<tr><th scope=\"row\">.*?</tr>", shown, re.DOTALL)
    assert "97 %" in text_of(int8)
    assert "0.66 %" in text_of(int8)
    assert text_of(int8).endswith("one of cpu.avx_vnni, cpu.dotprod app >=2.1,<3 1")
    assert text_of(fp32).endswith("any device 3")  # not the agent that cannot read its manifest
    assert "<circle" in shown
    assert "<dt>night</dt>" in shown
    assert "<dt>int8.top1</dt>" not in shown


@only_sqlite
def test_without_figures_nothing_is_drawn_or_made_up(
    fleet: Fleet, browser: httpx.Client, make_person: MakePerson
) -> None:
    make_person("ada")
    assert sign_in(browser, "ada").status_code == 303
    shown = browser.get(publish(fleet, {})).text
    assert "<circle" not in shown
    assert "Top-1" not in shown
    assert "Devices that it fits" in shown


HOSTILE = [
    *("NaN", "Infinity", "-1", "1e999", "1e-999999999", "9" * 400, "1.01", "", "x", "0x1", "1_0"),
    *("<script>alert(1)</script>", "0.9'\"><svg onload=alert(1)>", "\u202e0.9"),
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_publishers_text_that_is_no_figure_is_none(text: str) -> None:
    found = figure(text, 1)
    assert found is None or 0 <= found <= 1
    rows = rows_of(views("a", "b"), {"a.top1": text, "a.p05_ms": text, "b.top1": "0.9"}, None)
    assert picture_of(rows) is None


@only_sqlite
def test_hostile_texts_are_escaped_where_they_are_shown(
    fleet: Fleet, browser: httpx.Client, make_person: MakePerson
) -> None:
    make_person("ada")
    assert sign_in(browser, "ada").status_code == 303
    told = {f"int8.{key}": HOSTILE[11] for key in ("top1", "p05_ms")} | {"<b>": HOSTILE[12]}
    test = SelfTest("model.onnx", min_agreement="0.97")
    requires = Requires(facts={"app": "x<script>alert(2)</script>"})
    shown = browser.get(publish(fleet, told, selftest=test, requires=requires)).text
    assert "<script>alert" not in shown
    assert "<svg onload" not in shown
    assert "<b>" not in re.sub(r"<b[ >]", "", shown)


def test_the_picture_joins_those_that_no_other_beats() -> None:
    picture = picture_of(rows_of(views("fp32", "int8", "slow"), MEASURED, None))
    assert picture is not None
    best = {b.row.view.name: b.best for b in picture.bubbles}
    assert best == {"fp32": True, "int8": True, "slow": False}
    places = {b.row.view.name: (b.x, b.y) for b in picture.bubbles}
    assert places["int8"][0] < places["fp32"][0] < places["slow"][0] < 400
    assert 0 < places["fp32"][1] < places["int8"][1] < places["slow"][1] < 260


def test_numbers_of_bubbles_in_one_place_stand_beside_each_other() -> None:
    names = [f"v{n}" for n in range(5)]
    told = {f"{n}.{key}": text for n in names for key, text in (("top1", "0.97"), ("p05_ms", "1"))}
    told |= {"far.top1": "0.9", "far.p05_ms": "2"}
    picture = picture_of(rows_of(views(*names, "far"), told, None))
    assert picture is not None
    assert len({(b.x, b.y) for b in picture.bubbles}) == 2
    for one, other in combinations(picture.bubbles, 2):
        assert math.dist(one.label, other.label) >= 14
    (far,) = (b for b in picture.bubbles if b.row.view.name == "far")
    assert far.label == (far.x, far.y)


@pytest.mark.parametrize("figures", [("0", "0"), ("1", "0"), ("1", "1e-30"), ("0.5", "10000000")])
def test_the_picture_bears_the_ends_of_what_figures_may_be(figures: tuple[str, str]) -> None:
    told = {f"{n}.{k}": v for n in "ab" for k, v in zip(("top1", "p05_ms"), figures, strict=True)}
    picture = picture_of(rows_of(views("a", "b"), told, None))
    assert picture is not None
    assert all(0 <= b.x <= 400 and 0 <= b.y <= 260 for b in picture.bubbles)
    assert all(2 <= len(ticks) <= 6 for ticks in (picture.across, picture.upwards))


def test_without_labels_agreement_is_drawn_and_what_the_table_shows_is_listed_once() -> None:
    told = {"a.agreement": "0.99", "b.agreement": "1", "a.p05_ms": "1", "b.p05_ms": "2", "x": "y"}
    picture = picture_of(rows_of(views("a", "b"), told, None))
    assert picture is not None
    assert picture.quality == "agreement"
    assert others(views("a", "b"), told) == {"x": "y"}
