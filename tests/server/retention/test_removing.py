"""Bytes go when they must, and when nobody needs them; nothing that is needed ever goes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from pilotwave_protocol.digest import sha256_hex
from pilotwave_server.blobs.port import BlobStore
from pilotwave_server.blobs.tables import BlobRow
from pilotwave_server.context import Context
from pilotwave_server.registry.tables import VariantFileRow, VariantRow, VersionRow
from pilotwave_server.retention.command import list_unneeded
from pilotwave_server.retention.remove import collect
from tests.conftest import FakeClock
from tests.server.fleet_fixtures import Fleet, fleet, published

__all__ = ["fleet", "published"]
API = "/api/v1"


def files(context: Context, version: str) -> set[str]:
    """The digests of a version's files."""
    f, a, v = VariantFileRow, VariantRow, VersionRow
    with context.db.read() as session:
        query = (
            select(f.sha256)
            .join(a, a.id == f.variant_id)
            .join(v, v.id == a.version_id)
            .where(v.version == version)
        )
        return set(session.scalars(query))


def here(context: Context, version: str) -> bool:
    return all(
        context.get(BlobStore).size(sha256) is not None for sha256 in files(context, version)
    )


def purge(client: httpx.Client, version: str, **body: Any) -> httpx.Response:
    path = f"{API}/models/detector/versions/{version}/purge"
    return client.post(path, json={"reason": "a key was in it", **body})


def collected(context: Context, clock: FakeClock, keep: int) -> list[str]:
    return collect(context.db, context.get(BlobStore), keep_versions=keep, now=clock()).versions


def test_a_purged_version_loses_its_bytes_and_keeps_its_record(
    fleet: Fleet, admin: httpx.Client, context: Context
) -> None:
    only = files(context, "1.1.0") - files(context, "1.0.0") - files(context, "1.2.0")
    assert only
    done = purge(admin, "1.1.0")
    assert done.status_code == 200, done.text
    assert done.json()["blobs"] == len(only)
    assert not any(context.get(BlobStore).size(sha256) for sha256 in only)
    assert here(context, "1.0.0"), "what other versions list stays"
    assert here(context, "1.2.0")
    shown = admin.get(f"{API}/models/detector/versions/1.1.0").json()
    assert shown["purged"]["reason"] == "a key was in it"
    events = admin.get(f"{API}/events", params={"verb": "version.purge"}).json()["items"]
    assert [event["object"] for event in events] == ["version/detector/1.1.0"]
    assert purge(admin, "1.1.0").status_code == 200, "a second time changes nothing"


def test_nobody_is_offered_a_purged_version_and_who_runs_it_goes_back(
    fleet: Fleet, admin: httpx.Client
) -> None:
    cam = fleet.device("cam-1", line="a")
    fleet.group("cams", "line=a")
    fleet.assign("cams", "1.0.0")
    fleet.assign("cams", "1.1.0")
    assert cam.runs() == {"detector": "1.1.0"}
    purge(admin, "1.1.0")
    assert cam.runs() == {"detector": "1.0.0"}
    why = fleet.operator.get(f"{API}/devices/cam-1/why", params={"model": "detector"}).json()
    assert "removed for good (a key was in it)" in str(why["candidates"])
    path = f"{API}/groups/cams/baselines/detector"
    answer = fleet.operator.put(path, json={"version": "1.1.0"})
    assert (answer.status_code, answer.json()["code"]) == (409, "version_not_offered")
    undeny = fleet.operator.delete(f"{API}/models/detector/versions/1.1.0/deny")
    assert (undeny.status_code, undeny.json()["code"]) == (409, "version_purged")


def test_only_an_admin_purges(fleet: Fleet, publisher: httpx.Client, context: Context) -> None:
    for client in (fleet.operator, publisher):
        assert purge(client, "1.1.0").status_code == 403
    assert here(context, "1.1.0")


def upload(client: httpx.Client, data: bytes) -> str:
    sha256 = sha256_hex(data)
    headers = {"Upload-Offset": "0", "Upload-Length": str(len(data))}
    answer = client.patch(f"{API}/blobs/{sha256}/upload", content=data, headers=headers)
    assert answer.status_code in (200, 201), answer.text
    return sha256


