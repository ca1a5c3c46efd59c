"""Changes of keys as devices live through them: each with a device that saw the step before, one
that has been away for two changes, and one that starts afresh."""

from __future__ import annotations

from pathlib import Path

import pytest
from securesystemslib.signer import Key
from tuf.api.metadata import Snapshot, Timestamp

from pilotwave_protocol import dsse, signing
from pilotwave_protocol.names import DIRECTOR_PATH
from pilotwave_protocol.signing import RoleKeys
from pilotwave_server.registry import documents, next_key, sealing
from pilotwave_server.registry.checks import Unsigned
from pilotwave_server.registry.keys import ServerKey
from pilotwave_server.registry.resealer import keep_fresh
from tests.server.registry.offline import director_of, new_key, publics
from tests.server.registry.registry import Registry

sqlite_only = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)


class Fleet:
    """Three devices: one that follows every step, one that is away, one made at the end."""

    def __init__(self, registry: Registry, folder: Path) -> None:
        self.registry = registry
        self.folder = folder
        self.follower = registry.device(folder / "follower")
        self.away = registry.device(folder / "away")
        self.follower.refresh()
        self.away.refresh()

    def all_see(self, version: str) -> bool:
        fresh = self.registry.device(self.folder / "fresh")
        return all(d.sees("detector", version) for d in (self.follower, self.away, fresh))


@pytest.fixture
def fleet(registry: Registry, tmp_path: Path) -> Fleet:
    registry.publish("detector", "1.0.0")
    return Fleet(registry, tmp_path)


def stage(registry: Registry, kind: str) -> ServerKey:
    return next_key.stage_key(
        db=registry.db,
        trust=registry.trust,
        kind=kind,  # type: ignore[arg-type]  # a literal
        actor="token/admin",
        now=registry.clock(),
    )


def online_keys(registry: Registry) -> list[Key]:
    listed = registry.root().signed.roles["timestamp"].keyids
    return [k.public for k in registry.trust.keys("online") if k.keyid in listed]


# --- publisher


def rotate_publisher(registry: Registry, *, keep_old: bool = True) -> None:
    old, new = registry.offline.publishers["detector"], new_key()
    if keep_old:
        role = registry.offline.next_role(registry.role("detector"))
        registry.hand_in("detector", signing.sign(role, [old, new]))
    targets = registry.offline.next_targets(registry.targets())
    signing.delegate(targets.signed, "detector", RoleKeys(publics([new]), 1))
    bundle = {}
    if not keep_old:
        role = registry.offline.next_role(registry.role("detector"))
        bundle = {"detector": signing.sign(role, [new])}
    registry.submit(targets=registry.offline.sign_targets(targets), roles=bundle)
    registry.offline.publishers["detector"] = new


@sqlite_only
@pytest.mark.parametrize("keep_old", [True, False], ids=["old key signs too", "old key is lost"])
def test_a_publisher_key_is_changed_without_a_gap(fleet: Fleet, keep_old: bool) -> None:
    registry = fleet.registry
    old = registry.offline.publishers["detector"]
    rotate_publisher(registry, keep_old=keep_old)
    assert fleet.follower.sees("detector", "1.0.0")
    rotate_publisher(registry, keep_old=keep_old)
    registry.publish("detector", "1.1.0")
    assert fleet.all_see("1.1.0")
    role = registry.offline.next_role(registry.role("detector"))
    with pytest.raises(Unsigned):
        registry.hand_in("detector", signing.sign(role, [old]))


@sqlite_only
def test_targets_that_would_leave_a_role_unsigned_are_refused(registry: Registry) -> None:
    targets = registry.offline.next_targets(registry.targets())
    signing.delegate(targets.signed, "detector", RoleKeys(publics([new_key()]), 1))
    with pytest.raises(Unsigned, match="models-detector is signed by 0 of the 1"):
        registry.submit(targets=registry.offline.sign_targets(targets))
    assert registry.targets().signed.version == 2


