"""Signing in and what stands against those who should not: guessing, planting, forging, framing."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

import httpx
import pyotp
import pytest
from sqlalchemy import select

from pilotwave_server.context import Context
from pilotwave_server.dashboard.pages import safe_next
from pilotwave_server.operators import people, throttle
from pilotwave_server.operators.roles import Role
from pilotwave_server.operators.sessions import (
    COOKIE,
    HALF_WAY,
    IDLE,
    LIFE,
    REMEMBER,
    PersonSessions,
)
from pilotwave_server.operators.tables import PersonRow, PersonSessionRow
from tests.server.dashboard.conftest import PASSWORD, MakePerson, sign_in
from tests.server.fleet_fixtures import Fleet, only_sqlite

pytestmark = only_sqlite


def csrf_of(browser: httpx.Client) -> str:
    found = re.search(r'name="csrf" value="([0-9a-f]+)"', browser.get("/account").text)
    assert found is not None
    return found[1]


def link_for(context: Context, name: str) -> str:
    with context.db.write() as session:
        row = people.get_person(session, name)
        return people.make_link(session, row, actor="server", now=context.clock()).plaintext


def test_a_good_password_opens_a_session_with_a_careful_cookie(
    browser: httpx.Client, make_person: MakePerson
) -> None:
    make_person("ada")
    answer = sign_in(browser, "ada")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = next(c for c in answer.headers.get_list("set-cookie") if c.startswith(COOKIE))
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert browser.get("/").status_code == 200


def test_wrong_names_and_wrong_passwords_get_one_answer(
    browser: httpx.Client, make_person: MakePerson
) -> None:
    make_person("ada")
    wrong, unknown = sign_in(browser, "ada", "not this one"), sign_in(browser, "bob")
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.text.replace("ada", "") == unknown.text.replace("bob", "")


def test_the_password_is_nowhere_in_the_database_but_as_argon2id(
    context: Context, make_person: MakePerson
) -> None:
    make_person("ada")
    with context.db.read() as session:
        row = session.scalars(select(PersonRow)).one()
    assert str(row.password_hash).startswith("$argon2id$")
    assert PASSWORD not in str(row.password_hash)


def test_a_planted_cookie_is_worth_nothing_after_the_login(
    browser: httpx.Client, make_person: MakePerson, context: Context
) -> None:
    make_person("ada")
    sign_in(browser, "ada")
    first = browser.cookies[COOKIE]
    sign_in(browser, "ada")
    assert browser.cookies[COOKIE] != first
    context.get(PersonSessions).forget()
    old = httpx.get(f"{browser.base_url}", cookies={COOKIE: first}, timeout=30)
    assert old.status_code == 303
    assert (
        httpx.get(f"{browser.base_url}", cookies={COOKIE: "a" * 64}, timeout=30).status_code == 303
    )


def test_signing_out_ends_the_session_on_the_server(
    browser: httpx.Client, make_person: MakePerson, context: Context
) -> None:
    make_person("ada")
    sign_in(browser, "ada")
    cookie, csrf = browser.cookies[COOKIE], csrf_of(browser)
    assert browser.post("/logout", data={"csrf": "0" * 32}).status_code == 403
    assert browser.post("/logout", data={"csrf": csrf}).status_code == 303
    assert httpx.get(f"{browser.base_url}", cookies={COOKIE: cookie}, timeout=30).status_code == 303


@pytest.mark.parametrize("passed", [IDLE, LIFE])
def test_a_session_ends_by_itself(
    browser: httpx.Client, make_person: MakePerson, clock: Any, passed: Any
) -> None:
    make_person("ada")
    sign_in(browser, "ada")
    clock.advance(seconds=passed.total_seconds() + 1)
    assert browser.get("/").status_code == 303


def test_guessing_is_slowed_down_by_account_and_the_right_password_waits_too(
    browser: httpx.Client, make_person: MakePerson, clock: Any
) -> None:
    make_person("ada")
    for _ in range(throttle.FREE_BY_PAIR + 1):
        assert sign_in(browser, "ada", "wrong password").status_code == 401
    slowed = sign_in(browser, "ada")
    assert slowed.status_code == 429
    assert int(slowed.headers["retry-after"]) > 0
    clock.advance(seconds=int(slowed.headers["retry-after"]) + 1)
    assert sign_in(browser, "ada").status_code == 303


def test_guessing_is_slowed_down_by_address_whatever_the_name(browser: httpx.Client) -> None:
    answers = [
        sign_in(browser, f"name{n}", "wrong password").status_code
        for n in range(throttle.FREE_BY_ADDRESS + 3)
    ]
    assert answers[-1] == 429


def test_a_login_link_works_once_and_looking_at_it_does_not_use_it_up(
    browser: httpx.Client, make_person: MakePerson, context: Context
) -> None:
    make_person("ada")
    link = f"/login/link/{link_for(context, 'ada')}"
    new = {"password": "another good one", "again": "another good one"}
    assert browser.get(link).status_code == 200
    assert browser.post(link, data={**new, "again": "x"}).status_code == 422
    weak = {"password": "short", "again": "short"}
    assert browser.post(link, data=weak).status_code == 422
    assert browser.post(link, data=new).headers["location"] == "/"
    assert browser.get("/").status_code == 200
    assert browser.post(link, data=new).status_code == 403
    assert sign_in(browser, "ada", new["password"]).status_code == 303


def test_a_login_link_expires_and_dies_with_the_account(
    browser: httpx.Client, make_person: MakePerson, context: Context, clock: Any
) -> None:
    make_person("ada")
    make_person("bob")
    late = link_for(context, "ada")
    clock.advance(seconds=people.LINK_LIFE.total_seconds() + 1)
    new = {"password": "another good one", "again": "another good one"}
    assert browser.post(f"/login/link/{late}", data=new).status_code == 403
    gone = link_for(context, "bob")
    with context.db.write() as session:
        people.disable(session, name="bob", actor="server", now=clock())
    assert browser.post(f"/login/link/{gone}", data=new).status_code == 403


def turn_on_codes(browser: httpx.Client) -> pyotp.TOTP:
    page = browser.get("/account").text
    secret = re.search(r'name="secret" value="([A-Z2-7]+)"', page)
    assert secret is not None
    return pyotp.TOTP(secret[1])


def test_the_code_for_the_authenticator_is_dark_on_white_whatever_the_page_is(
    browser: httpx.Client, make_person: MakePerson
) -> None:
    make_person("ada")
    sign_in(browser, "ada")
    image = re.search(r'<img src="data:image/svg[^,]*,([^"]*)"', browser.get("/account").text)
    assert image
    assert '<path fill="#fff" d="M0 0h' in unquote(image[1]).replace("'", '"')


def test_one_time_codes_are_asked_for_and_work_once(
    browser: httpx.Client, make_person: MakePerson, clock: Any, context: Context
) -> None:
    make_person("ada")
    sign_in(browser, "ada")
    totp = turn_on_codes(browser)
    form = {"csrf": csrf_of(browser), "secret": totp.secret, "current": PASSWORD}
    wrong = browser.post("/account/totp-on", data={**form, "code": "000000"})
    assert wrong.status_code == 422
    form["code"] = totp.at(clock.now)
    assert browser.post("/account/totp-on", data=form).status_code == 303
    browser.cookies.clear()
    clock.advance(seconds=60)
    assert sign_in(browser, "ada").headers["location"].startswith("/login/code")
    half_way = browser.cookies[COOKIE]
    assert browser.get("/").status_code == 303
    api = browser.get("/api/v1/status")
    assert api.status_code == 401
    code = totp.at(clock.now)
    assert browser.post("/login/code", data={"code": "12"}).status_code == 401
    assert browser.post("/login/code", data={"code": code}).status_code == 303
    assert browser.cookies[COOKIE] != half_way
    assert browser.get("/").status_code == 200
    browser.cookies.clear()
    sign_in(browser, "ada")
    again = browser.post("/login/code", data={"code": code})
    assert again.status_code == 401


def test_a_session_half_way_ends_soon(
    browser: httpx.Client, make_person: MakePerson, clock: Any, context: Context
) -> None:
    make_person("ada")
    with context.db.write() as session:
        people.get_person(session, "ada").totp_secret = pyotp.random_base32()
    sign_in(browser, "ada")
    clock.advance(seconds=HALF_WAY.total_seconds() + REMEMBER.total_seconds())
    assert browser.get("/login/code").headers["location"] == "/login"


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
def test_a_login_form_that_another_site_sends_is_refused(
    client: httpx.Client, make_person: MakePerson, headers: dict[str, str]
) -> None:
    make_person("ada")
    answer = client.post("/login", data={"name": "ada", "password": PASSWORD}, headers=headers)
    assert answer.status_code == 403
    assert COOKIE not in answer.cookies


@pytest.mark.parametrize(
    "path",
    ["//evil.example", "https://evil.example", "/\\evil.example", "/a\\b", "javascript:x", "", "x",
     "///evil.example", "/\t/evil.example", "/" + "a" * 550],
)  # fmt: skip
def test_nobody_is_sent_to_another_site_after_the_login(
    browser: httpx.Client, make_person: MakePerson, path: str
) -> None:
    assert safe_next(path) == "/"
    make_person("ada")
    answer = browser.post("/login", data={"name": "ada", "password": PASSWORD, "next": path})
    assert answer.headers["location"] == "/"
    assert safe_next("/rollouts?state=running") == "/rollouts?state=running"


def test_every_page_forbids_framing_inline_scripts_and_sniffing(
    browser: httpx.Client, make_person: MakePerson
) -> None:
    make_person("ada")
    sign_in(browser, "ada")
    for path in ("/", "/devices", "/rollouts", "/login/code", "/nothing-here", "/rollouts/r999"):
        headers = browser.get(path).headers
        if path == "/nothing-here":
            continue
        policy = headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
    page = browser.get("/").text
    assert "<script>" not in page
    assert "style=" not in page
    assert not re.search(r"\son[a-z]+=", page)


EVIL = "<script>alert(1)</script>"


def test_names_and_labels_are_shown_and_never_run(
    fleet: Fleet, browser: httpx.Client, make_person: MakePerson
) -> None:
    make_person("ada")
    sign_in(browser, "ada")
    fleet.device("cam-1", site=EVIL, note='"><img src=x>')
    fleet.operator.post("/api/v1/groups", json={"name": "g", "selector": "*", "description": EVIL})
    fleet.deny("1.1.0", EVIL)
    fleet.act("cam-1", "models/detector/pin", version="1.0.0", reason=EVIL)
    pages = ["/", "/devices", "/devices/cam-1", "/groups", "/groups/g", "/models/detector"]
    pages += ["/models/detector/1.1.0", "/audit", f"/search?q={EVIL}", f"/devices?selector={EVIL}"]
    for path in pages:
        text = browser.get(path).text
        assert EVIL not in text, path
        assert "<img src=x>" not in text, path
    assert "&lt;script&gt;" in browser.get("/devices/cam-1").text


def test_a_form_with_a_mistake_keeps_what_was_typed_and_says_it_beside_the_field(
    fleet: Fleet, browser: httpx.Client, make_person: MakePerson
) -> None:
    make_person("ada")
    sign_in(browser, "ada")
    csrf = csrf_of(browser)
    form = {"csrf": csrf, "name": "berlin", "selector": "site=(", "description": "kept"}
    answer = browser.post("/groups", data=form)
    assert answer.status_code == 422
    assert 'value="site=("' in answer.text
    assert 'value="kept"' in answer.text
    assert 'id="wrong-selector"' in answer.text
    wish = {"csrf": csrf, "model": "detector", "version": "1.0.0", "group": "nobody",
            "policy": "standard", "description": "typed"}  # fmt: skip
    refused = browser.post("/rollouts/new", data=wish)
    assert refused.status_code == 404
    assert 'id="wrong-group"' in refused.text
    assert 'value="typed"' in refused.text


def test_a_disabled_person_is_out_at_once(
    browser: httpx.Client, admin: httpx.Client, make_person: MakePerson
) -> None:
    make_person("ada", Role.OPERATOR)
    make_person("root", Role.ADMIN)
    sign_in(browser, "ada")
    assert browser.get("/").status_code == 200
    assert admin.patch("/api/v1/people/ada", json={"disabled": True}).status_code == 200
    assert browser.get("/").status_code == 303
    assert sign_in(browser, "ada").status_code == 401
    last = admin.patch("/api/v1/people/root", json={"role": "viewer"})
    assert last.json()["code"] == "last_admin_person"


def test_a_session_row_holds_no_cookie(
    browser: httpx.Client, make_person: MakePerson, context: Context
) -> None:
    make_person("ada")
    sign_in(browser, "ada")
    with context.db.read() as session:
        row = session.scalars(select(PersonSessionRow)).one()
    assert browser.cookies[COOKIE] not in (row.secret_sha256, row.csrf)
