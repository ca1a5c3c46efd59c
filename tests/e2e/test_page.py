"""The web page in a real browser: the three jobs by clicks alone, and every page's health."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from babel.messages.pofile import read_po
from playwright.sync_api import Browser, BrowserContext, ViewportSize, expect

from demo.stage import BIN, Stage
from pilotwave_server.dashboard import i18n
from tests.e2e.browser import CHROMIUM, Watched, chromium
from tests.e2e.stage import ForkedStage

REPO = Path(__file__).resolve().parent.parent.parent
PASSWORD = "correct horse battery"
DESKTOP: ViewportSize = {"width": 1280, "height": 900}
PHONE: ViewportSize = {"width": 360, "height": 740}
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: install Debian's chromium"),
    pytest.mark.long,
]
QUICK = """
name: quick
description: Half, then all, for the test.
waves:
  - percent: 100%
    gates:
      - max_failure_rate: 50%
"""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A server, a publisher's keys, version 1.0.0, and one agent that runs it."""
    stage = ForkedStage(tmp_path_factory.mktemp("stage"))
    stage.settings = {"PILOTWAVE_POLL_INTERVAL_S": "1", "PILOTWAVE_CHECK_IN_INTERVAL_S": "2"}
    stage.settings["PILOTWAVE_DISTRIBUTION_INTERVAL_S"] = "1"
    words = ("init", "--data", "data", "--fleet", "acme", "--json")
    made = json.loads(stage.run("pilotwave-server", *words))
    (stage.root / "admin.token").write_text(made["admin_token"])
    (stage.root / "login").write_text(made["login_link"])
    try:
        stage.start_server()
        stage.pilotwave("keys", "init", "--dir", "keys", "--plain")
        stage.pilotwave("models", "create", "detector", "--publisher", "keys/publisher.pem")
        for version in ("1.0.0", "1.1.0"):
            folder = stage.root / version
            folder.mkdir()
            for file in (REPO / "examples" / "digits" / version).iterdir():
                (folder / file.name).write_bytes(file.read_bytes())
        variant = ("--variant", "onnx-fp32=1.0.0", "--key", "keys/publisher.pem")
        stage.pilotwave("publish", "detector", "1.0.0", *variant)
        code = stage.ask("codes", "create", "--label", "site=berlin")["items"][0]["code"]
        where = ("--server", stage.url, "--name", "cam-1", "--code", code)
        stage.run("pilotwave-agent", "enrol", *where, "--root", "keys/root.json", "--data", "cam-1")
        config = stage.root / "cam-1" / "agent.toml"
        config.write_text(config.read_text() + "\nprobation_s = 1\n")
        stage.pilotwave("groups", "create", "berlin", "--selector", "site=berlin")
        stage.pilotwave("assign", "--yes", "detector", "1.0.0", "--group", "berlin")
        (stage.root / "quick.yaml").write_text(QUICK)
        stage.pilotwave("policies", "save", "quick", "quick.yaml")
        wish = ("create", "detector", "1.0.0", "--group", "berlin", "--policy", "quick")
        stage.pilotwave("rollouts", *wish)
        stage.pilotwave("rollouts", "abort", "--yes", "r1")
        stage.start("cam-1", "pilotwave-agent", "run", "--data", "cam-1")
        yield stage
    finally:
        stage.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def signed_in(stage: Stage, browser: Browser) -> Iterator[BrowserContext]:
    """Somebody who came in by the first admin's link, and set a password."""
    context = browser.new_context(viewport=DESKTOP, locale="en-GB")
    tab = Watched(context)
    tab.page.goto(stage.url + (stage.root / "login").read_text())
    tab.page.get_by_label("New password").fill(PASSWORD)
    tab.page.get_by_label("Repeat the password").fill(PASSWORD)
    tab.page.get_by_role("button", name="Set the password and sign in").click()
    expect(tab.page.get_by_role("heading", name="Fleet acme")).to_be_visible()
    assert tab.errors == []
    tab.page.close()
    yield context
    context.close()


@pytest.fixture
def tab(signed_in: BrowserContext) -> Iterator[Watched]:
    """A new tab, which must end without an error in its console."""
    watched = Watched(signed_in)
    yield watched
    watched.page.close()
    assert watched.errors == []


