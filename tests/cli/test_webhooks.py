"""`pilotwave webhooks` and `pilotwave follow` against a real server and a real receiver."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.cli.operator import Operator
from tests.peers import receiver as peer
from tests.servers import ServerProcess


@pytest.fixture
def pw_any(server_factory: Callable[..., ServerProcess], tmp_path: object) -> Operator:
    """The admin of a server whose webhooks may call this machine."""
    server = server_factory(webhook_targets="any")
    home = server.data.parent
    return Operator(home, server.url, server.admin_token, home / "keys")


@pytest.mark.timeout(300)
def test_a_webhook_from_its_making_to_its_end(pw_any: Operator) -> None:
    pw = pw_any
    with peer.receiver(peer.says(peer.OK), peer.status(500)) as receiver:
        shown = pw("webhooks", "create", "ops", receiver.url, "--on", "rollout.*")
        assert shown.splitlines()[-1].startswith("whsec_")
        assert "answered 204" in pw("webhooks", "test", "ops")
        assert "answered 500" in pw.fails("webhooks", "test", "ops")
        last, first = pw.json("webhooks", "deliveries", "ops")
        assert (first["state"], last["state"]) == ("delivered", "waiting")
        assert "expected 2xx" in pw("webhooks", "deliveries", "ops", "--state", "waiting")
        pw("webhooks", "again", "ops", first["id"])
        receiver.wait_for(3)
    assert pw("webhooks", "secret", "ops").splitlines()[-1].startswith("whsec_")
    changed = pw("webhooks", "change", "ops", "--disable", "--on", "device.*")
    assert "is off" in changed
    assert "device.*" in pw("webhooks", "list")
    assert "there is no webhook opps" in pw.fails("webhooks", "delete", "opps")
    assert "1 webhook: ops is no longer called" in pw.fails("webhooks", "delete", "ops", status=2)
    pw("webhooks", "delete", "--yes", "ops")
    assert pw.json("webhooks", "list") == []
    assert "no webhook called ops" in pw.fails("webhooks", "test", "ops")


def test_an_address_in_the_servers_network_is_refused_with_the_setting_to_change(
    pw: Operator,
) -> None:
    line = pw.fails("webhooks", "create", "ops", "http://127.0.0.1:9/")
    assert "this machine" in line
    assert "webhook_targets" in line


def test_follow_shows_what_happens_from_a_place_on(pw: Operator, name: str) -> None:
    pw("groups", "create", name, "--selector", "site")
    lines = pw("follow", "--after", "0.0", "--on", "group.create", "--most", "1", "--json")
    event = json.loads(lines)
    assert event["type"] == "group.create"
    shown = pw("follow", "--after", "0.0", "--on", "group.*", "--most", "1")
    assert "group.create" in shown
    assert "expected a type" in pw.fails("follow", "--on", "Group")
