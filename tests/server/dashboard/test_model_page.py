"""A model's page tells what was decided about its keys: new publisher keys, resets, notices."""

from __future__ import annotations

import httpx

from pilotwave_server.audit.notices import put_notice
from tests.server.dashboard.conftest import MakePerson, sign_in
from tests.server.fleet_fixtures import Fleet, only_sqlite
from tests.server.registry.test_stolen_publisher import MODEL, reset_to

pytestmark = only_sqlite


def test_new_publisher_keys_resets_and_notices_are_on_the_models_page(
    fleet: Fleet, browser: httpx.Client, make_person: MakePerson
) -> None:
    make_person("ada")
    assert sign_in(browser, "ada").status_code == 303
    before = browser.get(f"/models/{MODEL}").text
    assert "Publisher keys and resets" not in before
    targets, role = reset_to(fleet.registry, fleet.registry.role(MODEL))
    fleet.registry.submit(targets=targets, roles={MODEL: role})
    now = fleet.context.clock()
    with fleet.context.db.write() as session:
        put_notice(session, object=f"model/{MODEL}", sentence="look at <its> key", now=now)
        put_notice(session, object="model/other", sentence="another model", now=now)
    shown = browser.get(f"/models/{MODEL}").text
    assert "Publisher keys and resets" in shown
    assert "Publisher keys replaced" in shown
    assert "Reset with the targets keys" in shown
    assert "look at &lt;its&gt; key" in shown
    assert "another model" not in shown
