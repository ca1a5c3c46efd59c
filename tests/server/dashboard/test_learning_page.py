"""The page of an experiment: who takes part, who does not and why, and its buttons."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect
from sqlalchemy import select

from pilotwave_protocol.learning.decline import Why
from pilotwave_protocol.learning.plan import Aggregate, Noise
from pilotwave_protocol.learning.privacy import Mode, Privacy
from pilotwave_server.dashboard import i18n
from pilotwave_server.dashboard.catalogue.reasons import REASONS
from pilotwave_server.dashboard.sentences import translated
from pilotwave_server.learning.advance import Seen, too_many_failed
from pilotwave_server.learning.policy import read_policy
from pilotwave_server.learning.tables import RoundRow
from pilotwave_server.learning.what_it_protects import what_it_protects
from tests.e2e.browser import CHROMIUM, Watched, chromium
from tests.protocol.learning.plans import RIDGE
from tests.server.dashboard.conftest import PASSWORD, MakePerson, sign_in
from tests.server.device_api.peer import SimulatedDevice
from tests.server.fleet_fixtures import Fleet, only_sqlite
from tests.server.learning.test_declines import decline
from tests.server.learning.test_rounds import (
    cams,
    published,
    send,
    start,
    the_experiment,
    update,
    waiting,
)
from tests.server.learning.test_waves import NOW
from tests.servers import RunningServer

__all__ = ["cams", "published"]
pytestmark = [only_sqlite, pytest.mark.long]
CHINESE = i18n.translations("zh-Hans").gettext


@pytest.fixture
def page(browser: httpx.Client, make_person: MakePerson) -> httpx.Client:
    make_person("ada")
    assert sign_in(browser, "ada").status_code == 303
    return browser


def press(page: httpx.Client, step: str, **more: str) -> httpx.Response:
    csrf = re.search(r'name="csrf" value="(\w+)"', page.get("/").text)
    assert csrf
    return page.post(f"/learning/1/{step}", data={"csrf": csrf.group(1), **more})


def text_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return " ".join(re.sub(r"<[^>]+>", " ", answer.text).split())


def test_the_page_says_who_takes_no_part_and_why(
    fleet: Fleet, cams: list[SimulatedDevice], page: httpx.Client
) -> None:
    assert "No experiments yet" in text_of(page.get("/learning"))
    start(fleet, policy="careful")
    fleet.operator.post("/api/v1/learning/experiments/1/stop")
    start(fleet)
    assert all(waiting(cam) for cam in cams[:3])
    assert send(cams[0], update(fleet, cams[0])).status_code == 204
    assert decline(fleet, cams[1], Why.TOO_FEW_EXAMPLES, examples=10).status_code == 204
    shown = text_of(page.get("/learning/2"))
    for words in (
        "running",
        "1 answered",
        "1 declined too few labelled examples ( 10 or more there)",
        "1 asked, no answer yet",
        "1 never asked: their owners allow nothing, or they did not come",
        "The plan asks for 20 examples or more of a device",
        "This server sees what each device sent, until the round ends.",
    ):
        assert words.replace("( ", "(") in shown, (words, shown)
    assert "stopped by token/test-operator" in text_of(page.get("/learning"))
    assert 'href="/learning/2"' in page.get("/models/detector").text
    assert "1 answered" in text_of(page.get("/learning/2/live"))


def test_who_was_left_out_stands_with_what_it_cost(
    fleet: Fleet, cams: list[SimulatedDevice], page: httpx.Client
) -> None:
    start(fleet)
    for seed, cam in enumerate(cams):
        assert send(cam, update(fleet, cam, seed, lies=seed == 3)).status_code == 204
    asked = press(page, "end")
    assert "takes no more updates; its result is made of what came" in asked.text
    assert "Devices that took part: 4." in asked.text
    assert the_experiment(fleet)["state"] == "running"
    assert press(page, "end", sure="yes").status_code == 303
    shown = page.get("/learning/1").text
    assert 'href="/devices/cam-3"' in shown.partition("Left out of the result")[2]
    assert "completed" in shown
    assert "formaction" not in shown


def test_pausing_does_it_and_stopping_asks(
    fleet: Fleet, cams: list[SimulatedDevice], page: httpx.Client
) -> None:
    start(fleet)
    assert press(page, "pause").status_code == 303
    assert "paused by person/ada" in text_of(page.get("/learning/1"))
    assert press(page, "resume").status_code == 303
    assert "Their updates are deleted." in press(page, "stop").text
    assert the_experiment(fleet)["state"] == "running"
    assert press(page, "stop", sure="yes").status_code == 303
    assert the_experiment(fleet)["state"] == "stopped"
    assert press(page, "stop", sure="yes").status_code == 409
    assert press(page, "dance").status_code == 404


def test_what_an_experiment_says_is_read_in_chinese(page: httpx.Client) -> None:
    policy = read_policy(name="careful", text=None)
    failed = too_many_failed(policy, Seen(0, 9, 1, NOW, {"out_of_memory": 2, "timed_out": 1}))
    assert failed is not None
    for sentence in (
        failed,
        "paused by person/ada",
        "stopped by token/x",
        "2 of 3 devices took part",
        "no head could be made: Singular matrix",
        what_it_protects(RIDGE),
        what_it_protects(replace(RIDGE, privacy=Privacy(Mode.MASKED, 8))),
        what_it_protects(replace(RIDGE, aggregate=Aggregate.SUM, noise=Noise("2", "1e-6"))),
        "the publisher of detector has dropped plan autumn-1",
        "the plan's time ended with round 2 of 9",
        "round 2: 2 of 3 devices took part; the result is that of round 1",
        "the plan's time ended with round 2 of 9; the result is that of round 1",
        "there is no experiment 7",
        "experiment 7 is stopped",
        "round 2 of experiment 7 is done",
    ):
        told = translated(sentence, CHINESE)
        assert told is not None, sentence
        assert not re.search(r"\b(?:is|of|by|over|failed|took|ended|dropped)\b", told), told
    for why in Why:
        assert CHINESE(REASONS[why]) != REASONS[why]
    page.post("/language", data={"language": "zh-Hans", "next": "/learning"})
    assert "还没有实验" in page.get("/learning").text


SIGHTS = [("light", 1200), ("dark", 390)]


def add_rounds_before(fleet: Fleet, count: int) -> None:
    """Rounds that are done, as a plan of several has them."""
    with fleet.context.db.write() as session:
        (now,) = session.scalars(select(RoundRow))
        now.number = count + 1
        session.flush()
        for number in range(1, count + 1):
            ended = now.opened_at - timedelta(hours=count + 1 - number)
            right = {"left_out": 1, "right": 0.5 + 0.1 * number, "right_with_all": 0.5}
            session.add(
                RoundRow(
                    experiment_id=now.experiment_id, number=number, state="done", figures=right,
                    opened_at=ended, ended_at=ended, ends_at=now.ends_at, devices=3, examples=120,
                )
            )  # fmt: skip


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: install Debian's chromium")
def test_the_page_is_seen_whole_on_a_desk_and_on_a_phone(
    fleet: Fleet, cams: list[SimulatedDevice], server: RunningServer, make_person: MakePerson
) -> None:
    make_person("ada")
    waves = "waves: [{percent: 75%, advance: {answered: 90%, after: 2d}}, {percent: 100%}]"
    start(fleet, policy_text=f"name: p\n{waves}\n")
    inside = [cam for cam in cams if waiting(cam)]
    assert decline(fleet, inside[0], Why.TOO_FEW_EXAMPLES, examples=10).status_code == 204
    add_rounds_before(fleet, 3)
    with chromium() as browser:
        for theme, width in SIGHTS:
            sight = {"viewport": {"width": width, "height": 900}, "color_scheme": theme}
            context = browser.new_context(**sight)
            tab = Watched(context)
            page = tab.page
            page.goto(f"{server.url}/learning/1")
            page.get_by_label("Name").fill("ada")
            page.get_by_label("Password").fill(PASSWORD)
            page.get_by_role("button", name="Sign in").first.click()
            expect(page.locator(".plot canvas")).to_be_visible()
            for name in ("experiment", "learning"):
                fits = "document.documentElement.scrollWidth <= innerWidth"
                assert page.evaluate(fits), (name, theme)
                assert tab.faults() == []
                if folder := os.environ.get("PICTURES"):
                    page.screenshot(path=Path(folder) / f"{name}-{theme}.png", full_page=True)
                page.goto(f"{server.url}/learning")
            assert tab.errors == []
            context.close()
