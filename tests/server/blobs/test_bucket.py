"""The blob store on a bucket: what each S3 server must do for it, and what is not left to it."""

from __future__ import annotations

import asyncio
import os
import threading
import tracemalloc
from datetime import timedelta
from pathlib import Path

import pytest

from pilotwave_protocol.digest import EMPTY_SHA256, sha256_hex
from pilotwave_server.blobs import bucket as bucket_module
from pilotwave_server.blobs.bucket import BucketBlobs, open_bucket
from pilotwave_server.blobs.port import (
    BlobBusy,
    BlobDamaged,
    BlobMissing,
    BlobTooLong,
    DigestMismatch,
    NoSpace,
    OffsetMismatch,
    StoreBroken,
)
from pilotwave_server.db import Database
from tests.buckets import Bucket
from tests.conftest import FakeClock

pytestmark = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
MB = 1 << 20
DATA = os.urandom(9 * MB + 17)
SHA256 = sha256_hex(DATA)


class Fleet:
    """Hosts that share a bucket and a database."""

    def __init__(self, bucket: Bucket, db: Database, clock: FakeClock, folder: Path) -> None:
        self.bucket, self._db, self.clock, self._folder = bucket, db, clock, folder

    def host(self) -> BucketBlobs:
        return open_bucket(
            self.bucket.url, self._db, scratch=self._folder / "scratch", clock=self.clock
        )


@pytest.fixture
def fleet(bucket: Bucket, db: Database, clock: FakeClock, tmp_path: Path) -> Fleet:
    return Fleet(bucket, db, clock, tmp_path)


@pytest.fixture
def store(fleet: Fleet) -> BucketBlobs:
    return fleet.host()


def send(store: BucketBlobs, data: bytes, *, offset: int = 0, finish: bool = True) -> None:
    with store.begin(SHA256, offset=offset, length=len(DATA)) as upload:
        for start in range(0, len(data), MB):
            upload.write([data[start : start + MB]])
        if finish:
            upload.finish()


def read(store: BucketBlobs, sha256: str, start: int, stop: int) -> bytes:
    async def collect() -> bytes:
        return b"".join([piece async for piece in store.stream(sha256, start, stop)])

    return asyncio.run(collect())


def test_a_blob_is_there_whole_or_not_at_all(fleet: Fleet, store: BucketBlobs) -> None:
    send(store, DATA[:-1], finish=False)
    assert store.size(SHA256) is None
    assert asyncio.run(store.find(SHA256)) is None
    assert store.partial(SHA256) == len(DATA) - 1
    with pytest.raises(BlobMissing):
        store.read(SHA256, 10)
    with pytest.raises(BlobMissing):
        read(store, SHA256, 0, 10)
    with pytest.raises(BlobMissing), store.local(SHA256):
        pass
    send(store, DATA[-1:], offset=len(DATA) - 1)
    assert store.size(SHA256) == asyncio.run(store.find(SHA256)) == len(DATA)
    assert store.sizes([SHA256, "0" * 64]) == {SHA256: len(DATA), "0" * 64: None}
    assert store.partial(SHA256) == 0
    assert read(store, SHA256, 0, len(DATA)) == DATA
    assert read(store, SHA256, 1_000_000, 5_000_001) == DATA[1_000_000:5_000_001]
    assert store.read(SHA256, 1000) == DATA[:1000]
    with store.local(SHA256) as path:
        assert path.read_bytes() == DATA
    assert not path.exists()
    assert fleet.bucket.keys() == [f"fleet/blobs/{SHA256}"]
    assert fleet.bucket.unfinished() == []


def test_an_upload_in_one_go_is_copied_by_the_store(fleet: Fleet, store: BucketBlobs) -> None:
    send(store, DATA)
    assert read(store, SHA256, 0, len(DATA)) == DATA
    assert fleet.bucket.keys() == [f"fleet/blobs/{SHA256}"]


def test_an_upload_begun_at_one_host_goes_on_at_others(fleet: Fleet) -> None:
    send(fleet.host(), DATA[: 5 * MB], finish=False)
    other = fleet.host()
    assert other.partial(SHA256) == 5 * MB
    send(other, DATA[5 * MB : 7 * MB], offset=5 * MB, finish=False)
    send(fleet.host(), DATA[7 * MB :], offset=7 * MB)
    assert read(other, SHA256, 0, len(DATA)) == DATA
    assert fleet.bucket.keys() == [f"fleet/blobs/{SHA256}"]


def test_all_bytes_may_be_here_before_anybody_finishes(fleet: Fleet) -> None:
    send(fleet.host(), DATA, finish=False)
    send(fleet.host(), b"", offset=len(DATA))
    assert read(fleet.host(), SHA256, 0, len(DATA)) == DATA


