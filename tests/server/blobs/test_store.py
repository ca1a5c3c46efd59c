from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from pilotwave_protocol.digest import EMPTY_SHA256, sha256_hex
from pilotwave_server.blobs.filesystem import FileBlobs
from pilotwave_server.blobs.port import (
    BlobBusy,
    BlobMissing,
    BlobTooLong,
    DigestMismatch,
    NoSpace,
    OffsetMismatch,
    StoreBroken,
)

DATA = os.urandom(3_000_000)
SHA256 = sha256_hex(DATA)


@pytest.fixture
def store(tmp_path: Path) -> FileBlobs:
    return FileBlobs(tmp_path / "blobs", reserve=0)


def send(store: FileBlobs, data: bytes, *, offset: int = 0, finish: bool = True) -> None:
    with store.begin(SHA256, offset=offset, length=len(DATA)) as upload:
        for start in range(0, len(data), 65536):
            upload.write([data[start : start + 65536]])
        if finish:
            upload.finish()


def read(store: FileBlobs, sha256: str, start: int, stop: int) -> bytes:
    async def collect() -> bytes:
        return b"".join([bytes(p) async for p in store.stream(sha256, start, stop)])

    return asyncio.run(collect())


def test_a_blob_is_there_whole_or_not_at_all(store: FileBlobs) -> None:
    send(store, DATA[:-1], finish=False)
    assert store.size(SHA256) is None
    assert store.partial(SHA256) == len(DATA) - 1
    with pytest.raises(BlobMissing):
        store.read(SHA256, 10)
    send(store, DATA[-1:], offset=len(DATA) - 1)
    assert store.size(SHA256) == len(DATA)
    assert store.partial(SHA256) == 0
    assert read(store, SHA256, 0, len(DATA)) == DATA
    assert read(store, SHA256, 1_000_000, 2_000_001) == DATA[1_000_000:2_000_001]


def test_an_upload_goes_on_in_another_process_s_store(store: FileBlobs) -> None:
    send(store, DATA[:1_000_000], finish=False)
    other = FileBlobs(store.root, reserve=0)
    send(other, DATA[1_000_000:2_000_000], offset=1_000_000, finish=False)
    # the first store's memory of the hash is out of date now and must not be believed
    send(store, DATA[2_000_000:], offset=2_000_000)
    assert store.size(SHA256) == len(DATA)


def test_bytes_that_are_not_the_blob_are_thrown_away(store: FileBlobs) -> None:
    with pytest.raises(DigestMismatch) as refused:
        send(store, DATA[:-1] + b"x")
    assert refused.value.extra == {"offset": 0}
    assert store.partial(SHA256) == 0
    assert store.size(SHA256) is None


def test_a_file_changed_between_two_requests_is_noticed(store: FileBlobs) -> None:
    send(store, DATA[:1_000_000], finish=False)
    part = store.part_path(SHA256)
    part.write_bytes(b"x" * 1_000_000)
    with pytest.raises(DigestMismatch):
        send(store, DATA[1_000_000:], offset=1_000_000)


def test_an_upload_begins_where_the_last_one_ended(store: FileBlobs) -> None:
    send(store, DATA[:1_000_000], finish=False)
    with pytest.raises(OffsetMismatch) as refused:
        send(store, DATA, offset=0)
    assert refused.value.extra == {"offset": 1_000_000}
    with pytest.raises(OffsetMismatch):
        send(store, DATA, offset=2_000_000)


def test_more_bytes_than_announced_are_refused(store: FileBlobs) -> None:
    with store.begin(SHA256, offset=0, length=10) as upload, pytest.raises(BlobTooLong):
        upload.write([b"x" * 11])


def test_one_uploads_at_a_time(store: FileBlobs) -> None:
    other = FileBlobs(store.root, reserve=0)
    with store.begin(SHA256, offset=0, length=len(DATA)):
        for place in (store, other):
            with pytest.raises(BlobBusy):
                place.begin(SHA256, offset=0, length=len(DATA))
    send(store, DATA)


def test_a_descriptor_that_another_process_inherited_holds_no_upload(store: FileBlobs) -> None:
    with store.begin(SHA256, offset=0, length=len(DATA)):
        (part,) = (store.root / "partial").iterdir()
        inherited = [os.dup(fd) for fd in range(3, 1000) if is_open_as(fd, part)]
    try:
        assert inherited
        send(store, DATA)
    finally:
        for fd in inherited:
            os.close(fd)


def is_open_as(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except OSError:
        return False


def test_of_many_uploads_at_once_one_makes_the_blob(store: FileBlobs) -> None:
    refused: list[Exception] = []

    def upload() -> None:
        try:
            send(FileBlobs(store.root, reserve=0), DATA)
        except (BlobBusy, OffsetMismatch) as error:
            refused.append(error)

    threads = [threading.Thread(target=upload) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) < 8
    assert read(store, SHA256, 0, len(DATA)) == DATA
    assert list((store.root / "partial").iterdir()) == []


def test_an_upload_that_does_not_fit_is_refused_before_its_first_byte(tmp_path: Path) -> None:
    store = FileBlobs(tmp_path, reserve=1000, free_space=lambda path: 2000)
    with pytest.raises(NoSpace, match="make room") as refused:
        store.begin(SHA256, offset=0, length=1001)
    assert refused.value.extra == {"needed": 1001, "free": 2000}
    assert refused.value.status == 507
    store.begin(SHA256, offset=0, length=1000).close()


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("in the way")
    with pytest.raises(StoreBroken, match="blobs"):
        FileBlobs(tmp_path / "blobs")


def test_a_write_that_fails_leaves_what_was_there(store: FileBlobs) -> None:
    with store.begin(SHA256, offset=0, length=len(DATA)) as upload:
        upload.write([DATA[:1000]])
        keep = os.dup(upload._fd)
        closed = os.open(os.devnull, os.O_RDONLY)
        os.dup2(closed, upload._fd)
        with pytest.raises(OSError, match=r"Invalid|Bad"):
            upload.write([DATA[1000:2000]])
        os.dup2(keep, upload._fd)
        os.close(keep)
        os.close(closed)
        upload.write([DATA[1000:]])
        upload.finish()
    assert store.size(SHA256) == len(DATA)


def test_a_small_blob_is_put_in_one_go_and_again(store: FileBlobs) -> None:
    assert store.put(b"hello") == store.put(b"hello") == sha256_hex(b"hello")
    assert store.put(b"") == EMPTY_SHA256
    assert store.size(EMPTY_SHA256) == 0
    assert dict(store.all()) == {sha256_hex(b"hello"): 5, EMPTY_SHA256: 0}


def test_uploads_that_nobody_goes_on_with_are_swept_away(store: FileBlobs) -> None:
    send(store, DATA[:1000], finish=False)
    assert store.sweep(older_than_s=60) == 0
    os.utime(store.part_path(SHA256), (1, 1))
    assert store.sweep(older_than_s=60) == 1
    assert store.partial(SHA256) == 0


@pytest.mark.parametrize("name", ["..", "../x", "A" * 64, "0" * 63, "/etc/passwd", ""])
def test_only_a_digest_names_a_blob(store: FileBlobs, name: str) -> None:
    with pytest.raises(Exception, match="sha256"):
        store.size(name)
