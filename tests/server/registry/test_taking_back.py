from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pilotwave_protocol import signing
from pilotwave_protocol.trust import ModelPolicy
from pilotwave_server.db import FleetRow
from pilotwave_server.registry import service
from pilotwave_server.registry.entries import CounterNotRising, VersionExists
from pilotwave_server.registry.policy import FloorLowered, YankForgotten
from pilotwave_server.registry.publish import Published
from pilotwave_server.registry.service import VersionUnknown
from tests.server.registry.registry import Registry


def fleet_revision(registry: Registry) -> int:
    with registry.db.read() as session:
        return session.get_one(FleetRow, 1).fleet_revision


def raise_floor(registry: Registry, floor: int, *, drop: list[str] | None = None) -> Published:
    role = registry.offline.next_role(registry.role("detector"))
    policy = signing.policy_of(role.signed, "detector")
    signing.set_policy(role.signed, "detector", replace(policy, floor=floor))
    for version in drop or []:
        del role.signed.targets[f"models/detector/{version}.json"]
    signing.sign(role, [registry.offline.publishers["detector"]])
    return registry.hand_in("detector", role)


def test_a_yank_is_seen_by_devices_and_concerns_all_of_them(
    registry: Registry, tmp_path: Path
) -> None:
    registry.publish("detector", "1.0.0")
    before = fleet_revision(registry)
    done = registry.yank("detector", "1.0.0", reason="wrong labels")
    assert done.yanked == ("1.0.0",)
    assert fleet_revision(registry) > before
    target = registry.device(tmp_path / "d").refresh()
    found = target.get_targetinfo("models/detector/1.0.0.json")
    assert found is not None
    assert found.custom["yanked"]["reason"] == "wrong labels"
    policy = target.get_targetinfo("models/detector/_policy")
    assert policy is not None
    assert policy.custom["yanked"] == [found.hashes["sha256"]]
    with registry.db.read() as session:
        [released] = service.released(session, remembered={})
        assert released.yanked == "wrong labels"
        assert service.get_model(session, model="detector").latest is None


def test_the_bytes_of_a_yanked_version_cannot_come_back_under_another_name(
    registry: Registry,
) -> None:
    registry.publish("detector", "1.0.0")
    registry.yank("detector", "1.0.0")
    with pytest.raises(VersionExists):
        registry.publish("detector", "1.0.0.0")


def test_a_raised_floor_is_kept_and_concerns_all_devices(registry: Registry) -> None:
    registry.publish("detector", "1.0.0")
    registry.publish("detector", "1.1.0")
    before = fleet_revision(registry)
    raise_floor(registry, 2)
    assert fleet_revision(registry) > before
    with registry.db.read() as session:
        assert service.floors(session) == {"detector": 2}
    with pytest.raises(FloorLowered):
        raise_floor(registry, 1)


def test_a_version_below_the_floor_may_be_taken_off_but_its_name_and_number_stay_taken(
    registry: Registry, tmp_path: Path
) -> None:
    registry.publish("detector", "1.0.0")
    registry.publish("detector", "1.1.0")
    raise_floor(registry, 2, drop=["1.0.0"])
    device = registry.device(tmp_path / "d")
    assert not device.sees("detector", "1.0.0")
    assert device.sees("detector", "1.1.0")
    with registry.db.read() as session:
        assert [r.listed for r in service.released(session, remembered={})] == [False, True]
    with pytest.raises(VersionExists):
        registry.publish("detector", "1.0")
    with pytest.raises(CounterNotRising):
        registry.publish("detector", "1.2.0", counter=2)


def test_a_yanked_version_taken_off_stays_in_the_policy(registry: Registry) -> None:
    registry.publish("detector", "1.0.0")
    registry.yank("detector", "1.0.0")
    registry.publish("detector", "1.1.0")
    raise_floor(registry, 2, drop=["1.0.0"])
    role = registry.offline.next_role(registry.role("detector"))
    signing.set_policy(role.signed, "detector", ModelPolicy(2, frozenset()))
    with pytest.raises(YankForgotten):
        registry.hand_in("detector", signing.sign(role, [registry.offline.publishers["detector"]]))


def test_a_renewal_changes_the_expiry_alone(registry: Registry) -> None:
    registry.publish("detector", "1.0.0")
    before = fleet_revision(registry)
    registry.clock.advance(days=90)
    role = registry.offline.next_role(registry.role("detector"))
    done = registry.hand_in(
        "detector", signing.sign(role, [registry.offline.publishers["detector"]])
    )
    assert (done.published, done.yanked) == ((), ())
    assert fleet_revision(registry) == before
    with registry.db.read() as session:
        [expiry] = [e for e in service.expiries(session) if e.role == "models-detector"]
    assert expiry.days_left(registry.clock()) == 180


def test_a_deny_works_at_once_and_can_be_taken_back(registry: Registry) -> None:
    registry.publish("detector", "1.0.0")
    before = fleet_revision(registry)
    given = {"model": "detector", "version": "1.0.0", "actor": "token/op", "now": registry.clock()}
    with registry.db.write() as session:
        service.deny(session, reason="smells", **given)
    denied = fleet_revision(registry)
    assert denied > before
    with registry.db.write() as session:
        service.deny(session, reason="smells", **given)
    assert fleet_revision(registry) == denied
    with registry.db.read() as session:
        [released] = service.released(session, remembered={})
        assert released.denied == "smells"
    with registry.db.write() as session:
        service.undeny(session, **given)
    assert fleet_revision(registry) > denied
    with registry.db.read() as session:
        [released] = service.released(session, remembered={})
        assert released.denied is None


def test_what_was_not_published_cannot_be_denied(registry: Registry) -> None:
    with registry.db.write() as session, pytest.raises(VersionUnknown):
        service.deny(
            session,
            model="detector",
            version="9.9.9",
            reason="x",
            actor="token/op",
            now=registry.clock(),
        )
