"""Who may read a blob. An operator token may read any; for devices their own slice answers."""

from __future__ import annotations

from fastapi import Request
from fastapi.security import HTTPAuthorizationCredentials

from pilotwave_server.blobs.flow import FREE, BlobGates, Flow
from pilotwave_server.context import Context
from pilotwave_server.deps import get_actor
from pilotwave_server.errors import Forbidden, Unauthorised

OPERATOR_TOKEN = "pw_"
NEEDED = "send a device token or an operator token as `Authorization: Bearer …`, or a link's query"


class BlobTokenMissing(Unauthorised):
    code = "token_missing"

    def __init__(self) -> None:
        super().__init__(NEEDED, headers={"WWW-Authenticate": "Bearer"})


class BlobDenied(Forbidden):
    code = "blob_denied"

    def __init__(self, sha256: str) -> None:
        super().__init__(f"blob {sha256} belongs to nothing that is assigned to this device")


def blob_path(sha256: str) -> str:
    """Where a blob is read."""
    return f"/blobs/{sha256}"


async def check_may_read(context: Context, request: Request, sha256: str, *, path: str) -> Flow:
    """Return how the blob may flow from `path` to whoever asks; otherwise raise a 401 or 403."""
    authorization = request.headers.get("authorization", "")
    link = request.query_params.get("link", "")
    if link and not authorization:
        return await _ask_gates(context, link, sha256, path=path)
    scheme, _, bearer = authorization.partition(" ")
    bearer = bearer.strip()
    if scheme.lower() != "bearer" or not bearer:
        raise BlobTokenMissing
    if bearer.startswith(OPERATOR_TOKEN):
        credentials = HTTPAuthorizationCredentials(scheme=scheme, credentials=bearer)
        await get_actor(request, context, credentials, context.clock())
        return FREE
    return await _ask_gates(context, bearer, sha256, path="")


async def _ask_gates(context: Context, bearer: str, sha256: str, *, path: str) -> Flow:
    for gate in context.get(BlobGates):
        answer = await gate(bearer, sha256, path=path)
        if answer is False:
            raise BlobDenied(sha256)
        if answer is not None:
            return answer
    raise BlobTokenMissing
