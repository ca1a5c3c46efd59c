"""Upload and download of one large blob: MB/s and the server's memory, against cp + sha256sum."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
import time
from pathlib import Path

import httpx
from _bench import Bench, Stage, main, memory_kb, server

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
    headers = {"Authorization": f"Bearer {(stage.root / 'admin.token').read_text().strip()}"}
    hasher = hashlib.sha256()
    started = time.perf_counter()
    with httpx.stream("GET", f"{stage.url}/blobs/{sha256}", headers=headers, timeout=600) as answer:
        answer.raise_for_status()
        for block in answer.iter_raw():
            hasher.update(block)
    took = time.perf_counter() - started
    if hasher.hexdigest() != sha256:
        raise SystemExit("the download is not what was uploaded")
    return took


def measure(bench: Bench) -> None:
    size = (128 if bench.quick else 1024) * CHUNK
    megabytes = size / 1e6
    with server(max_upload_bytes=2 * size) as stage:
        path = stage.root / "big.bin"
        sha256 = make_file(path, size)
        pid = stage.processes[0].pid
        time.sleep(1)
        idle = memory_kb(pid, "VmRSS")
        bench.say(f"{megabytes:,.0f} MB of random bytes; server idle at {idle / 1024:.1f} MB")
        base = min(yardstick(path) for _ in range(2))
        watch = Watch(pid)
        watch.start()
        up = upload(stage, path, sha256)
        peak_up = watch.peak_kb
        down = download(stage, sha256)
        watch.done.set()
        bench.figure("file_mb", megabytes)
        bench.figure("cp_and_sha256sum_mb_s", megabytes / base)
        bench.figure("upload_mb_s", megabytes / up)
        bench.figure("upload_of_yardstick", base / up)
        bench.figure("download_mb_s", megabytes / down)
        above = (watch.peak_kb - idle) / 1024
        bench.figure("upload_memory_above_idle_mb", (peak_up - idle) / 1024)
        bench.figure("memory_above_idle_mb", above, "under 60 MB", above < 60)


if __name__ == "__main__":
    main("transfer", measure)
