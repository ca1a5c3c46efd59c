"""Send the blobs that the server lacks: a broken upload goes on where it stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from pilotwave_cli.client import Api
from pilotwave_cli.errors import ApiError, CliError, NoAnswer
from pilotwave_cli.output import err

CHUNK = 1 << 20
TRIES = 8
ASK_AT_ONCE = 1000


def upload_missing(api: Api, sources: Mapping[str, Path], sizes: Mapping[str, int]) -> int:
    """Send what is missing, with a progress bar; returns the number of bytes sent."""
    missing = _missing(api, sizes)
    total = sum(sizes[sha256] - offset for sha256, offset in missing.items())
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("upload", total=total)
        for sha256 in missing:
            _send(
                api, sha256, sources[sha256], sizes[sha256], lambda count: bar.advance(task, count)
            )
    return total


def _missing(api: Api, sizes: Mapping[str, int]) -> dict[str, int]:
    wanted = [{"sha256": sha256, "size": size} for sha256, size in sizes.items()]
    found: dict[str, int] = {}
    for start in range(0, len(wanted), ASK_AT_ONCE):
        answer = api.post("/blobs/missing", {"blobs": wanted[start : start + ASK_AT_ONCE]})
        found |= {item["sha256"]: item["offset"] for item in answer["missing"]}
    return found


def _send(api: Api, sha256: str, source: Path, size: int, advance: Callable[[int], None]) -> None:
    """Send one blob; after a break, ask how far it came and go on there."""
    wait = 0.5
    last = -1
    tries = 0
    while True:
        state = api.get(f"/blobs/{sha256}/upload")
        if state["complete"]:
            return
        offset = int(state["offset"])
        # tries count only while nothing moves: a thin link may need many pieces
        tries = 0 if offset > last else tries + 1
        last = offset
        try:
            _send_from(api, sha256, source, offset, size, advance)
            continue
        except NoAnswer:
            if tries >= TRIES:
                raise
        except ApiError as e:
            if (
                e.problem not in {"offset_mismatch", "blob_busy", "upload_stalled"}
                or tries >= TRIES
            ):
                raise
        time.sleep(wait)
        wait = min(wait * 2, 15)


def _send_from(
    api: Api, sha256: str, source: Path, offset: int, size: int, advance: Callable[[int], None]
) -> None:
    headers = {
        "Upload-Offset": str(offset),
        "Upload-Length": str(size),
        "Content-Type": "application/octet-stream",
        "Content-Length": str(size - offset),
    }
    content = _blocks(source, offset, size, advance)
    api.send("PATCH", f"/api/v1/blobs/{sha256}/upload", content=content, headers=headers)


def _blocks(
    source: Path, offset: int, size: int, advance: Callable[[int], None]
) -> Iterator[bytes]:
    with source.open("rb") as stream:
        stream.seek(offset)
        left = size - offset
        while left:
            block = stream.read(min(CHUNK, left))
            if not block:
                raise CliError(f"{source}: became shorter while it was sent; publish again")
            left -= len(block)
            yield block
            advance(len(block))
