"""The page under a path, `http://host/pilotwave/`, behind an nginx that takes the path off and
behind one that leaves it: no link, form, script, cookie or redirect leads out of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx
import pytest

from pilotwave_server.base_path import add_to_links, base_path, without_base
from pilotwave_server.errors import BadSetting
from pilotwave_server.settings import Settings, check_settings
from tests.e2e.browser import CHROMIUM, Watched, chromium
from tests.peers.gateway import NGINX, Gateway
from tests.server.dashboard.conftest import PASSWORD, MakePerson, sign_in
from tests.server.fleet_fixtures import Fleet, only_sqlite
from tests.servers import RunningServer

BASE = "/pilotwave"
SITE = """server {
  listen ${PILOTWAVE_LISTEN};
  client_max_body_size 0;
  location /pilotwave/ {
    proxy_pass ${PILOTWAVE_ORIGIN_SCHEME}://${PILOTWAVE_ORIGIN_NAME}%s;
    proxy_http_version 1.1;
    proxy_set_header Host $http_host;
  }
}
"""
LINK = re.compile(r'(href|src|action|hx-get|hx-post)="([^"]*)"')
needs_nginx = pytest.mark.skipif(not NGINX, reason="nginx is not installed")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"page_url": f"http://127.0.0.1{BASE}/"})


@pytest.fixture(params=["/", ""], ids=["taken off", "left"])
def site(server: RunningServer, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server under the path."""
    template = tmp_path / "site.template"
    template.write_text(SITE % request.param)
    gateway = Gateway(server.url, tmp_path / "nginx", template=template)
    yield gateway.url + BASE
    gateway.stop()


@pytest.fixture
def busy(fleet: Fleet) -> Fleet:
    """A fleet in which each page has something to link to."""
    fleet.device(site="berlin")
    fleet.group("berlin", "site=berlin")
    fleet.assign("berlin", "1.0.0")
    wish = {"model": "detector", "version": "1.1.0", "group": "berlin", "policy": "standard"}
    assert fleet.operator.post("/api/v1/rollouts", json=wish).status_code == 201
    return fleet


def visitor(site: str) -> httpx.Client:
    headers = {"Sec-Fetch-Site": "same-origin"}
    return httpx.Client(base_url=site, headers=headers, timeout=60)


@only_sqlite
@needs_nginx
def test_no_link_of_any_page_leads_out_of_the_path(
    site: str, busy: Fleet, make_person: MakePerson
) -> None:
    make_person("ada")
    with visitor(site) as browser:
        came = browser.get("/devices?sort=name")
        assert came.headers["location"] == f"{BASE}/login?next=/devices%3Fsort%3Dname"
        done = sign_in(browser, "ada")
        assert done.headers["location"] == f"{BASE}/"
        cookies = done.headers.get_list("set-cookie")
        assert cookies
        assert all(re.search(rf"path={BASE}/", c, re.IGNORECASE) for c in cookies), cookies
        seen: set[str] = set()
        todo = [f"{site}/"]
        while todo:
            address = todo.pop()
            answer = browser.get(address, follow_redirects=True)
            assert answer.status_code == 200, address
            if not answer.headers["content-type"].startswith("text/html"):
                continue
            for kind, link in LINK.findall(answer.text):
                if link.startswith(("#", "data:")):
                    continue
                found = urlsplit(urljoin(address, unescape(link)))
                assert found.path.startswith(f"{BASE}/"), (address, link)
                if kind == "href" and found.path not in seen and len(seen) < 200:
                    seen.add(found.path)
                    todo.append(found._replace(fragment="").geturl())
        inside = {path.removeprefix(BASE) for path in seen}
        pages = {"/models", "/models/detector/1.1.0", "/rollouts/r1", "/devices/cam-1", "/audit"}
        assert pages | {"/groups/berlin", "/settings/people", "/policies/standard"} <= inside


@only_sqlite
@needs_nginx
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: install Debian's chromium")
def test_a_browser_signs_in_watches_and_uploads_under_the_path(
    site: str, busy: Fleet, make_person: MakePerson, tmp_path: Path
) -> None:
    make_person("ada")
    (tmp_path / "model.onnx").write_bytes(b"bytes of a model")
    failed: list[str] = []
    with chromium() as browser:
        context = browser.new_context()
        tab = Watched(context)
        page = tab.page
        page.on("response", lambda r: failed.append(r.url) if r.status >= 400 else None)
        page.goto(f"{site}/rollouts/r1")
        page.get_by_label("Name").fill("ada")
        page.get_by_label("Password").fill(PASSWORD)
        with page.expect_request(lambda r: r.url.startswith(f"{site}/api/v1/events/stream")):
            page.get_by_role("button", name="Sign in").first.click()
        assert page.url == f"{site}/rollouts/r1"
        page.goto(f"{site}/upload?model=detector")
        page.locator("#version").fill("9.0.0")
        page.locator("#files").set_input_files(tmp_path / "model.onnx")
        with page.expect_response(lambda r: r.url.endswith("/arrived")):
            page.get_by_role("button", name="Hash and upload").click()
        assert tab.errors == []
    assert failed == []


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ('<a href="/">', '<a href="/p/">'),
        ('<form action="/x" hx-post="/y">', '<form action="/p/x" hx-post="/p/y">'),
        ('<use href="/static/1/icons.svg#a"/>', '<use href="/p/static/1/icons.svg#a"/>'),
        ('<a href="#main"><a href="https://x/"><img src="data:,">', None),
        ('<a href="//elsewhere/">', None),
        ('<input value="/devices"> href=&#34;/&#34;', None),
    ],
)
def test_links_and_nothing_else_are_changed(html: str, expected: str | None) -> None:
    assert add_to_links(html, "/p") == (html if expected is None else expected)
    assert add_to_links(html, "") == html


def test_paths_lose_the_base_and_others_stay() -> None:
    assert without_base("/p", "/p") == without_base("/p/", "/p") == "/"
    assert without_base("/p/devices", "/p") == "/devices"
    assert without_base("/people", "/p") == "/people"
    assert without_base("/devices", "") == "/devices"
    assert base_path("https://x/a/b/") == "/a/b"
    assert base_path("https://x/") == base_path("https://x") == base_path("") == ""


@only_sqlite
@pytest.mark.parametrize("url", ['https://x/a"b', "https://x/a b", "https://x/ä", "https://x//y"])
def test_a_path_that_no_link_can_hold_is_refused(url: str, settings: Settings) -> None:
    with pytest.raises(BadSetting, match="expected a path such as /pilotwave"):
        check_settings(settings.model_copy(update={"page_url": url}))
