from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from sqlalchemy import select

from pilotwave_protocol.digest import sha256_hex
from pilotwave_server.registry import export
from pilotwave_server.registry.tables import TufMetadataRow
from pilotwave_server.registry.trust import TrustNotReady, TrustStore
from tests.server.registry.registry import Registry

pytestmark = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)


def tree(folder: Path) -> dict[str, bytes]:
    found = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


def test_the_repository_has_the_names_that_tuf_clients_ask_for(registry: Registry) -> None:
    registry.publish("detector", "1.0.0")
    files = tree(registry.data_dir / "tuf")
    assert {
        "metadata/1.root.json",
        "metadata/timestamp.json",
        "metadata/3.snapshot.json",
        "metadata/2.targets.json",
        "metadata/2.models-detector.json",
    } <= set(files)
    [manifest] = [name for name in files if name.startswith("targets/")]
    digest = manifest.rpartition("/")[2].split(".")[0]
    assert manifest == f"targets/models/detector/{digest}.1.0.0.json"
    assert sha256_hex(files[manifest]) == digest


def test_files_that_a_crash_or_a_hand_removed_are_back_after_a_start(
    registry: Registry, tmp_path: Path
) -> None:
    registry.publish("detector", "1.0.0")
    folder = registry.data_dir / "tuf"
    before = tree(folder)
    shutil.rmtree(folder)
    TrustStore(registry.db, registry.data_dir).start()
    after = tree(folder)
    # documents that were replaced already need no file any more
    assert set(after) <= set(before)
    assert after["metadata/timestamp.json"] == before["metadata/timestamp.json"]
    assert registry.device(tmp_path / "d").sees("detector", "1.0.0")


def test_documents_of_a_later_time_are_gone_after_a_restore(registry: Registry) -> None:
    """Also a root: whoever asks for the next one must not get one that the server knows not."""
    metadata = registry.data_dir / "tuf/metadata"
    registry.publish("detector", "1.0.0")
    with registry.db.read() as session:
        then = {(row.role, row.version) for row in session.scalars(select(TufMetadataRow))}
    registry.publish("detector", "1.1.0")
    (metadata / "2.root.json").write_bytes((metadata / "1.root.json").read_bytes())
    with registry.db.write() as session:
        for row in session.scalars(select(TufMetadataRow)):
            if (row.role, row.version) not in then:
                session.delete(row)
    TrustStore(registry.db, registry.data_dir).start()
    found = {path.name for path in metadata.glob("*.json")} - {"timestamp.json"}
    assert found <= {f"{version}.{role}.json" for role, version in then}
    assert {"1.root.json", "2.models-detector.json"} <= found
    assert (metadata.parent / "unknown" / "2.root.json").exists(), "it may be the only copy"


@pytest.mark.parametrize("what", ["3.snapshot.json", "2.models-detector.json"])
def test_a_timestamp_is_not_written_before_what_it_names(registry: Registry, what: str) -> None:
    metadata = registry.data_dir / "tuf/metadata"
    before = (metadata / "timestamp.json").read_bytes()
    (metadata / what / "in the way").mkdir(parents=True)
    with pytest.raises(export.ExportFailed):
        registry.publish("detector", "1.0.0")
    assert (metadata / "timestamp.json").read_bytes() == before


def test_a_write_that_fails_is_said_and_made_up_for(registry: Registry, tmp_path: Path) -> None:
    manifest = registry.manifest("detector", "1.0.0")
    role = registry.signed_with_version(manifest)
    metadata = registry.data_dir / "tuf/metadata"
    hidden = metadata.rename(tmp_path / "hidden")
    metadata.write_text("in the way")
    with pytest.raises(export.ExportFailed):
        registry.hand_in("detector", role, manifest)
    metadata.unlink()
    hidden.rename(metadata)
    assert registry.hand_in("detector", role, manifest).repeated
    assert registry.device(tmp_path / "d").sees("detector", "1.0.0")


def test_before_a_root_of_trust_nothing_is_signed(bare_registry: Registry) -> None:
    with pytest.raises(TrustNotReady):
        bare_registry.trust.sign_directive("text/x", b"{}")