@sqlite_only
def test_a_second_publisher_may_be_demanded(registry: Registry, tmp_path: Path) -> None:
    first, second = registry.offline.publishers["detector"], new_key()
    role = registry.offline.next_role(registry.role("detector"))
    targets = registry.offline.next_targets(registry.targets())
    signing.delegate(targets.signed, "detector", RoleKeys(publics([first, second]), 2))
    registry.submit(
        targets=registry.offline.sign_targets(targets),
        roles={"detector": signing.sign(role, [first, second])},
    )
    with pytest.raises(Unsigned, match="1 of the 2 keys"):
        registry.publish("detector", "1.0.0")
    manifest = registry.manifest("detector", "1.0.0")
    both = signing.sign(
        registry.offline.with_version(registry.role("detector"), manifest), [first, second]
    )
    registry.hand_in("detector", both, manifest)
    assert registry.device(tmp_path / "d").sees("detector", "1.0.0")


# --- online


def rotate_online(registry: Registry) -> None:
    new = stage(registry, "online")
    root = registry.offline.next_root(registry.root(), [new.public])
    registry.submit(root=signing.sign(root, registry.offline.root_keys[:2]))


@sqlite_only
def test_the_online_key_is_changed_without_a_gap(fleet: Fleet) -> None:
    registry = fleet.registry
    stage(registry, "online")
    assert fleet.follower.sees("detector", "1.0.0")
    rotate_online(registry)
    assert fleet.follower.sees("detector", "1.0.0")
    rotate_online(registry)
    registry.publish("detector", "1.1.0")
    assert fleet.all_see("1.1.0")
    with registry.db.read() as session:
        timestamp = documents.need(session, "timestamp", Timestamp)
    assert list(timestamp.signatures) == [registry.trust.keys("online")[-1].keyid]


@sqlite_only
def test_old_and_new_online_key_sign_between_the_two_steps(registry: Registry) -> None:
    stage(registry, "online")
    with registry.db.read() as session:
        timestamp = documents.need(session, "timestamp", Timestamp)
        snapshot = documents.need(session, "snapshot", Snapshot)
    both = {key.keyid for key in registry.trust.keys("online")}
    assert set(timestamp.signatures) == set(snapshot.signatures) == both


@sqlite_only
def test_staging_twice_makes_one_key(registry: Registry) -> None:
    assert stage(registry, "online").keyid == stage(registry, "online").keyid
    assert stage(registry, "director").keyid == stage(registry, "director").keyid


@sqlite_only
def test_a_root_without_the_server_s_online_key_is_refused(registry: Registry) -> None:
    root = registry.offline.next_root(registry.root(), [new_key().public_key])
    with pytest.raises(sealing.OnlineKeyUnknown):
        registry.submit(root=signing.sign(root, registry.offline.root_keys[:2]))


# --- director


def rotate_director(registry: Registry, *, keep_old: bool) -> None:
    stage(registry, "director")
    keys = [key.raw.hex() for key in registry.trust.keys("director")]
    keys = keys[-2:] if keep_old else keys[-1:]
    targets = registry.offline.next_targets(registry.targets())
    signing.set_director(targets.signed, director_of("test-fleet", keys))
    registry.submit(targets=registry.offline.sign_targets(targets))


@sqlite_only
def test_the_director_key_is_changed_for_devices_and_for_the_server_at_once(fleet: Fleet) -> None:
    registry = fleet.registry
    before = registry.trust.director_id
    rotate_director(registry, keep_old=True)
    assert registry.trust.director_id != before
    found = fleet.follower.refresh().get_targetinfo(DIRECTOR_PATH)
    assert found is not None
    assert before in found.custom["keys"]
    rotate_director(registry, keep_old=False)
    found = fleet.away.refresh().get_targetinfo(DIRECTOR_PATH)
    assert found is not None
    assert list(found.custom["keys"]) == [registry.trust.director_id]


