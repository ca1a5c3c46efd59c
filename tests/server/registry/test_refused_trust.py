"""Root and targets documents that are refused, and the first ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import DelegatedRole, Metadata, Root, Targets

from pilotwave_protocol import signing
from pilotwave_protocol.names import DIRECTOR_PATH
from pilotwave_protocol.signing import RoleKeys
from pilotwave_server.errors import ServerError
from pilotwave_server.registry import accept_documents, authority, documents
from pilotwave_server.registry.checks import Unsigned, VersionClash
from tests.server.registry.offline import director_of, new_key, publics
from tests.server.registry.registry import Registry
from tests.server.registry.test_rotation import online_keys, stage

pytestmark = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)


def next_targets(registry: Registry) -> Metadata[Targets]:
    return registry.offline.next_targets(registry.targets())


def other_fleet(registry: Registry) -> Metadata[Targets]:
    targets = next_targets(registry)
    raw = [registry.trust.keys("director")[-1].raw.hex()]
    signing.set_director(targets.signed, director_of("other", raw))
    return targets


def unknown_director(registry: Registry) -> Metadata[Targets]:
    targets = next_targets(registry)
    raw = new_key().public_key.keyval["public"]
    signing.set_director(targets.signed, director_of("test-fleet", [raw]))
    return targets


def server_as_publisher(registry: Registry) -> Metadata[Targets]:
    targets = next_targets(registry)
    key = registry.trust.keys("online")[-1].public
    signing.delegate(targets.signed, "detector", RoleKeys((key,), 1))
    return targets


def model_gone(registry: Registry) -> Metadata[Targets]:
    targets = next_targets(registry)
    assert targets.signed.delegations is not None
    assert targets.signed.delegations.roles is not None
    targets.signed.delegations.roles.clear()
    return targets


def delegation(**differences: object) -> object:
    def make(registry: Registry) -> Metadata[Targets]:
        targets = next_targets(registry)
        assert targets.signed.delegations is not None
        assert targets.signed.delegations.roles is not None
        role: DelegatedRole = targets.signed.delegations.roles["models-detector"]
        for name, value in differences.items():
            setattr(role, name, value)
        return targets

    return make


def further_target(registry: Registry) -> Metadata[Targets]:
    targets = next_targets(registry)
    entry = targets.signed.targets[DIRECTOR_PATH]
    targets.signed.targets["models/detector/1.0.0.json"] = entry
    return targets


def stray_delegation(registry: Registry) -> Metadata[Targets]:
    targets = next_targets(registry)
    signing.delegate(targets.signed, "lanes", RoleKeys(publics([new_key()]), 1))
    assert targets.signed.delegations is not None
    roles = targets.signed.delegations.roles
    assert roles is not None
    roles["everything"] = DelegatedRole("everything", [], 1, True, ["models/*/*"])
    return targets


def fast_forward(registry: Registry) -> Metadata[Targets]:
    targets = next_targets(registry)
    targets.signed.version = 2**31
    return targets


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (other_fleet, "wrong_fleet"),
        (unknown_director, "no_director_key"),
        (server_as_publisher, "server_key_misused"),
        (model_gone, "model_removed"),
        (delegation(paths=["models/*/*"]), "bad_targets"),
        (delegation(terminating=False), "bad_targets"),
        (delegation(threshold=2), "bad_targets"),
        (delegation(paths=["models/detector/*", "models/lanes/*"]), "bad_targets"),
        (further_target, "bad_targets"),
        (stray_delegation, "bad_targets"),
        (fast_forward, "version_clash"),
    ],
)
def test_bad_targets_are_refused(registry: Registry, make: object, code: str) -> None:
    before = registry.trust.versions
    targets = make(registry)  # type: ignore[operator]  # one of the makers above
    with pytest.raises(ServerError) as refused:
        registry.submit(targets=registry.offline.sign_targets(targets))
    assert refused.value.code == code, refused.value.detail
    assert registry.trust.versions == before


def test_targets_signed_by_one_of_three_are_refused(registry: Registry) -> None:
    targets = signing.sign(next_targets(registry), registry.offline.targets_keys[:1])
    with pytest.raises(Unsigned, match="1 of the 2 keys"):
        registry.submit(targets=targets)


def test_a_delegation_needs_its_first_role_document(registry: Registry) -> None:
    targets, _ = registry.offline.delegated(registry.targets(), "lanes")
    with pytest.raises(accept_documents.RoleMissing):
        registry.submit(targets=targets)


def test_a_role_that_nothing_delegates_to_is_refused(registry: Registry) -> None:
    _, role = registry.offline.delegated(registry.targets(), "lanes")
    targets = registry.offline.sign_targets(next_targets(registry))
    with pytest.raises(accept_documents.RoleUnexpected):
        registry.submit(targets=targets, roles={"lanes": role})


def test_versions_do_not_come_in_a_bundle(registry: Registry) -> None:
    manifest = registry.manifest("detector", "1.0.0")
    role = registry.signed_with_version(manifest)
    targets = registry.offline.sign_targets(next_targets(registry))
    with pytest.raises(accept_documents.VersionsInBundle):
        registry.submit(targets=targets, roles={"detector": role})


def not_consistent(root: Root) -> None:
    root.consistent_snapshot = False


def too_few_keys(root: Root) -> None:
    root.roles["targets"].threshold = 9


def misused(root: Root) -> None:
    online = root.keys[root.roles["timestamp"].keyids[0]]
    root.add_key(online, "targets")


@pytest.mark.parametrize(
    ("spoil", "code"),
    [(not_consistent, "bad_root"), (too_few_keys, "bad_root"), (misused, "server_key_misused")],
)
def test_a_bad_root_is_refused(registry: Registry, spoil: object, code: str) -> None:
    root = registry.offline.next_root(registry.root(), online_keys(registry))
    spoil(root.signed)  # type: ignore[operator]  # one of the functions above
    with pytest.raises(ServerError) as refused:
        registry.submit(root=signing.sign(root, registry.offline.root_keys[:2]))
    assert refused.value.code == code


def test_a_root_may_not_be_skipped(registry: Registry) -> None:
    root = registry.offline.next_root(registry.root(), online_keys(registry))
    root.signed.version += 1
    with pytest.raises(VersionClash):
        registry.submit(root=signing.sign(root, registry.offline.root_keys[:2]))


# --- the first documents


def test_the_first_documents_again_change_nothing(bare_registry: Registry) -> None:
    registry = bare_registry
    root = registry.offline.first_root([registry.trust.keys("online")[-1].public])
    targets = registry.offline.first_targets([registry.trust.keys("director")[-1].raw.hex()])
    submission = accept_documents.Submission(root, targets, {})
    given = {"db": registry.db, "trust": registry.trust, "submission": submission}
    for repeated in (False, True):
        done = accept_documents.bootstrap(**given, actor="token/a", now=registry.clock())  # type: ignore[arg-type]  # shared keywords
        assert done.repeated is repeated
    assert registry.trust.versions == (1, 1, 1)


def test_other_first_documents_are_refused(registry: Registry) -> None:
    registry.clock.advance(days=1)
    with pytest.raises(accept_documents.AlreadyBootstrapped):
        registry.bootstrap()


def test_nothing_can_be_published_without_a_root(bare_registry: Registry) -> None:
    with pytest.raises(documents.NotBootstrapped):
        stage(bare_registry, "online")
    assert not bare_registry.trust.bootstrapped


def test_the_server_s_key_may_not_hold_root(bare_registry: Registry) -> None:
    registry = bare_registry
    online = registry.trust.keys("online")[-1]
    assert isinstance(online.signer, CryptoSigner)
    registry.offline.root_keys = [online.signer, new_key(), new_key()]
    with pytest.raises(authority.ServerKeyMisused):
        registry.bootstrap()


def test_a_device_of_another_fleet_is_not_fooled(registry: Registry, tmp_path: Path) -> None:
    stranger = registry.offline.first_root([new_key().public_key])
    device = registry.device(tmp_path / "stranger")
    device.root = signing.to_bytes(stranger)
    with pytest.raises(Exception, match="signed by"):
        device.refresh()
