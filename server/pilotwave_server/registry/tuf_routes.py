"""The TUF repository for devices, as files with the cache headers that each allows.

Everything but `timestamp.json` has its version or digest in its name and never changes. A root that
is not there yet must not be remembered as missing: the next one may appear at any moment.
"""

from __future__ import annotations

import re
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from starlette.concurrency import run_in_threadpool

from pilotwave_server.deps import Ctx
from pilotwave_server.errors import NotFound
from pilotwave_server.problems import responses
from pilotwave_server.registry.fresh_export import FreshExport
from pilotwave_server.registry.trust import TrustStore

router = APIRouter(prefix="/tuf", tags=["tuf"])

IMMUTABLE = "public, max-age=31536000, immutable"
NO_STORE = {"Cache-Control": "no-store"}
_METADATA = re.compile(r"(?:[1-9]\d{0,17}\.)?[a-z0-9]+(?:[._-][a-z0-9]+)*\.json", re.ASCII)
_TARGET = re.compile(
    r"models/[a-z0-9]+(?:[._-][a-z0-9]+)*/[0-9a-f]{64}\.[0-9A-Za-z][0-9A-Za-z.+-]{0,63}\.json"
)
DOCUMENT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The document",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
}


class NoSuchFile(NotFound):
    code = "no_such_file"

    def __init__(self) -> None:
        super().__init__("there is no such file in the TUF repository", headers=NO_STORE)


@router.get(
    "/metadata/{file}",
    operation_id="tuf_metadata",
    response_class=Response,
    responses={**DOCUMENT, **responses(NoSuchFile)},
)
async def metadata(
    file: Annotated[str, Path(max_length=120, examples=["timestamp.json"])], context: Ctx
) -> Response:
    """A TUF document: `timestamp.json`, `1.root.json`, `3.models-detector.json`."""
    if not _METADATA.fullmatch(file):
        raise NoSuchFile
    path = context.get(TrustStore).exporter.metadata / file
    fresh = context.get(FreshExport)
    if file == "timestamp.json" and not fresh.timestamp_is_newest:
        await fresh.look()
    cache = "no-cache" if file == "timestamp.json" else IMMUTABLE
    return await _file(path, cache, fresh)


@router.get(
    "/targets/{path:path}",
    operation_id="tuf_target",
    response_class=Response,
    responses={**DOCUMENT, **responses(NoSuchFile)},
)
async def target(path: Annotated[str, Path(max_length=300)], context: Ctx) -> Response:
    """A version's manifest: `models/detector/<sha256>.1.4.0.json`."""
    if not _TARGET.fullmatch(path):
        raise NoSuchFile
    file = context.get(TrustStore).exporter.targets / path
    return await _file(file, IMMUTABLE, context.get(FreshExport))


async def _file(path: FilePath, cache: str, fresh: FreshExport) -> Response:
    data = await run_in_threadpool(_read, path)
    if data is None:
        await fresh.look()
        data = await run_in_threadpool(_read, path)
    if data is None:
        raise NoSuchFile
    return Response(data, media_type="application/json", headers={"Cache-Control": cache})


def _read(path: FilePath) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
