from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from pilotwave_server.registry import service
from pilotwave_server.registry.resealer import KEEP_VERSIONS, keep_fresh
from pilotwave_server.registry.tables import TufMetadataRow
from pilotwave_server.registry.trust import TrustStore
from tests.server.registry.registry import Registry


def reseal(registry: Registry, trust: TrustStore | None = None) -> bool:
    return keep_fresh(registry.db, trust or registry.trust, now=registry.clock())


def test_a_timestamp_is_signed_anew_when_a_quarter_of_its_life_is_over(registry: Registry) -> None:
    before = registry.trust.versions
    registry.clock.advance(hours=17)
    assert not reseal(registry)
    registry.clock.advance(hours=2)
    assert reseal(registry)
    after = registry.trust.versions
    assert after.timestamp == before.timestamp + 1
    assert after.snapshot == before.snapshot
    served = json.loads((registry.data_dir / "tuf/metadata/timestamp.json").read_bytes())
    assert served["signed"]["version"] == after.timestamp
    assert served["signed"]["signed_at"] == "2026-02-01T04:30:00Z"


def test_a_snapshot_is_signed_anew_when_a_third_of_its_life_is_over(
    registry: Registry, tmp_path: Path
) -> None:
    before = registry.trust.versions
    registry.clock.advance(days=5)
    assert reseal(registry)
    assert registry.trust.versions.snapshot == before.snapshot + 1
    registry.device(tmp_path / "d").refresh()


def test_of_two_servers_one_signs_and_the_other_takes_it_over(registry: Registry) -> None:
    other = TrustStore(registry.db, registry.data_dir)
    other.start()
    registry.clock.advance(days=1)
    assert reseal(registry)
    assert not reseal(registry, other)
    assert other.versions == registry.trust.versions


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_half_a_year_of_sealing_keeps_devices_fresh_and_the_table_small(
    registry: Registry, tmp_path: Path
) -> None:
    device = registry.device(tmp_path / "d")
    for _ in range(40):
        registry.clock.advance(days=4)
        reseal(registry)
    device.refresh()
    with registry.db.read() as session:
        rows = session.execute(select(TufMetadataRow.role, TufMetadataRow.version)).tuples().all()
    assert sum(role == "timestamp" for role, _ in rows) <= 8 + KEEP_VERSIONS
    assert ("root", 1) in rows
    files = {path.name for path in (registry.data_dir / "tuf/metadata").glob("*.json")}
    assert "1.root.json" in files
    assert len(files) < 40


def test_days_to_expiry_are_told_for_every_role(registry: Registry) -> None:
    registry.clock.advance(days=10)
    with registry.db.read() as session:
        left = {e.role: e.days_left(registry.clock()) for e in service.expiries(session)}
    assert left == {
        "root": 720,
        "targets": 355,
        "models-detector": 170,
        "snapshot": 4,
        "timestamp": -7,
    }
    assert timedelta(days=left["timestamp"]) < timedelta(0)


@pytest.mark.parametrize("ahead", [timedelta(days=1), timedelta(days=100)])
def test_what_was_signed_by_a_clock_that_ran_ahead_is_signed_anew_at_once(
    registry: Registry, tmp_path: Path, ahead: timedelta
) -> None:
    registry.clock.advance(seconds=ahead.total_seconds())
    assert reseal(registry)
    registry.clock.advance(seconds=-ahead.total_seconds())
    wrong = registry.trust.versions
    assert reseal(registry)
    assert registry.trust.versions == (wrong.root, wrong.timestamp + 1, wrong.snapshot + 1)
    served = json.loads((registry.data_dir / "tuf/metadata/timestamp.json").read_bytes())
    assert served["signed"]["signed_at"] == registry.clock().strftime("%Y-%m-%dT%H:%M:%SZ")
    registry.device(tmp_path / "d").refresh()
    assert not reseal(registry)
