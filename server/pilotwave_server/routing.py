"""Where the operator API stands, and how a slice makes its router."""

from __future__ import annotations

from fastapi import APIRouter

API = "/api/v1"


def api_router(*, tag: str, prefix: str = "") -> APIRouter:
    """A router below /api/v1 whose routes are listed under `tag` in the OpenAPI document."""
    return APIRouter(prefix=f"{API}{prefix}", tags=[tag])