def test_a_blob_that_no_version_lists_is_removed_and_may_come_again(
    fleet: Fleet, publisher: httpx.Client, context: Context
) -> None:
    sha256 = upload(publisher, b"uploaded by mistake")
    assert publisher.delete(f"{API}/blobs/{sha256}").status_code == 204
    assert context.get(BlobStore).size(sha256) is None
    assert publisher.delete(f"{API}/blobs/{sha256}").status_code == 404
    assert upload(publisher, b"uploaded by mistake") == sha256
    with context.db.read() as session:
        row = session.get(BlobRow, sha256)
        assert row is not None
        assert row.removed_at is None
    signed = next(iter(files(context, "1.0.0")))
    answer = publisher.delete(f"{API}/blobs/{signed}")
    assert (answer.status_code, answer.json()["code"]) == (409, "blob_in_use")
    assert context.get(BlobStore).size(signed)


def test_without_a_retention_nothing_goes(fleet: Fleet, context: Context, clock: FakeClock) -> None:
    clock.advance(days=400)
    assert collected(context, clock, 0) == []
    assert all(here(context, version) for version in ("1.0.0", "1.1.0", "1.2.0"))


def test_old_versions_go_and_what_is_used_stays(
    fleet: Fleet, context: Context, clock: FakeClock
) -> None:
    fleet.device("cam-1", line="a")
    fleet.group("cams", "line=a")
    fleet.assign("cams", "1.0.0")
    lines = list_unneeded(context.db, keep_versions=1, now=clock())
    assert any("1.0.0" in line and "stays: a group runs it" in line for line in lines)
    assert any("1.1.0" in line and "would go: older than the newest 1" in line for line in lines)
    assert collected(context, clock, 1) == ["detector 1.1.0"]
    assert here(context, "1.0.0")
    assert not here(context, "1.1.0")
    assert here(context, "1.2.0")
    assert collected(context, clock, 1) == []


def test_of_what_a_group_was_told_before_one_version_stays_to_fall_back_on(
    fleet: Fleet, context: Context, clock: FakeClock
) -> None:
    fleet.group("cams", "line=a")
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        fleet.assign("cams", version)
    fleet.registry.publish("detector", "1.3.0")
    lines = list_unneeded(context.db, keep_versions=1, now=clock())
    assert any("1.2.0" in line and "stays: a group runs it" in line for line in lines)
    assert any("1.1.0" in line and "stays: a group would fall back on it" in line for line in lines)
    assert collected(context, clock, 1) == ["detector 1.0.0"]
    cam = fleet.device("cam-1", line="a")
    fleet.deny("1.2.0")
    assert cam.runs() == {"detector": "1.1.0"}
    assert collected(context, clock, 1) == ["detector 1.2.0"]
    assert cam.runs() == {"detector": "1.1.0"}


def test_uploads_that_were_never_signed_go_after_a_week(
    fleet: Fleet, publisher: httpx.Client, context: Context, clock: FakeClock
) -> None:
    sha256 = upload(publisher, b"never signed")
    collected(context, clock, 0)
    assert context.get(BlobStore).size(sha256)
    clock.advance(days=8)
    collected(context, clock, 0)
    assert context.get(BlobStore).size(sha256) is None
    assert all(here(context, version) for version in ("1.0.0", "1.1.0", "1.2.0"))
    # manifests are blobs as well, listed by no variant
    with context.db.read() as session:
        manifests = list(session.scalars(select(VersionRow.sha256)))
    assert all(context.get(BlobStore).size(sha256) for sha256 in manifests)


def test_what_a_crash_left_is_removed_the_next_time(
    fleet: Fleet, admin: httpx.Client, context: Context, clock: FakeClock
) -> None:
    """The record says that a file is gone, and it is there; a file that no record knows is old."""
    only = files(context, "1.1.0") - files(context, "1.0.0") - files(context, "1.2.0")
    kept = {sha256: context.get(BlobStore).path(sha256).read_bytes() for sha256 in only}
    purge(admin, "1.1.0")
    for sha256, data in kept.items():
        context.get(BlobStore).path(sha256).write_bytes(data)
    stray: dict[Path, bool] = {}
    for data, old in ((b"old", True), (b"new", False)):
        path = context.get(BlobStore).path(sha256_hex(data))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        if old:
            os.utime(path, (0, time.time() - 8 * 86_400))
        stray[path] = old
    collected(context, clock, 0)
    assert not any(context.get(BlobStore).path(sha256).exists() for sha256 in kept)
    assert [path.exists() for path in stray] == [False, True]


@pytest.mark.parametrize("keep", [0, 1, 5])
def test_a_yanked_version_goes_unless_a_device_runs_it(
    fleet: Fleet, context: Context, clock: FakeClock, keep: int
) -> None:
    fleet.registry.yank("detector", "1.2.0")
    assert "detector 1.2.0" in collected(context, clock, keep)
    assert not here(context, "1.2.0")
