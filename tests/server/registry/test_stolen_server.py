"""What somebody can do who has the server's database and all its keys, and what they cannot."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from securesystemslib.signer import Signer
from tuf.api.exceptions import BadVersionNumberError, UnsignedMetadataError
from tuf.api.metadata import Metadata, MetaFile, Snapshot, Targets, Timestamp

from pilotwave_protocol import signing
from pilotwave_server.registry.checks import Unsigned
from tests.server.registry.registry import Device, Registry
from tests.server.registry.test_rotation import rotate_online

pytestmark = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
FAR = 2**31


@pytest.fixture
def device(registry: Registry, tmp_path: Path) -> Device:
    registry.publish("detector", "1.0.0")
    device = registry.device(tmp_path / "device")
    assert device.sees("detector", "1.0.0")
    return device


class Thief:
    """Writes into the exported repository whatever the server's keys can sign."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.folder = registry.data_dir / "tuf/metadata"

    @property
    def signers(self) -> list[Signer]:
        trust = self.registry.trust
        return [k.signer for k in [*trust.keys("online"), *trust.keys("director")]]

    def seal(self, role: Metadata[Targets], *, version: int) -> None:
        """Serve `role` under a snapshot and timestamp of this version."""
        now = self.registry.clock()
        raw = signing.to_bytes(role)
        (self.folder / f"{role.signed.version}.models-detector.json").write_bytes(raw)
        old: Metadata[Snapshot] = Metadata.from_file(
            str(self.folder / f"{self.registry.trust.versions.snapshot}.snapshot.json")
        )
        old.signed.meta["models-detector.json"] = MetaFile.from_data(
            role.signed.version, raw, ["sha256"]
        )
        old.signed.version = version
        old.signed.expires = now + timedelta(days=9)
        snapshot = signing.to_bytes(signing.sign(old, self.signers))
        (self.folder / f"{version}.snapshot.json").write_bytes(snapshot)
        stamp = Metadata(
            Timestamp(
                version=version,
                expires=now + timedelta(days=3),
                snapshot_meta=MetaFile.from_data(version, snapshot, ["sha256"]),
            )
        )
        signed = signing.to_bytes(signing.sign(stamp, self.signers))
        (self.folder / "timestamp.json").write_bytes(signed)


def test_a_version_signed_with_every_key_of_the_server_is_refused_by_devices(
    registry: Registry, device: Device
) -> None:
    thief = Thief(registry)
    manifest = registry.manifest("detector", "6.6.6")
    role = registry.offline.with_version(registry.role("detector"), manifest)
    thief.seal(signing.sign(role, thief.signers), version=50)
    with pytest.raises(UnsignedMetadataError, match="0/1 keys"):
        device.sees("detector", "6.6.6")


def test_the_server_itself_refuses_to_publish_it(registry: Registry) -> None:
    manifest = registry.manifest("detector", "6.6.6")
    role = registry.offline.with_version(registry.role("detector"), manifest)
    with pytest.raises(Unsigned):
        registry.hand_in("detector", signing.sign(role, Thief(registry).signers), manifest)


def test_an_older_role_is_refused_by_a_device_that_saw_the_newer(
    registry: Registry, device: Device
) -> None:
    before = registry.role("detector")
    registry.yank("detector", "1.0.0")
    device.refresh()
    Thief(registry).seal(before, version=50)
    with pytest.raises(BadVersionNumberError):
        device.sees("detector", "1.0.0")


def test_a_fast_forward_is_undone_by_a_new_online_key(registry: Registry, device: Device) -> None:
    Thief(registry).seal(registry.role("detector"), version=FAR)
    assert device.sees("detector", "1.0.0")
    # the server takes its repository back, at the versions that it knows
    for path in (registry.data_dir / "tuf/metadata").glob(f"{FAR}.*"):
        path.unlink()
    registry.publish("detector", "1.1.0")
    with pytest.raises(BadVersionNumberError):
        device.sees("detector", "1.1.0")
    rotate_online(registry)
    assert device.sees("detector", "1.1.0")
