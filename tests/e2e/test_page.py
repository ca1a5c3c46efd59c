"""The web page in a real browser: the three jobs by clicks alone, and every page's health."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from demo.stage import BIN, Stage
from tests.e2e.browser import CHROMIUM, Watched, chromium

REPO = Path(__file__).resolve().parent.parent.parent
PASSWORD = "correct horse battery"
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: install Debian's chromium"),
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
    stage = Stage(tmp_path_factory.mktemp("stage"))
    stage.settings = {"PILOTWAVE_POLL_INTERVAL_S": "1", "PILOTWAVE_CHECK_IN_INTERVAL_S": "2"}
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
        stage.pilotwave("groups", "create", "berlin", "--selector", "site=berlin")
        stage.pilotwave("assign", "detector", "1.0.0", "--group", "berlin")
        (stage.root / "quick.yaml").write_text(QUICK)
        stage.pilotwave("policies", "save", "quick", "quick.yaml")
        wish = ("create", "detector", "1.0.0", "--group", "berlin", "--policy", "quick")
        stage.pilotwave("rollouts", *wish)
        stage.pilotwave("rollouts", "abort", "r1")
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
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB")
    tab = Watched(context)
    tab.page.goto(stage.url + (stage.root / "login").read_text())
    tab.page.get_by_label("New password").fill(PASSWORD)
    tab.page.get_by_label("Once more").fill(PASSWORD)
    tab.page.get_by_role("button", name="Set it and sign in").click()
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
    words = [w.replace("=.", f"={stage.root / '1.1.0'}") if w.endswith("=.") else w for w in words]
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
    page.get_by_label("Under the policy").select_option("quick")
    expect(page.get_by_text("onnx-fp32: 1")).to_be_visible()
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
    expect(page.locator(".flash")).to_contain_text("cam-1 goes back to detector 1.0.0")

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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_a_serious_fault_of_accessibility_or_an_error(
    stage: Stage, browser: Browser, signed_in: BrowserContext, scheme: str
) -> None:
    context = browser.new_context(
        color_scheme="dark" if scheme == "dark" else "light",
        storage_state=signed_in.storage_state(),
    )
    tab = Watched(context)
    for path in PAGES:
        answer = tab.page.goto(stage.url + path)
        assert answer is not None
        assert answer.status == 200, path
        faults = tab.faults()
        assert not faults, f"{path} ({scheme}): {faults[:5]}"
    context.close()
    assert tab.errors == []


def test_no_page_is_wider_than_a_phone(
    stage: Stage, browser: Browser, signed_in: BrowserContext
) -> None:
    context = browser.new_context(
        viewport={"width": 360, "height": 740}, storage_state=signed_in.storage_state()
    )
    tab = Watched(context)
    for path in PAGES:
        tab.page.goto(stage.url + path)
        width = tab.page.evaluate("document.documentElement.scrollWidth")
        assert width <= 360, f"{path} is {width} wide"
    tab.page.goto(stage.url)
    tab.page.get_by_label("Menu").click()
    tab.page.get_by_role("link", name="Rollouts").click()
    expect(tab.page.get_by_role("heading", name="Rollouts", exact=True)).to_be_visible()
    context.close()
    assert tab.errors == []


def test_a_page_weighs_little(stage: Stage, tab: Watched) -> None:
    weight: dict[str, int] = {}
    tab.page.on("response", lambda r: weight.__setitem__(r.url, len(r.body())))
    for path in PAGES:
        weight.clear()
        tab.page.goto(stage.url + path, wait_until="load")
        assert sum(weight.values()) < 150_000, (path, weight)


def test_the_page_speaks_chinese_when_asked(
    stage: Stage, browser: Browser, signed_in: BrowserContext
) -> None:
    context = browser.new_context(locale="zh-CN", storage_state=signed_in.storage_state())
    tab = Watched(context)
    for path in PAGES:
        tab.page.goto(stage.url + path)
        assert tab.page.locator("html").get_attribute("lang") == "zh-Hans"
        heading = tab.page.locator("nav[aria-label]").first.inner_text()
        assert re.search("[\u4e00-\u9fff]", heading), path
    context.close()
    assert tab.errors == []
