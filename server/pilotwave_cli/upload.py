"""Send the blobs that the server lacks: a broken upload goes on where it stopped."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from pilotwave_cli.client import Api
from pilotwave_cli.errors import ApiError, CliError, Failed, NoAnswer
from pilotwave_cli.output import err, warn

CHUNK = 1 << 20
# about 3 minutes: a server lets go of a connection that died without a word after 1 or 2
TRIES = 16
ASK_AT_ONCE = 1000
# Another may be sending the same blob, a proxy may have given up: what came before is kept.
PASSING = {"offset_mismatch", "blob_busy", "upload_stalled"}
NOT_KEPT = (
    "the server takes the bytes of an upload and does not have them afterwards: do several servers "
    "answer at this address, each with a data folder of its own?"
)
Open = Callable[[], BinaryIO]


def upload_missing(api: Api, sources: Mapping[str, Path], sizes: Mapping[str, int]) -> int:
    """Send what is missing, with a progress bar; returns the number of bytes sent."""
    missing = _missing(api, sizes)
    total = sum(sizes[sha256] - offset for sha256, offset in missing.items())
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("upload", total=total)
        done = 0
        for sha256, offset in missing.items():
            before = done - offset

            def moved(at: int, before: int = before) -> None:
                bar.update(task, completed=before + at)

            _send(api, sha256, _opener(sources[sha256]), sizes[sha256], moved)
            done += sizes[sha256] - offset
    return total


def _opener(path: Path) -> Open:
    return lambda: path.open("rb")


def upload_bytes(api: Api, data: bytes) -> None:
    """Send one small blob if the server lacks it."""
    sha256 = hashlib.sha256(data).hexdigest()
    if _missing(api, {sha256: len(data)}):
        _send(api, sha256, lambda: io.BytesIO(data), len(data), lambda at: None)


def _missing(api: Api, sizes: Mapping[str, int]) -> dict[str, int]:
    wanted = [{"sha256": sha256, "size": size} for sha256, size in sizes.items()]
    found: dict[str, int] = {}
    for start in range(0, len(wanted), ASK_AT_ONCE):
        answer = api.post("/blobs/missing", {"blobs": wanted[start : start + ASK_AT_ONCE]})
        found |= {item["sha256"]: item["offset"] for item in answer["missing"]}
    return found


def _send(api: Api, sha256: str, source: Open, size: int, moved: Callable[[int], None]) -> None:
    """Send one blob; after a break, ask how far it came and go on there."""
    wait, tries, last = 0.5, 0, -1
    while True:
        if tries == 2:
            warn("the upload stands still; trying again for a few minutes")
        try:
            state = api.get(f"/blobs/{sha256}/upload")
            if state["complete"]:
                return
            offset = int(state["offset"])
            has_moved = offset > last
            if has_moved:
                # tries count only while nothing moves: a thin link may need many pieces
                wait, tries, last = 0.5, 0, offset
            _send_from(api, sha256, source, offset, size, moved)
            if has_moved:
                continue
            trouble = Failed(NOT_KEPT)
        except NoAnswer as e:
            trouble = e
        except ApiError as e:
            if e.problem not in PASSING and e.status != 503:
                raise
            trouble = e
        tries += 1
        if tries > TRIES:
            raise trouble
        time.sleep(wait)
        wait = min(wait * 2, 15)


def _send_from(
    api: Api, sha256: str, source: Open, offset: int, size: int, moved: Callable[[int], None]
) -> None:
    headers = {
        "Upload-Offset": str(offset),
        "Upload-Length": str(size),
        "Content-Type": "application/octet-stream",
        "Content-Length": str(size - offset),
    }
    content = _blocks(source, offset, size, moved)
    api.send("PATCH", f"/api/v1/blobs/{sha256}/upload", content=content, headers=headers)


def _blocks(source: Open, offset: int, size: int, moved: Callable[[int], None]) -> Iterator[bytes]:
    with source() as stream:
        stream.seek(offset)
        at = offset
        while at < size:
            block = stream.read(min(CHUNK, size - at))
            if not block:
                raise CliError("a file became shorter while it was sent; publish again")
            yield block
            at += len(block)
            moved(at)
