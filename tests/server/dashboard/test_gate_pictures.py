"""The pictures of a rollout's gates, as a browser shows them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from playwright.sync_api import expect
from sqlalchemy import event

from pilotwave_protocol.states import ModelState
from pilotwave_server.settings import Settings
from tests.e2e.browser import CHROMIUM, Watched, chromium
from tests.server.dashboard.conftest import PASSWORD, MakePerson, sign_in
from tests.server.fleet_fixtures import Fleet, only_sqlite
from tests.server.rollouts.test_engine_http import create, show
from tests.server.rollouts.test_live_metrics import InUse, cams, waves
from tests.server.rollouts.test_shadow_waves import FIRST, TRIED, ShadowCam, policy
from tests.servers import RunningServer

__all__ = ["cams"]
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here: install Debian's chromium"
)
SIGHTS: tuple[tuple[Literal["light", "dark"], int], ...] = (("light", 1280), ("dark", 380))


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"check_ins_per_minute": 6000})


@pytest.fixture
def stopped(fleet: Fleet, cams: list[InUse], clock: Any) -> str:
    """A rollout of a version that is 30 % slower, of which one device more speaks each time."""
    rollout = create(fleet, policy=waves())
    for turn in range(16):
        for n, cam in enumerate(cams):
            cam.slower["1.1.0"] = 0.3
            cam.mute = 2 * n > turn and n < 6
            cam.live()
        clock.advance(seconds=600)
        if show(fleet, rollout)["failure"]:
            return rollout
    raise AssertionError(show(fleet, rollout)["waves"])


@pytest.fixture
def in_shadow(fleet: Fleet, clock: Any) -> str:
    """A rollout whose version answers half of the calls otherwise, in a shadow of five devices."""
    fleet.group("cams", "line=a")
    fleet.assign("cams", "1.0.0")
    made = [ShadowCam(fleet.device(f"cam-{n}", line="a"), clock) for n in range(1, 6)]
    gates = [{"disagreement": {"at_most": "20%"}}]
    canary = {"devices": [cam.name for cam in made]}
    rollout = create(fleet, policy=policy({**TRIED, "canary": canary, "gates": gates}, FIRST))
    for turn in range(30):
        for n, cam in enumerate(made):
            cam.worse["1.1.0"] = 0.4 + 0.05 * ((n + turn) % 4)
            cam.live_model = turn >= n
            cam.live() if turn else cam.check_in(ModelState.HEALTHY)
        clock.advance(seconds=60)
        if show(fleet, rollout)["failure"]:
            return rollout
    raise AssertionError(show(fleet, rollout)["waves"])


def look(url: str, rollout: str, named: str, parts: tuple[str, ...], picture: str) -> None:
    """Look at the rollout's page in each sight, and at the drawing that is named so."""
    with chromium() as browser:
        for theme, width in SIGHTS:
            context = browser.new_context(
                viewport={"width": width, "height": 900}, color_scheme=theme
            )
            tab = Watched(context)
            page = tab.page
            page.goto(f"{url}/rollouts/{rollout}")
            page.get_by_label("Name").fill("ada")
            page.get_by_label("Password").fill(PASSWORD)
            page.get_by_role("button", name="Sign in").first.click()
            drawn = page.get_by_role("img", name=named)
            expect(drawn).to_be_visible()
            for part in parts:
                size = "e => Math.max(e.getBBox().width, e.getBBox().height)"
                assert drawn.locator(part).evaluate(size) > 1, part
            page.get_by_text("As a table").click()
            assert page.locator(".course tbody tr").count() > 4
            fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
            assert page.evaluate(fits)
            assert tab.faults() == []
            assert tab.errors == []
            if folder := os.environ.get("PICTURES"):
                page.screenshot(path=Path(folder) / f"{picture}-{theme}.png", full_page=True)
            context.close()


LINES = ("polyline.s0", "polyline.limit", "polygon.band", "line.moment.FAIL", "polyline.s2")


@only_sqlite
@needs_chromium
def test_both_versions_the_limit_and_the_moment_of_the_verdict_are_drawn(
    server: RunningServer, stopped: str, make_person: MakePerson
) -> None:
    make_person("ada")
    look(server.url, stopped, "latency_ms p95: 1.1.0", (*LINES, "polyline.s1"), "gates")


@only_sqlite
@needs_chromium
def test_a_candidate_in_shadow_is_drawn_against_its_limit(
    server: RunningServer, in_shadow: str, make_person: MakePerson
) -> None:
    make_person("ada")
    look(server.url, in_shadow, "disagreement: 1.1.0", LINES, "shadow")


@only_sqlite
def test_the_picture_takes_no_statement_for_each_moment(
    fleet: Fleet, stopped: str, browser: httpx.Client, make_person: MakePerson
) -> None:
    make_person("ada")
    assert sign_in(browser, "ada").status_code == 303
    said: list[str] = []
    reader = fleet.context.db.reader
    event.listen(reader, "before_cursor_execute", lambda *told: said.append(told[2]))
    found = browser.get(f"/rollouts/{stopped}/gates")
    assert found.status_code == 200
    assert "evidence" in found.text
    assert 0 < sum("rollout_samples" in statement for statement in said) <= 4
    browser.cookies.set("pilotwave_language", "zh-Hans")
    assert "证据" in browser.get(f"/rollouts/{stopped}/gates").text