@sqlite_only
def test_a_directive_is_signed_by_the_newest_key_that_devices_trust(registry: Registry) -> None:
    stage(registry, "director")
    director = director_of("test-fleet", [k.raw.hex() for k in registry.trust.keys("director")])
    old, new = director.keys
    envelope = registry.trust.sign_directive("text/x", b"{}")
    only_old = {old: director.keys[old]}
    assert dsse.open_envelope(envelope, payload_type="text/x", keys=only_old, max_bytes=999)
    rotate_director(registry, keep_old=True)
    envelope = registry.trust.sign_directive("text/x", b"{}")
    only_new = {new: director.keys[new]}
    assert dsse.open_envelope(envelope, payload_type="text/x", keys=only_new, max_bytes=999)


# --- targets and root


def rotate_targets(registry: Registry) -> None:
    registry.offline.targets_keys = [new_key() for _ in range(3)]
    root = registry.offline.next_root(registry.root(), online_keys(registry))
    targets = registry.offline.next_targets(registry.targets())
    registry.submit(
        root=signing.sign(root, registry.offline.root_keys[:2]),
        targets=registry.offline.sign_targets(targets),
    )


@sqlite_only
def test_targets_keys_are_changed_without_a_gap(fleet: Fleet) -> None:
    registry = fleet.registry
    rotate_targets(registry)
    assert fleet.follower.sees("detector", "1.0.0")
    rotate_targets(registry)
    registry.publish("detector", "1.1.0")
    assert fleet.all_see("1.1.0")


@sqlite_only
def test_a_root_that_would_leave_targets_unsigned_is_refused(registry: Registry) -> None:
    registry.offline.targets_keys = [new_key() for _ in range(3)]
    root = registry.offline.next_root(registry.root(), online_keys(registry))
    with pytest.raises(Unsigned, match="targets is signed by 0 of the 2"):
        registry.submit(root=signing.sign(root, registry.offline.root_keys[:2]))


def rotate_root(registry: Registry) -> None:
    old = registry.offline.root_keys
    registry.offline.root_keys = [new_key() for _ in range(3)]
    root = registry.offline.next_root(registry.root(), online_keys(registry))
    registry.submit(root=signing.sign(root, [*old[:2], *registry.offline.root_keys[:2]]))


@sqlite_only
def test_root_keys_are_changed_without_a_gap(fleet: Fleet) -> None:
    registry = fleet.registry
    rotate_root(registry)
    assert fleet.follower.sees("detector", "1.0.0")
    rotate_root(registry)
    registry.publish("detector", "1.1.0")
    assert fleet.all_see("1.1.0")


@sqlite_only
@pytest.mark.parametrize(
    ("old", "new", "refusal"),
    [(0, 2, "0 of the 2"), (2, 0, "0 of the 2"), (2, 1, "1 of the 2"), (1, 2, "1 of the 2")],
)
def test_a_root_needs_enough_old_and_enough_new_signatures(
    registry: Registry, old: int, new: int, refusal: str
) -> None:
    before, after = registry.offline.root_keys, [new_key() for _ in range(3)]
    registry.offline.root_keys = after
    root = registry.offline.next_root(registry.root(), online_keys(registry))
    with pytest.raises(Unsigned, match=refusal):
        registry.submit(root=signing.sign(root, [*before[:old], *after[:new]]))


def test_all_keys_may_change_while_a_device_is_away_past_every_expiry(
    fleet: Fleet,
) -> None:
    registry = fleet.registry
    for _ in range(2):
        registry.clock.advance(days=150)
        keep_fresh(registry.db, registry.trust, now=registry.clock())
        rotate_targets(registry)
        rotate_publisher(registry)
        rotate_root(registry)
        rotate_online(registry)
        rotate_director(registry, keep_old=False)
    registry.publish("detector", "1.1.0")
    assert fleet.all_see("1.1.0")