def test_the_three_jobs_are_done_by_clicks_alone(stage: Stage, tab: Watched) -> None:
    """Upload a version, stage its rollout to a group, roll a device back."""
    page = tab.page
    page.goto(stage.url)
    # 1: upload, and sign with the command that the page gives
    page.get_by_role("link", name="Models", exact=True).click()
    page.get_by_role("link", name="New version").click()
    page.get_by_label("Version", exact=True).fill("1.1.0")
    page.get_by_label("Files of the variant").set_input_files(
        sorted((stage.root / "1.1.0").iterdir())
    )
    page.get_by_role("button", name="Hash and upload").click()
    command = page.locator("#command")
    expect(command).to_contain_text("pilotwave publish detector 1.1.0")
    expect(page.get_by_text("Waiting for the signature")).to_be_visible()
    words = shlex.split(command.inner_text())
    words = [w.replace("=FOLDER", f"={stage.root / '1.1.0'}") for w in words]
    done = subprocess.run(
        [str(BIN / words[0]), *words[1:]],
        cwd=stage.root,
        env=stage.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expect(page.get_by_text("detector 1.1.0 is signed and published.")).to_be_visible()
    # 2: stage its rollout, and see it complete without a reload
    page.get_by_role("link", name="Roll it out").click()
    page.get_by_label("To the group").select_option("berlin")
    page.get_by_label("Policy", exact=True).select_option("quick")
    expect(page.get_by_text("onnx-fp32: 1")).to_be_visible()
    expect(page.get_by_label("Start at once")).not_to_be_checked()
    page.get_by_label("Start at once").check()
    page.get_by_role("button", name="Create the rollout").click()
    expect(page.get_by_role("heading", name="detector 1.1.0 → berlin")).to_be_visible()
    page.evaluate("window.sameDocument = true")
    expect(page.locator("#live .head .chip")).to_have_text("completed", timeout=180_000)
    assert page.evaluate("window.sameDocument")
    expect(page.locator(".counts").first).to_contain_text("1 healthy")
    # 3: roll the device back
    page.get_by_role("link", name="Devices", exact=True).click()
    page.get_by_role("link", name="cam-1").click()
    page.get_by_placeholder("Reason, for the log").fill("it sees ghosts")
    page.get_by_role("button", name="Roll back").click()
    expect(page.locator(".flash")).to_contain_text("cam-1 rolls back to detector 1.0.0")

    def runs_again() -> bool:
        return (stage.root / "cam-1/models/detector/current").readlink().name.startswith("1.0.0-")

    for _ in range(120):
        if runs_again():
            break
        page.wait_for_timeout(500)
    assert runs_again()


PAGES = (
    *("/", "/models", "/models/detector", "/models/detector/1.0.0", "/upload", "/rollouts"),
    *("/rollouts/new", "/rollouts/r1", "/devices", "/devices/cam-1", "/groups", "/groups/berlin"),
    *("/policies", "/policies/standard", "/policies/new", "/audit", "/search?q=cam"),
    *("/settings/people", "/settings/tokens", "/settings/codes", "/settings/webhooks", "/account"),
)


def test_every_page_is_sound_in_both_themes_and_on_a_phone(
    stage: Stage, browser: Browser, signed_in: BrowserContext
) -> None:
    """Each page is loaded once: no error, no serious fault of accessibility in light or dark, less
    than 150 kB with all that it loads, and no wider than a phone."""
    context = browser.new_context(
        viewport=DESKTOP, color_scheme="light", storage_state=signed_in.storage_state()
    )
    tab = Watched(context)
    weight: dict[str, int] = {}
    tab.page.on("response", lambda r: weight.__setitem__(r.url, len(r.body())))
    for path in PAGES:
        weight.clear()
        answer = tab.page.goto(stage.url + path, wait_until="load")
        assert answer is not None
        assert answer.status == 200, path
        assert sum(weight.values()) < 150_000, (path, weight)
        faults = tab.faults()
        tab.page.emulate_media(color_scheme="dark")
        faults += tab.faults("color-contrast")
        assert not faults, f"{path}: {faults[:5]}"
        tab.page.set_viewport_size(PHONE)
        width = tab.page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE["width"], f"{path} is {width} wide"
        tab.page.set_viewport_size(DESKTOP)
        tab.page.emulate_media(color_scheme="light")
    tab.page.set_viewport_size(PHONE)
    tab.page.get_by_label("Menu").click()
    tab.page.get_by_role("link", name="Rollouts").click()
    expect(tab.page.get_by_role("heading", name="Rollouts", exact=True)).to_be_visible()
    context.close()
    assert tab.errors == []


TEXTS = """() => {
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = new Set();
  while (walk.nextNode()) {
    const { parentElement, data } = walk.currentNode;
    const other = 'script, style, code, pre, template, [lang="en"]';
    if (!parentElement.closest(other)) found.add(data.trim());
  }
  for (const input of document.querySelectorAll('[placeholder]')) found.add(input.placeholder);
  return [...found];
}"""


def test_the_page_speaks_chinese_when_asked_and_no_english_is_left(
    stage: Stage, browser: Browser, signed_in: BrowserContext
) -> None:
    with (i18n.LOCALE / "zh_CN/LC_MESSAGES/pilotwave.po").open("rb") as file:
        english = {str(m.id) for m in read_po(file) if m.id and m.id != m.string}
    context = browser.new_context(locale="zh-CN", storage_state=signed_in.storage_state())
    tab = Watched(context)
    for path in PAGES:
        tab.page.goto(stage.url + path)
        assert tab.page.locator("html").get_attribute("lang") == "zh-Hans"
        shown = set(tab.page.evaluate(TEXTS))
        assert any(re.search("[\u4e00-\u9fff]", text) for text in shown), path
        # names of people and groups may be words of ours
        assert not (shown & english) - {"admin", "quick"}, path
    context.close()
    assert tab.errors == []


def test_times_are_told_in_the_viewers_zone(
    stage: Stage, browser: Browser, signed_in: BrowserContext
) -> None:
    context = browser.new_context(
        locale="en-GB", timezone_id="Asia/Kolkata", storage_state=signed_in.storage_state()
    )
    tab = Watched(context)
    tab.page.goto(stage.url + "/audit")
    shown = tab.page.locator("tbody time").last
    at = datetime.fromisoformat(str(shown.get_attribute("datetime")))
    there = at.astimezone(timezone(timedelta(hours=5, minutes=30)))
    expect(shown).to_contain_text(f"{there:%H:%M}")
    # and one that is chosen there goes to the server in UTC
    tab.page.goto(stage.url + "/rollouts/new")
    tab.page.get_by_label("Start automatically at").fill("2027-01-31T15:00")
    expect(tab.page.locator("[name=start_at]")).to_have_value("2027-01-31T09:30:00Z")
    context.close()
    assert tab.errors == []


def test_charts_are_drawn_and_read_by_keys(stage: Stage, tab: Watched) -> None:
    plot = tab.page.locator("[data-chart]").first
    tab.page.goto(stage.url)
    for _ in range(120):  # the server counts once a second, once a device runs something
        if plot.count():
            break
        tab.page.wait_for_timeout(500)
        tab.page.reload()
    expect(plot.locator("canvas")).to_be_visible()
    at = tab.page.locator(".chart .at").first
    expect(at).to_be_empty()
    plot.focus()
    tab.page.keyboard.press("ArrowLeft")
    expect(at).not_to_be_empty()
    tab.page.get_by_text("As a table").first.click()
    expect(tab.page.locator(".chart tbody tr").first).to_be_visible()


def test_devices_are_sorted_by_a_click_and_the_address_keeps_it(stage: Stage, tab: Watched) -> None:
    tab.page.goto(f"{stage.url}/devices?selector=site%3Dberlin")
    header = tab.page.get_by_role("columnheader", name="Last seen")
    for turn in ("descending", "ascending"):
        header.get_by_role("link").click()
        expect(header).to_have_attribute("aria-sort", turn)
    assert "sort=last_seen" in tab.page.url
    assert "selector=site%3Dberlin" in tab.page.url