@pytest.mark.parametrize("pieces", [1, 2])
def test_bytes_that_are_not_the_blob_are_thrown_away(fleet: Fleet, pieces: int) -> None:
    offset = 0
    if pieces == 2:
        offset = 5 * MB
        send(fleet.host(), DATA[:offset], finish=False)
    with pytest.raises(DigestMismatch) as refused:
        send(fleet.host(), DATA[offset:-1] + b"x", offset=offset)
    assert refused.value.extra == {"offset": 0}
    store = fleet.host()
    assert (store.partial(SHA256), store.size(SHA256)) == (0, None)
    assert fleet.bucket.keys() == []
    assert fleet.bucket.unfinished() == []


def test_a_piece_changed_in_the_store_is_noticed(fleet: Fleet, store: BucketBlobs) -> None:
    send(store, DATA[: 5 * MB], finish=False)
    (key,) = fleet.bucket.keys()
    fleet.bucket.client.put_object(Bucket=fleet.bucket.name, Key=key, Body=b"x" * 5 * MB)
    with pytest.raises(DigestMismatch):
        send(store, DATA[5 * MB :], offset=5 * MB)
    assert store.size(SHA256) is None


def test_a_piece_that_is_gone_from_the_store_is_sent_again(
    fleet: Fleet, store: BucketBlobs
) -> None:
    send(store, DATA[: 5 * MB], finish=False)
    (key,) = fleet.bucket.keys()
    fleet.bucket.client.delete_object(Bucket=fleet.bucket.name, Key=key)
    with pytest.raises(DigestMismatch, match="begin again at 0"):
        send(store, DATA[5 * MB :], offset=5 * MB)
    send(store, DATA)
    assert fleet.bucket.unfinished() == []


def test_a_blob_changed_in_the_store_is_not_looked_into(fleet: Fleet, store: BucketBlobs) -> None:
    sha256 = store.put(b"hello")
    fleet.bucket.client.put_object(
        Bucket=fleet.bucket.name, Key=f"fleet/blobs/{sha256}", Body=b"jello"
    )
    with pytest.raises(BlobDamaged, match="other bytes"), store.local(sha256):
        pass


def test_an_upload_begins_where_the_last_one_ended(store: BucketBlobs) -> None:
    send(store, DATA[:MB], finish=False)
    for offset in (0, 2 * MB):
        with pytest.raises(OffsetMismatch) as refused:
            send(store, DATA, offset=offset)
        assert refused.value.extra == {"offset": MB}
    # another length is another upload
    store.begin(SHA256, offset=0, length=len(DATA) - 1).close()
    assert store.partial(SHA256) == 0


def test_more_bytes_than_announced_are_refused(store: BucketBlobs) -> None:
    with store.begin(SHA256, offset=0, length=10) as upload, pytest.raises(BlobTooLong):
        upload.write([b"x" * 11])


def test_one_uploads_at_a_time_on_all_hosts(fleet: Fleet) -> None:
    with fleet.host().begin(SHA256, offset=0, length=len(DATA)), pytest.raises(BlobBusy):
        fleet.host().begin(SHA256, offset=0, length=len(DATA))
    send(fleet.host(), DATA)


def test_a_host_that_died_holds_an_upload_for_a_minute(fleet: Fleet) -> None:
    dead = fleet.host().begin(SHA256, offset=0, length=len(DATA))
    dead.write([DATA[:MB]])
    with pytest.raises(BlobBusy):
        fleet.host().begin(SHA256, offset=0, length=len(DATA))
    fleet.clock.advance(seconds=61)
    with fleet.host().begin(SHA256, offset=0, length=len(DATA)) as heir:
        heir.write([DATA[: 2 * MB]])
    # it was alive after all: what it wrote does not count, and does no harm
    with pytest.raises(BlobBusy):
        dead.close()
    assert fleet.host().partial(SHA256) == 2 * MB
    send(fleet.host(), DATA[2 * MB :], offset=2 * MB)
    assert read(fleet.host(), SHA256, 0, len(DATA)) == DATA
    assert fleet.bucket.keys() == [f"fleet/blobs/{SHA256}"]


