"""Who may read a blob. An operator token may read any; for devices their own slice answers.

A gate is an async callable that is given a bearer token and a digest. It answers how the bytes may
flow, False where the token may not read them, None when the token is none of its kind, or raises
its own 401. Gates are held in `Context.blob_gates` and asked in order.
"""

from __future__ import annotations

from typing import Literal, Protocol

from fastapi import Request
from fastapi.security import HTTPAuthorizationCredentials

from pilotwave_server.blobs.flow import FREE, Flow
from pilotwave_server.context import Context
from pilotwave_server.deps import get_actor
from pilotwave_server.errors import Forbidden, Unauthorised

OPERATOR_TOKEN = "pw_"
NEEDED = "send a device token or an operator token as `Authorization: Bearer …`"


class BlobTokenMissing(Unauthorised):
    code = "token_missing"

    def __init__(self) -> None:
        super().__init__(NEEDED, headers={"WWW-Authenticate": "Bearer"})


class BlobDenied(Forbidden):
    code = "blob_denied"

    def __init__(self, sha256: str) -> None:
        super().__init__(f"blob {sha256} belongs to nothing that is assigned to this device")


class BlobGate(Protocol):
    async def __call__(self, bearer: str, sha256: str) -> Flow | Literal[False] | None: ...


async def check_may_read(context: Context, request: Request, sha256: str) -> Flow:
    """Return how the blob may flow to whoever asks for it; otherwise raise a 401 or 403."""
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    bearer = bearer.strip()
    if scheme.lower() != "bearer" or not bearer:
        raise BlobTokenMissing
    if bearer.startswith(OPERATOR_TOKEN):
        credentials = HTTPAuthorizationCredentials(scheme=scheme, credentials=bearer)
        await get_actor(request, context, credentials, context.clock())
        return FREE
    for gate in context.blob_gates:
        answer = await gate(bearer, sha256)
        if answer is False:
            raise BlobDenied(sha256)
        if answer is not None:
            return answer
    raise BlobTokenMissing
