"""Upload and download of one large blob: MB/s and the server's memory, against cp + sha256sum.

With --bucket, the blobs are in a bucket of a radosgw that it starts (Debian: ceph-mon, ceph-osd,
radosgw, ceph-common), and the yardstick is the store without the server: up by the server's own
client, down by the same HTTP client from a presigned URL.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import threading
import time
from datetime import timedelta
from pathlib import Path

import httpx
import obstore
from _bench import Bench, Stage, main, memory_kb, server
from obstore.store import S3Store

from tests.buckets import Bucket, running_ceph

CHUNK = 1 << 20


def make_file(path: Path, size: int) -> str:
    """Write random bytes; return their SHA-256."""
    hasher = hashlib.sha256()
    with path.open("wb") as out:
        for _ in range(size // CHUNK):
            block = os.urandom(CHUNK)
            hasher.update(block)
            out.write(block)
        out.flush()
        os.fsync(out.fileno())
    return hasher.hexdigest()


def yardstick(path: Path) -> float:
    """Seconds that cp and sha256sum of the copy take, with the copy on disk."""
    copy = path.with_suffix(".copy")
    started = time.perf_counter()
    subprocess.run(["cp", str(path), str(copy)], check=True)
    subprocess.run(["sync", str(copy)], check=True)
    subprocess.run(["sha256sum", str(copy)], check=True, capture_output=True)
    took = time.perf_counter() - started
    copy.unlink()
    return took


class Watch(threading.Thread):
    """Samples a process's resident memory every 20 ms; `peak_kb` is the highest."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak_kb, self.done = pid, memory_kb(pid, "VmRSS"), threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.02):
            self.peak_kb = max(self.peak_kb, memory_kb(self.pid, "VmRSS"))


def upload(stage: Stage, path: Path, sha256: str) -> float:
    headers = {
        "Authorization": f"Bearer {(stage.root / 'admin.token').read_text().strip()}",
        "Upload-Offset": "0",
        "Upload-Length": str(path.stat().st_size),
        "Content-Type": "application/octet-stream",
    }
    started = time.perf_counter()
    with path.open("rb") as body:
        blocks = iter(lambda: body.read(CHUNK), b"")
        answer = httpx.patch(
            f"{stage.url}/api/v1/blobs/{sha256}/upload",
            content=blocks,
            headers=headers,
            timeout=600,
        )
    answer.raise_for_status()
    return time.perf_counter() - started


def download(stage: Stage, sha256: str) -> float:
    token = (stage.root / "admin.token").read_text().strip()
    return fetch(f"{stage.url}/blobs/{sha256}", {"Authorization": f"Bearer {token}"}, sha256)


def fetch(url: str, headers: dict[str, str], sha256: str) -> float:
    """Seconds to fetch and hash what is at a URL."""
    hasher = hashlib.sha256()
    started = time.perf_counter()
    with httpx.stream("GET", url, headers=headers, timeout=600) as answer:
        answer.raise_for_status()
        for block in answer.iter_raw():
            hasher.update(block)
    took = time.perf_counter() - started
    if hasher.hexdigest() != sha256:
        raise SystemExit("the download is not what was uploaded")
    return took


def own_speed(bucket: Bucket, path: Path) -> tuple[float, float]:
    """Seconds that the store itself takes, up and down, with a hash of what comes and goes."""
    store = S3Store(
        bucket.name,
        endpoint=bucket.server.url,
        access_key_id=bucket.server.environment["AWS_ACCESS_KEY_ID"],
        secret_access_key=bucket.server.environment["AWS_SECRET_ACCESS_KEY"],
        client_options={"allow_http": True, "timeout": "600s"},
    )
    started, hasher = time.perf_counter(), hashlib.sha256()
    writer = obstore.open_writer(store, "own", buffer_size=8 * CHUNK, max_concurrency=2)
    with path.open("rb") as body:
        while block := body.read(CHUNK):
            hasher.update(block)
            writer.write(block)
    writer.close()
    up = time.perf_counter() - started
    url = obstore.sign(store, "GET", "own", timedelta(minutes=10))
    down = fetch(url, {}, hasher.hexdigest())
    obstore.delete(store, "own")
    return up, down


def measure(bench: Bench) -> None:
    size = (128 if bench.quick else 1024) * CHUNK
    if not bench.options.bucket:
        with server(max_upload_bytes=2 * size) as stage:
            path = stage.root / "big.bin"
            sha256 = make_file(path, size)
            base = min(yardstick(path) for _ in range(2))
            up, _ = transfer(bench, stage, path, sha256)
            bench.figure("cp_and_sha256sum_mb_s", size / 1e6 / base)
            bench.figure("upload_of_yardstick", base / up)
        return
    with running_ceph() as ceph:
        bucket = ceph.bucket()
        os.environ.update(ceph.environment)
        with server(max_upload_bytes=2 * size, blobs=bucket.url) as stage:
            path = stage.root / "big.bin"
            sha256 = make_file(path, size)
            before = own_speed(bucket, path)
            up, down = transfer(bench, stage, path, sha256)
            after = own_speed(bucket, path)
            own_up, own_down = (min(pair) for pair in zip(before, after, strict=True))
            bench.figure("store_alone_up_mb_s", size / 1e6 / own_up)
            bench.figure("store_alone_down_mb_s", size / 1e6 / own_down)
            share = own_up / up, own_down / down
            bench.figure("upload_of_store", share[0], "at least 0.7", share[0] >= 0.7)
            bench.figure("download_of_store", share[1], "at least 0.7", share[1] >= 0.7)


def transfer(bench: Bench, stage: Stage, path: Path, sha256: str) -> tuple[float, float]:
    """Send the file and fetch it, watching the server's memory; the seconds of each."""
    megabytes = path.stat().st_size / 1e6
    pid = stage.processes[0].pid
    time.sleep(1)
    idle = memory_kb(pid, "VmRSS")
    bench.say(f"{megabytes:,.0f} MB of random bytes; server idle at {idle / 1024:.1f} MB")
    watch = Watch(pid)
    watch.start()
    up = upload(stage, path, sha256)
    peak_up = watch.peak_kb
    down = download(stage, sha256)
    watch.done.set()
    bench.figure("file_mb", megabytes)
    bench.figure("upload_mb_s", megabytes / up)
    bench.figure("download_mb_s", megabytes / down)
    above = (watch.peak_kb - idle) / 1024
    bench.figure("upload_memory_above_idle_mb", (peak_up - idle) / 1024)
    bench.figure("memory_above_idle_mb", above, "under 60 MB", above < 60)
    return up, down


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bucket", action="store_true", help="keep blobs in a bucket")


if __name__ == "__main__":
    main("transfer", measure, add=add)
