"""`[escalate]` of the settings: what the owner allows, and how applications hear of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilotwave_agent import permissions
from pilotwave_agent.live.tier_rules import TierRules, parse_tier_rules
from pilotwave_agent.resident.run import alone
from pilotwave_agent.settings.config import BadConfig, parse
from pilotwave_agent.settings.escalate import EscalateSettings
from tests.peers.device import Device

OWN = {"server": "http://127.0.0.1", "device": "cam-1", "data_dir": "."}
PIN = "sha256:" + "ab" * 32
SITE = {"allow": True, "site": "https://gateway.local:8001", "pin": PIN}


def read(said: dict[str, object]) -> EscalateSettings:
    return parse({**OWN, "escalate": said}, base=Path("/")).escalate


def test_nothing_is_allowed_unless_the_owner_says_so() -> None:
    assert TierRules.of(read({})) is None
    assert TierRules.of(read({**SITE, "allow": False})) is None
    rules = TierRules.of(read(SITE))
    assert rules is not None
    assert rules.place("site") == ("https://gateway.local:8001", PIN)
    assert rules.place("cloud") is None
    cloud = TierRules.of(read({**SITE, "cloud": "https://models.example/"}))
    assert cloud is not None
    assert cloud.place("cloud") == ("https://models.example", "")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"allow": True}, r"escalate\.site: expected a URL, as allow is true"),
        ({**SITE, "allow": "yes"}, "true or false"),
        ({**SITE, "site": "gateway.local"}, r"escalate\.site: expected a URL"),
        ({**SITE, "site": "https://user:word@gateway.local"}, r"escalate\.site: expected a URL"),
        ({**SITE, "pin": "ab" * 32}, "sha256: and the 64 hex digits"),
        ({**SITE, "site": "http://gateway.local"}, "pin: expected a site with https"),
        ({**SITE, "cloud": "http://models.example"}, "never, or a URL with https"),
        ({**SITE, "cloud": "always"}, r"escalate\.cloud: expected a URL"),
        ({**SITE, "sites": []}, "unknown field 'sites'"),
    ],
)
def test_what_has_no_meaning_is_refused(said: dict[str, object], words: str) -> None:
    with pytest.raises(BadConfig, match=words):
        read(said)


def test_applications_hear_of_it_at_the_agents_start_and_of_its_end(device: Device) -> None:
    path = device.layout.tier_rules
    with alone(device.config):
        assert not path.exists()
    device.set(escalate=read(SITE))
    with alone(device.config):
        assert parse_tier_rules(path.read_bytes()) == TierRules.of(read(SITE))
        assert path.stat().st_mode & 0o777 == 0o644
    path.chmod(0o666)
    with pytest.raises(permissions.BadCustody):  # who else can write it could send inputs away
        permissions.check(device.layout)
    path.chmod(0o644)
    device.set(escalate=EscalateSettings())
    with alone(device.config):
        assert not path.exists()


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b'{"schema": "pilotwave/tiers/2"}', b'{"schema": "pilotwave/tiers/1"}']
)
def test_a_file_that_says_something_else_allows_nothing(raw: bytes) -> None:
    try:
        found = parse_tier_rules(raw)
    except (ValueError, TypeError):
        found = None
    assert found is None
