"""A publisher key is stolen and used to its worst; its owner rotates it, resets the model, goes on.

A real server, the command line and a real agent.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tuf.api.metadata import Metadata, Targets

from pilotwave_agent.commands.status import lines_of, status
from pilotwave_agent.settings.config import load
from pilotwave_protocol import names, signing
from pilotwave_protocol.trust import ModelPolicy
from tests.e2e.fleet_of_one import FleetOfOne, fleet_of_one, wait_until

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]

DIGITS = Path(__file__).parent.parent.parent / "examples" / "digits"
MODEL, ROLE = "detector", "models-detector"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[FleetOfOne]:
    with fleet_of_one(tmp_path) as found:
        found.stage.pilotwave("models", "create", MODEL, "--publisher", "keys/publisher.pem")
        yield found


class Thief:
    """Has a copy of the publisher's key, and a token that may publish."""

    def __init__(self, fleet: FleetOfOne) -> None:
        self._url = fleet.stage.url
        token = (fleet.stage.root / "admin.token").read_text().strip()
        self._headers = {"Authorization": f"Bearer {token}"}
        self._key = signing.load_signer(fleet.stage.root / "keys" / "publisher.pem")

    def role(self) -> Metadata[Targets]:
        answer = httpx.get(f"{self._url}/api/v1/trust/metadata/{ROLE}", headers=self._headers)
        return Metadata.from_bytes(answer.raise_for_status().content)

    def hand_in(self, role: Metadata[Targets]) -> httpx.Response:
        signing.sign(role, [self._key])
        url = f"{self._url}/api/v1/models/{MODEL}/metadata"
        return httpx.post(url, json={"role": role.to_dict()}, headers=self._headers, timeout=30)

    def end_the_model(self) -> None:
        """Yank every version, and raise the floor as far as the server lets him."""
        role = self.role()
        now = role.signed.expires - signing.ROLE_LIFETIME
        role.signed.version += 1
        for path in list(role.signed.targets):
            if path != names.policy_path(MODEL):
                version = names.parse_target_path(path)[1]
                signing.yank(role.signed, MODEL, version, reason="ha", now=now)
        known = signing.policy_of(role.signed, MODEL)
        newest = signing.next_counter(role.signed) - 1
        signing.set_policy(role.signed, MODEL, ModelPolicy(newest, known.yanked))
        assert self.hand_in(role).status_code == 201


def test_the_owner_publishes_and_yanks_again_after_rotation_and_reset(fleet: FleetOfOne) -> None:
    stage = fleet.stage
    fleet.publish(MODEL, "1.0.0", DIGITS / "1.0.0")
    fleet.assign(MODEL, "1.0.0")
    fleet.until(MODEL, "1.0.0", "healthy")
    thief = Thief(fleet)
    good = thief.role().signed.version
    fleet.publish(MODEL, "6.6.6", DIGITS / "1.1.0")
    thief.end_the_model()

    # the device keeps what it serves, and everybody says why
    found = fleet.until(MODEL, "1.0.0", "failed")
    assert found["reason"] == "yanked"
    assert "keeps serving" in found["detail"]
    config = load(fleet.data / "agent.toml")
    assert any("keeps serving" in line for line in lines_of(status(config)))
    assert "keeps serving" in stage.pilotwave("devices", "why", "board", "--model", MODEL)

    asked = stage.run("pilotwave", "models", "reset", MODEL, check=False)
    assert "name with --good" in asked
    assert f"{good}: signed" in asked
    said = stage.pilotwave(
        "keys", "rotate", "publisher", "--model", MODEL, "--reset", "--good", str(good),
        "--plain", "--yes",
    )  # fmt: skip
    assert "the floor falls from 2 to 0" in said
    assert "1 version is allowed again: 1.0.0" in said
    assert "1 version is yanked: 6.6.6" in said
    fleet.until(MODEL, "1.0.0", "healthy")

    # the old key is dead, the new one publishes and yanks
    late = thief.role()
    late.signed.version += 1
    assert thief.hand_in(late).status_code == 403
    key = ("--key", "keys/publisher-1.pem")
    version = ("--variant", f"v={DIGITS / '1.1.0'}", "--unsafe-format")
    stage.pilotwave("publish", MODEL, "1.1.0", *version, *key)
    fleet.assign(MODEL, "1.1.0")
    fleet.until(MODEL, "1.1.0", "healthy")
    stage.pilotwave("versions", "yank", "--yes", MODEL, "1.1.0", "--reason", "wrong", *key)

    def gone_back() -> bool:
        return fleet.slot(MODEL).get("current_version") == "1.0.0"

    wait_until(gone_back, lambda: str(fleet.slot(MODEL)))
    stage.pilotwave("versions", "show", MODEL, "6.6.6")
