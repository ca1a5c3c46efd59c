"""The page's own files. Their address carries their digest, so they are cached for good."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import Response
from starlette.exceptions import HTTPException

FOLDER = Path(__file__).parent / "static"
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
FOREVER = "public, max-age=31536000, immutable"

router = APIRouter(include_in_schema=False)


@cache
def files() -> dict[str, tuple[bytes, str]]:
    """By name, each file's content and the tag in its address."""
    found = {}
    for path in sorted(FOLDER.rglob("*")):
        if path.suffix in TYPES:
            content = path.read_bytes()
            tag = hashlib.sha256(content).hexdigest()[:12]
            found[path.relative_to(FOLDER).as_posix()] = (content, tag)
    return found


def url(name: str) -> str:
    """The address of a file."""
    return f"/static/{files()[name][1]}/{name}"


@router.get("/static/{tag}/{name:path}")
async def serve(tag: str, name: str) -> Response:
    """A file by name; an old tag gets the present file, uncached."""
    if name not in files():
        raise HTTPException(404)
    content, present = files()[name]
    caching = FOREVER if tag == present else "no-cache"
    headers = {"Cache-Control": caching, "X-Content-Type-Options": "nosniff"}
    return Response(content, media_type=TYPES[Path(name).suffix], headers=headers)
