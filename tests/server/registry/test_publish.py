from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from pilotwave_protocol import signing
from pilotwave_server.blobs.tables import BlobRow
from pilotwave_server.db import FleetRow
from pilotwave_server.registry import documents, service
from pilotwave_server.registry.canary import CanaryRefused
from pilotwave_server.registry.checks import VersionClash
from pilotwave_server.registry.entries import CounterNotRising, VersionExists
from pilotwave_server.registry.tables import TufMetadataRow, VersionRow
from pilotwave_server.registry.trust import TrustStore
from tests.server.registry.registry import Registry, onnx


def test_a_published_version_is_found_by_a_device(registry: Registry, tmp_path: Path) -> None:
    done = registry.publish("detector", "1.0.0")
    assert (done.role_version, done.published, done.repeated) == (2, ("1.0.0",), False)
    device = registry.device(tmp_path / "device")
    assert device.sees("detector", "1.0.0")
    assert not device.sees("detector", "1.0.1")


def test_a_published_version_can_be_read_in_all_its_parts(registry: Registry) -> None:
    files = {"model.onnx": onnx("one"), "labels.txt": b"cat\ndog\nbird\n"}
    registry.publish("detector", "1.0.0", files=files)
    with registry.db.read() as session:
        row = service.get_version(session, model="detector", version="1.0.0")
        assert [v.name for v in row.variants] == ["onnx-fp32"]
        assert [f.path for f in row.variants[0].files] == ["labels.txt", "model.onnx"]
        assert row.signers == [registry.offline.publishers["detector"].public_key.keyid]
        blobs = set(session.scalars(select(BlobRow.sha256)))
        assert {row.sha256, *(f.sha256 for f in row.variants[0].files)} == blobs


def test_the_same_document_again_changes_nothing_and_succeeds(registry: Registry) -> None:
    manifest = registry.manifest("detector", "1.0.0")
    role = registry.signed_with_version(manifest)
    first = registry.hand_in("detector", role, manifest)
    again = registry.hand_in("detector", role, manifest)
    assert again.repeated
    assert (again.role_version, again.timestamp) == (first.role_version, first.timestamp)
    registry.publish("detector", "1.1.0")
    assert registry.hand_in("detector", role, manifest).repeated


def test_a_version_with_other_content_is_refused(registry: Registry) -> None:
    registry.publish("detector", "1.0.0")
    role = registry.offline.next_role(registry.role("detector"))
    del role.signed.targets["models/detector/1.0.0.json"]
    other = registry.manifest("detector", "1.0.0", {"model.onnx": onnx("other")}, counter=1)
    changed = registry.offline.with_version(
        registry.role("detector"), replace(other, version="9.9.9")
    )
    entry = changed.signed.targets["models/detector/9.9.9.json"]
    role.signed.targets["models/detector/1.0.0.json"] = entry
    signing.sign(role, [registry.offline.publishers["detector"]])
    with pytest.raises(VersionExists, match="with other content"):
        registry.hand_in("detector", role, other)


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize("spelling", ["1.0", "1.0.0.0", "1"])
def test_another_spelling_of_a_published_version_is_refused(
    registry: Registry, spelling: str
) -> None:
    registry.publish("detector", "1.0.0")
    with pytest.raises(VersionExists, match=r"is the same version as 1\.0\.0"):
        registry.publish("detector", spelling)


def test_what_a_device_would_refuse_is_not_committed(registry: Registry) -> None:
    registry.publish("detector", "1.0.0")
    with registry.db.write() as session:
        row = documents.find(session, "targets")
        assert row is not None
        row.document = row.document.replace(b'"version":2', b'"version":7')
    with pytest.raises(CanaryRefused):
        registry.publish("detector", "1.1.0")
    with registry.db.read() as session:
        assert list(session.scalars(select(VersionRow.version))) == ["1.0.0"]
        assert (
            session.scalar(
                select(TufMetadataRow.version).where(
                    TufMetadataRow.role == "models-detector", TufMetadataRow.version > 2
                )
            )
            is None
        )


def test_publishing_counts_the_revision_up_but_concerns_no_device(registry: Registry) -> None:
    with registry.db.read() as session:
        before = session.get_one(FleetRow, 1)
    registry.publish("detector", "1.0.0")
    with registry.db.read() as session:
        after = session.get_one(FleetRow, 1)
    assert after.revision == before.revision + 1
    assert after.fleet_revision == before.fleet_revision


def test_of_many_publishers_at_once_each_wins_or_is_told_the_current_version(
    registry: Registry,
) -> None:
    registry.publish("detector", "0.1.0")
    won: list[int] = []
    lost: list[int] = []

    def publisher(number: int) -> None:
        for attempt in range(3):
            try:
                version = f"1.{number}.{attempt}"
                won.append(registry.publish("detector", version).role_version)
            except VersionClash as clash:
                lost.append(clash.extra["current"])
            except CounterNotRising:  # another one's version came between its number and its role
                lost.append(0)

    threads = [threading.Thread(target=publisher, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) + len(lost) == 12
    assert sorted(won) == list(range(3, 3 + len(won)))
    with registry.db.read() as session:
        snapshots = session.scalars(
            select(TufMetadataRow.version)
            .where(TufMetadataRow.role == "snapshot")
            .order_by(TufMetadataRow.version)
        ).all()
        assert list(snapshots) == list(range(1, len(snapshots) + 1))
        versions = session.scalars(select(VersionRow.counter).order_by(VersionRow.id)).all()
        assert list(versions) == list(range(1, len(won) + 2))


def test_a_second_process_sees_what_the_first_published(registry: Registry) -> None:
    other = TrustStore(registry.db, registry.data_dir)
    other.start()
    seen = other.versions
    registry.publish("detector", "1.0.0")
    assert other.refresh()
    assert other.versions == registry.trust.versions != seen
    assert not other.refresh()


def test_released_versions_are_parsed_once(registry: Registry) -> None:
    registry.publish("detector", "1.0.0")
    remembered: dict[str, tuple] = {}  # type: ignore[type-arg]  # of variants
    with registry.db.read() as session:
        first = list(service.released(session, remembered=remembered))
    registry.publish("detector", "1.1.0")
    with registry.db.read() as session:
        second = list(service.released(session, remembered=remembered))
    assert [r.version for r in second] == ["1.0.0", "1.1.0"]
    assert second[0].variants is first[0].variants
    assert second[0].target == "models/detector/1.0.0.json"
    assert len(second[0].blobs) == 1