def test_of_many_uploads_at_once_one_makes_the_blob(fleet: Fleet) -> None:
    refused: list[Exception] = []

    def upload(store: BucketBlobs) -> None:
        try:
            send(store, DATA)
        except (BlobBusy, OffsetMismatch) as error:
            refused.append(error)

    threads = [threading.Thread(target=upload, args=[fleet.host()]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) < 6
    assert read(fleet.host(), SHA256, 0, len(DATA)) == DATA
    assert fleet.bucket.keys("uploads") == []


def test_a_long_upload_is_stored_piece_by_piece(fleet: Fleet) -> None:
    now = [0.0]
    with fleet.host().begin(SHA256, offset=0, length=len(DATA)) as upload:
        upload._monotonic = lambda: now[0]
        upload._renewed = 0.0
        for start in range(0, len(DATA), MB):
            upload.write([DATA[start : start + MB]])
            now[0] += 16
            fleet.clock.advance(seconds=16)
            with pytest.raises(BlobBusy):
                fleet.host().begin(SHA256, offset=0, length=len(DATA))
        # what a host loses that dies now
        assert len(DATA) - fleet.host().partial(SHA256) < 6 * MB
        upload.finish()
    assert read(fleet.host(), SHA256, 0, len(DATA)) == DATA


def test_an_upload_takes_little_memory(store: BucketBlobs) -> None:
    """What Python holds; bench/transfer.py measures the process."""
    block = os.urandom(MB)
    tracemalloc.start()
    try:
        with store.begin(SHA256, offset=0, length=64 * MB) as upload:
            for _ in range(64):
                upload.write([block])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * MB


def test_a_small_blob_is_put_in_one_go_and_again(store: BucketBlobs) -> None:
    assert store.put(b"hello") == store.put(b"hello") == sha256_hex(b"hello")
    assert store.put(b"") == EMPTY_SHA256
    assert (store.size(EMPTY_SHA256), store.read(EMPTY_SHA256, 10)) == (0, b"")
    assert dict(store.all()) == {sha256_hex(b"hello"): 5, EMPTY_SHA256: 0}
    with store.begin(EMPTY_SHA256, offset=0, length=0) as upload:
        upload.finish()
    store.delete(sha256_hex(b"hello"))
    store.delete(sha256_hex(b"hello"))
    assert dict(store.all()) == {EMPTY_SHA256: 0}


def test_what_does_not_fit_the_scratch_folder_is_said(fleet: Fleet, store: BucketBlobs) -> None:
    sha256 = store.put(b"hello")
    store._reserve = 1 << 60
    with pytest.raises(NoSpace, match="looked into"), store.local(sha256):
        pass


def test_uploads_that_nobody_goes_on_with_are_swept_away(fleet: Fleet, store: BucketBlobs) -> None:
    send(store, DATA[:1000], finish=False)
    # written by a host that did not live to note it
    stray = f"fleet/uploads/{'0' * 64}/{0:014d}-dead"
    fleet.bucket.client.put_object(Bucket=fleet.bucket.name, Key=stray, Body=b"x")
    week = timedelta(days=7).total_seconds()
    assert store.sweep(older_than_s=week) == 0
    assert len(fleet.bucket.keys("uploads")) == 2
    # by the store's clock both are old at once, but the piece is noted
    fleet.clock.advance(hours=-1)
    assert store.sweep(older_than_s=-5) == 1
    assert store.partial(SHA256) == 1000
    fleet.clock.advance(days=8, hours=1)
    assert store.sweep(older_than_s=week) == 1
    assert store.partial(SHA256) == 0
    assert fleet.bucket.keys("uploads") == []


def test_copies_that_a_killed_server_left_are_removed(store: BucketBlobs) -> None:
    sha256 = store.put(b"hello")
    with store.local(sha256) as path:
        left, fresh = path.with_name("blob-left"), path.with_name("blob-fresh")
    left.write_bytes(b"x")
    fresh.write_bytes(b"x")
    os.utime(left, (1, 1))
    store.sweep(older_than_s=60)
    assert (left.exists(), fresh.exists()) == (False, True)


def test_a_store_that_is_well_is_checked_without_a_trace(fleet: Fleet, store: BucketBlobs) -> None:
    store.check()
    store.check(write=True)
    assert fleet.bucket.keys() == []
    assert store.name == fleet.bucket.url


def test_a_bucket_that_is_not_there_is_named(fleet: Fleet) -> None:
    object.__setattr__(fleet.bucket, "name", "no-such-bucket")
    store = fleet.host()
    with pytest.raises(StoreBroken, match="s3://no-such-bucket/fleet: there is no such bucket"):
        store.check()
    with pytest.raises(StoreBroken, match="correct PILOTWAVE_BLOBS"):
        store.put(b"hello")


def test_a_store_that_is_away_is_said(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setitem(bucket_module._RETRY, "max_retries", 0)
    store = fleet.host()
    with pytest.raises(StoreBroken, match="does not answer; check AWS_ENDPOINT_URL"):
        store.check()
    with pytest.raises(StoreBroken) as refused:
        store.size(SHA256)
    assert refused.value.status == 503
    with pytest.raises(StoreBroken):
        read(store, SHA256, 0, 10)


@pytest.mark.parametrize(
    "bucket", [pytest.param("radosgw", marks=pytest.mark.needs("radosgw"))], indirect=True
)
def test_a_wrong_key_is_said_and_not_shown(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nobody-may-see-this")
    store = fleet.host()
    for ask in (store.check, lambda: store.size(SHA256), lambda: list(store.all())):
        with pytest.raises(StoreBroken, match="expected AWS_ACCESS_KEY_ID and AWS_SECRET") as no:
            ask()
        assert "nobody-may-see-this" not in str(no.value)


@pytest.mark.parametrize("name", ["..", "../x", "A" * 64, "0" * 63, "/etc/passwd", ""])
@pytest.mark.parametrize("bucket", ["moto"], indirect=True)
def test_only_a_digest_names_a_blob(store: BucketBlobs, name: str) -> None:
    with pytest.raises(Exception, match="sha256"):
        store.size(name)
