"""A model's page tells what needs attention, and what was decided about its keys: new publisher
keys, resets."""

from __future__ import annotations

from datetime import timedelta

import httpx

from pilotwave_server.attention.service import list_items_of
from pilotwave_server.registry.service import expiries
from tests.conftest import FakeClock
from tests.server.dashboard.conftest import MakePerson, sign_in
from tests.server.fleet_fixtures import Fleet, only_sqlite
from tests.server.registry.test_stolen_publisher import MODEL, reset_to

pytestmark = only_sqlite


def test_new_publisher_keys_and_resets_are_on_the_models_page(
    fleet: Fleet, browser: httpx.Client, make_person: MakePerson
) -> None:
    make_person("ada")
    assert sign_in(browser, "ada").status_code == 303
    before = browser.get(f"/models/{MODEL}").text
    assert "Publisher keys and resets" not in before
    targets, role = reset_to(fleet.registry, fleet.registry.role(MODEL))
    fleet.registry.submit(targets=targets, roles={MODEL: role})
    shown = browser.get(f"/models/{MODEL}").text
    assert "Publisher keys and resets" in shown
    assert "Publisher keys replaced" in shown
    assert "Reset with the targets keys" in shown


def test_what_needs_attention_about_a_model_is_on_its_page(
    fleet: Fleet, browser: httpx.Client, make_person: MakePerson
) -> None:
    make_person("ada")
    assert sign_in(browser, "ada").status_code == 303
    assert "Needs attention" not in browser.get(f"/models/{MODEL}").text
    fleet.device("cam-1", line="a")
    fleet.group("cams", "line=a")
    fleet.assign("cams", "1.0.0")
    wish = {"model": MODEL, "version": "1.1.0", "group": "cams", "policy": "standard"}
    assert fleet.operator.post("/api/v1/rollouts", json=wish).status_code == 201
    assert fleet.operator.post("/api/v1/rollouts/r1/start").status_code == 200
    reason = {"reason": "odd <colours>"}
    assert fleet.operator.post("/api/v1/rollouts/r1/pause", json=reason).status_code == 200
    shown = browser.get(f"/models/{MODEL}").text
    assert "Needs attention" in shown
    assert f'<a href="/rollouts/r1">{MODEL} 1.1.0 → cams</a>' in shown
    assert "odd &lt;colours&gt;" in shown
    (entry,) = fleet.operator.get("/api/v1/attention").json()["items"]
    assert entry["model"] == MODEL
    body = {"key": entry["key"], "note": "bo looks at it"}
    assert fleet.operator.post("/api/v1/attention/acknowledge", json=body).status_code == 200
    assert "bo looks at it" in browser.get(f"/models/{MODEL}").text


def test_a_role_that_expires_soon_is_on_its_models_page_alone(
    fleet: Fleet, clock: FakeClock
) -> None:
    with fleet.context.db.read() as session:
        ends = {role.role: role.expires_at for role in expiries(session)}[f"models-{MODEL}"]
        (entry,) = list_items_of(session, MODEL, ends - timedelta(days=13))
        assert entry.sentence == f"run `pilotwave renew --role models-{MODEL}`"
        assert list_items_of(session, "other", ends) == []
        assert list_items_of(session, MODEL, ends - timedelta(days=15)) == []
