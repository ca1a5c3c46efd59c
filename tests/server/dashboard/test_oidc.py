"""Signing in with OpenID Connect, against a provider over HTTP: honest, and lying in each way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from pilotwave_server.app import create_app
from pilotwave_server.context import Context
from pilotwave_server.errors import BadSetting
from pilotwave_server.operators import people, service
from pilotwave_server.operators.roles import Role
from pilotwave_server.operators.tables import PersonRow
from pilotwave_server.settings import Settings, load_settings
from tests.peers.oidc import CLIENT, SECRET, Provider
from tests.server.fleet_fixtures import only_sqlite
from tests.servers import RunningServer, run_in_thread

pytestmark = only_sqlite


@pytest.fixture(scope="module")
def running() -> Iterator[Provider]:
    provider = Provider()
    with run_in_thread(provider.app()) as server:
        provider.url = server.url
        yield provider


PUBLIC = "http://fleet.example"
PASSWORD = "correct horse battery"
Make = Callable[..., None]


@pytest.fixture
def provider(running: Provider) -> Provider:
    running.claims, running.lies = {"sub": "ada-at-acme", "preferred_username": "ada"}, set()
    return running


@pytest.fixture
def oidc(provider: Provider) -> dict[str, Any]:
    return {
        "public_url": PUBLIC,
        "oidc_issuer": provider.url,
        "oidc_client_id": CLIENT,
        "oidc_client_secret": SECRET,
        "oidc_name": "Acme Login",
    }


@pytest.fixture
def server(settings: Settings, oidc: dict[str, Any], clock: Any) -> Iterator[RunningServer]:
    with run_in_thread(create_app(settings.model_copy(update=oidc), clock=clock)) as running:
        yield running


@pytest.fixture
def person(context: Context) -> Make:
    """`person("ada", subject="ada-at-acme")` makes somebody; a subject is bound by an admin."""

    def make(
        name: str, *, issuer: str = "", subject: str = "", password: str = "", role: str = "viewer"
    ) -> None:
        now = context.clock()
        with context.db.write() as session:
            row = people.create_person(session, name=name, role=Role(role), actor="server", now=now)
            if password:
                people.set_password(session, row, password, actor="server", now=now)
            if subject:
                people.bind(session, row, issuer=issuer, subject=subject, actor="server", now=now)

    return make


@pytest.fixture
def ada(person: Make, provider: Provider) -> None:
    person("ada", issuer=provider.url, subject="ada-at-acme", role="operator")


@pytest.fixture
def browser(server: RunningServer) -> Iterator[httpx.Client]:
    headers = {"Sec-Fetch-Site": "same-origin"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
        yield client


def come_back(browser: httpx.Client, off: httpx.Response) -> httpx.Response:
    """Be signed in at the provider and follow it back, wherever the public address leads."""
    assert off.status_code == 303, off.text
    back = httpx.get(off.headers["location"], timeout=30).headers["location"]
    assert back.startswith(f"{PUBLIC}/login/oidc/back?"), back
    return browser.get(back.removeprefix(PUBLIC))


def there_and_back(browser: httpx.Client, next: str = "/devices") -> httpx.Response:
    return come_back(browser, browser.get("/login/oidc", params={"next": next}))


def found(context: Context, name: str) -> PersonRow:
    with context.db.read() as session:
        return people.get_person(session, name)


def link_for(context: Context, name: str) -> str:
    with context.db.write() as session:
        row = people.get_person(session, name)
        made = people.make_link(session, row, actor="server", now=context.clock())
    return f"/login/link/{made.plaintext}"


def test_somebody_whose_subject_is_bound_comes_in_and_lands_where_they_wanted(
    browser: httpx.Client, ada: None
) -> None:
    assert "Acme Login" in browser.get("/login").text
    answer = there_and_back(browser)
    assert (answer.status_code, answer.headers["location"]) == (303, "/devices")
    assert browser.get("/devices").status_code == 200
    assert there_and_back(browser).status_code == 303


# A name at the provider is its holder's to choose, so no name may lead to an account here.
@pytest.mark.parametrize(
    "claims",
    [
        {"preferred_username": "admin"},
        {"preferred_username": "ADMIN"},
        {"preferred_username": "Admin "},
        {"preferred_username": "\uff41dmin"},  # full-width a, which NFKC folds to "a"
        {"preferred_username": "ad\u0131n"},
        {"preferred_username": ["admin"]},
        {"email": "admin@acme.example", "email_verified": True},
        {"email": "admin@elsewhere.example", "email_verified": "true"},
        {"name": "admin", "nickname": "admin", "upn": "admin"},
    ],
    ids=str,
)
@pytest.mark.parametrize("password", ["", PASSWORD], ids=["no password yet", "password"])
def test_no_name_takes_over_an_account(
    browser: httpx.Client,
    provider: Provider,
    person: Make,
    context: Context,
    claims: dict[str, Any],
    password: str,
) -> None:
    person("admin", password=password, role="admin")
    provider.claims = {"sub": "mallory", **claims}
    assert there_and_back(browser).status_code == 403
    assert browser.get("/devices").status_code == 303
    assert found(context, "admin").oidc_subject is None


def test_a_stranger_is_told_what_an_admin_has_to_type(
    browser: httpx.Client, provider: Provider, person: Make
) -> None:
    person("ada", password=PASSWORD)
    provider.claims["sub"] = "<b>ada</b>"
    answer = there_and_back(browser)
    assert answer.status_code == 403
    assert "pilotwave people bind" in answer.text
    assert "&lt;b&gt;ada&lt;/b&gt;" in answer.text
    assert "<b>ada" not in answer.text


def test_the_first_login_on_an_empty_server_makes_nobody(
    browser: httpx.Client, context: Context
) -> None:
    assert there_and_back(browser).status_code == 403
    with context.db.read() as session:
        assert session.query(PersonRow).count() == 0


@pytest.mark.parametrize(
    "claims",
    [
        {"roles": ["admin"], "role": "admin", "groups": ["admins", "pilotwave-admin"]},
        {"realm_access": {"roles": ["admin"]}, "admin": True},
    ],
    ids=["roles and groups", "realm roles"],
)
def test_no_claim_changes_a_role(
    browser: httpx.Client, provider: Provider, ada: None, context: Context, claims: dict[str, Any]
) -> None:
    provider.claims |= claims
    assert there_and_back(browser).status_code == 303
    assert found(context, "ada").role == "operator"


def test_who_was_renamed_at_the_provider_is_the_same_person(
    browser: httpx.Client, provider: Provider, ada: None, person: Make, context: Context
) -> None:
    person("bob", password=PASSWORD, role="admin")
    provider.claims["preferred_username"] = "bob"
    assert there_and_back(browser).status_code == 303
    assert found(context, "ada").last_login_at is not None
    assert found(context, "bob").last_login_at is None


def test_another_subject_or_another_issuer_is_another_person(
    browser: httpx.Client, provider: Provider, person: Make
) -> None:
    person("ada", issuer="https://old.example", subject="ada-at-acme")
    assert there_and_back(browser).status_code == 403
    person("bob", issuer=provider.url, subject="ada-at-acme ")
    assert there_and_back(browser).status_code == 403
    person("eve", issuer=provider.url, subject="ada-at-acme")
    assert there_and_back(browser).status_code == 303


def test_two_long_subjects_are_never_one(
    browser: httpx.Client, provider: Provider, person: Make
) -> None:
    """A subject was cut to what its column holds, so that two could become one."""
    person("ada", issuer=provider.url, subject="x" * 255)
    for sub in ("x" * 256, "x" * 700, "", 7, None):
        provider.claims["sub"] = sub
        assert there_and_back(browser).status_code == 403, sub
    provider.claims["sub"] = "x" * 255
    assert there_and_back(browser).status_code == 303


def test_somebody_disabled_stays_out(
    browser: httpx.Client, provider: Provider, ada: None, person: Make, context: Context
) -> None:
    person("root", password=PASSWORD, role="admin")
    assert there_and_back(browser).status_code == 303
    with context.db.write() as session:
        people.disable(session, name="ada", actor="server", now=context.clock())
    assert browser.get("/devices").status_code == 303
    answer = there_and_back(browser)
    assert answer.status_code == 403
    assert "disabled" in answer.text


def test_a_login_link_binds_the_provider_once(
    browser: httpx.Client, person: Make, context: Context, provider: Provider
) -> None:
    person("ada", role="operator")
    link = link_for(context, "ada")
    assert "Acme Login" in browser.get(link).text
    answer = come_back(browser, browser.post(f"{link}/oidc"))
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert found(context, "ada").oidc_subject == f"{provider.url} ada-at-acme"
    assert browser.post(link, data={"password": PASSWORD, "again": PASSWORD}).status_code == 403
    browser.cookies.clear()
    assert there_and_back(browser).status_code == 303
    provider.claims["sub"] = "mallory"
    assert come_back(browser, browser.post(f"{link}/oidc")).status_code == 403


def test_a_login_link_never_binds_an_account_with_a_password(
    browser: httpx.Client, person: Make, context: Context
) -> None:
    person("ada", password=PASSWORD, role="admin")
    link = link_for(context, "ada")
    assert "Acme Login" not in browser.get(link).text
    answer = come_back(browser, browser.post(f"{link}/oidc"))
    assert answer.status_code == 409
    assert "has a password" in answer.text
    assert found(context, "ada").oidc_subject is None
    assert browser.get(link).status_code == 200, "the link is not used up"


def test_a_login_link_does_not_move_a_subject_from_another_account(
    browser: httpx.Client, ada: None, person: Make, context: Context
) -> None:
    person("bob", role="admin")
    answer = come_back(browser, browser.post(f"{link_for(context, 'bob')}/oidc"))
    assert answer.status_code == 409
    assert found(context, "bob").oidc_subject is None


def test_another_site_cannot_bind_by_a_link(
    browser: httpx.Client, person: Make, context: Context
) -> None:
    person("mallory")
    link = link_for(context, "mallory")
    told = {"Sec-Fetch-Site": "cross-site"}
    assert browser.post(f"{link}/oidc", headers=told).status_code == 403
    # and what a link began is that browser's alone
    off = browser.post(f"{link}/oidc")
    back = httpx.get(off.headers["location"], timeout=30).headers["location"]
    with httpx.Client(base_url=browser.base_url, timeout=60) as victim:
        assert victim.get(back.removeprefix(PUBLIC)).status_code == 403


def test_a_password_set_by_link_ends_the_binding(
    browser: httpx.Client, ada: None, context: Context
) -> None:
    """One way in at a time: else an old binding would stay as a second door."""
    data = {"password": PASSWORD, "again": PASSWORD}
    assert browser.post(link_for(context, "ada"), data=data).status_code == 303
    assert found(context, "ada").oidc_subject is None
    browser.cookies.clear()
    assert there_and_back(browser).status_code == 403


def new_people(settings: Settings, oidc: dict[str, Any], role: str) -> Any:
    return create_app(settings.model_copy(update={**oidc, "oidc_new_people": role}))


def test_new_people_get_the_role_of_the_setting_where_it_says_so(
    settings: Settings, oidc: dict[str, Any], provider: Provider, context: Context
) -> None:
    provider.claims |= {"roles": ["admin"]}
    with (
        run_in_thread(new_people(settings, oidc, "viewer")) as server,
        httpx.Client(base_url=server.url, timeout=60) as browser,
    ):
        assert there_and_back(browser).status_code == 303
    row = found(context, "ada")
    assert (row.role, row.password_hash) == ("viewer", None)
    assert row.oidc_subject == f"{provider.url} ada-at-acme"


@pytest.mark.parametrize(
    "name", ["taken", "gone", "token-name", "admin", "server", "\uff41da", "", "a" * 65]
)
def test_a_new_person_whose_name_is_taken_is_told_what_to_do(
    settings: Settings,
    oidc: dict[str, Any],
    provider: Provider,
    context: Context,
    person: Make,
    name: str,
) -> None:
    now = context.clock()
    person("root", password=PASSWORD, role="admin")
    person("taken", password=PASSWORD)
    person("gone")
    with context.db.write() as session:
        people.disable(session, name="gone", actor="server", now=now)
        service.issue(session, name="token-name", role=Role.ADMIN, actor="server", now=now)
    provider.claims["preferred_username"] = name
    with (
        run_in_thread(new_people(settings, oidc, "viewer")) as server,
        httpx.Client(base_url=server.url, timeout=60) as browser,
    ):
        answer = there_and_back(browser)
    assert answer.status_code == 403
    assert "pilotwave people bind" in answer.text
    with context.db.read() as session:
        assert session.query(PersonRow).count() == 3


def test_no_setting_makes_new_people_admins(settings: Settings) -> None:
    with pytest.raises(BadSetting, match="oidc_new_people"):
        load_settings(**{**settings.model_dump(), "oidc_new_people": "admin"})


@pytest.mark.parametrize(
    "lie",
    [
        *("signature", "nonce", "no nonce", "audience", "audiences", "issuer", "expired", "none"),
        *("hs256 with the public key", "no expiry", "from tomorrow"),
    ],
)
def test_an_id_token_that_lies_lets_nobody_in(
    browser: httpx.Client, provider: Provider, ada: None, lie: str
) -> None:
    provider.lies = {lie}
    assert there_and_back(browser).status_code == 403
    assert browser.get("/devices").status_code == 303


def test_an_answer_for_another_browser_is_refused(browser: httpx.Client, ada: None) -> None:
    off = browser.get("/login/oidc")
    back = httpx.get(off.headers["location"], timeout=30).headers["location"]
    parts = urlsplit(back)
    with httpx.Client(base_url=browser.base_url, timeout=60) as victim:
        assert victim.get(f"{parts.path}?{parts.query}").status_code == 403
    assert browser.get(f"{parts.path}?code=x&state=y").status_code == 403
    assert browser.get(f"{parts.path}?{parts.query}").status_code == 303
    assert browser.get(f"{parts.path}?{parts.query}").status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "fleet.example.evil.example", "[::1]:1"])
def test_the_host_of_a_request_has_no_say_in_where_the_code_goes(
    browser: httpx.Client, ada: None, host: str
) -> None:
    told = {"Host": host, "X-Forwarded-Host": host, "X-Forwarded-Proto": "http"}
    off = browser.get("/login/oidc", headers=told)
    (back,) = parse_qs(urlsplit(off.headers["location"]).query)["redirect_uri"]
    assert back == f"{PUBLIC}/login/oidc/back"


def test_the_cookie_of_a_login_under_https_is_secure(
    settings: Settings, oidc: dict[str, Any]
) -> None:
    given = {**oidc, "page_url": "https://people.example/"}
    with run_in_thread(create_app(settings.model_copy(update=given))) as server:
        off = httpx.get(f"{server.url}/login/oidc", timeout=30)
    (back,) = parse_qs(urlsplit(off.headers["location"]).query)["redirect_uri"]
    assert back == "https://people.example/login/oidc/back"
    assert "Secure" in off.headers["set-cookie"]
    assert "HttpOnly" in off.headers["set-cookie"]


def test_single_sign_on_without_a_public_url_is_refused_at_start(
    settings: Settings, oidc: dict[str, Any]
) -> None:
    with pytest.raises(BadSetting, match="PILOTWAVE_PUBLIC_URL"):
        create_app(settings.model_copy(update={**oidc, "public_url": ""}))


def test_a_provider_that_is_down_is_told_in_a_sentence(
    settings: Settings,
) -> None:
    given = {"oidc_issuer": "http://127.0.0.1:9", "oidc_client_id": CLIENT, "public_url": PUBLIC}
    with run_in_thread(create_app(settings.model_copy(update=given))) as server:
        answer = httpx.get(f"{server.url}/login/oidc", timeout=30)
    assert answer.status_code == 503
    assert "does not answer" in answer.text
