"""Do a request with an `Idempotency-Key` once, however often it is sent.

The form is that of the IETF draft "The Idempotency-Key HTTP Header Field". A key belongs to the
token that sent it and is kept for a day. The answer is kept encrypted with the key itself, of which
only a hash is stored: answers hold secrets that are shown once.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import ClassVar

from cryptography.fernet import Fernet
from fastapi import Request, Response
from sqlalchemy import delete, update
from sqlalchemy.exc import IntegrityError
from starlette.concurrency import run_in_threadpool

from pilotwave_server.context import Context
from pilotwave_server.errors import Conflict, Invalid
from pilotwave_server.idempotency.tables import IdempotencyRow

HEADER = "idempotency-key"
KEEP = timedelta(hours=24)
LONGEST = 255
LARGEST = 1 << 20
Handle = Callable[[Request], Awaitable[Response]]


class BadIdempotencyKey(Invalid):
    code: ClassVar[str] = "bad_idempotency_key"


class IdempotencyKeyReused(Invalid):
    """The key came before with another request. Choose a new key for each new request."""

    code: ClassVar[str] = "idempotency_key_reused"


class RequestInProgress(Conflict):
    """The same request is being answered, or its answer was lost. Ask again, or look what is
    there."""

    code: ClassVar[str] = "request_in_progress"


async def once(request: Request, handle: Handle, context: Context, token_id: str) -> Response:
    """Answer a request, or repeat what was answered to it before."""
    key = request.headers[HEADER]
    if not (0 < len(key) <= LONGEST and key.isascii() and key.isprintable()):
        raise BadIdempotencyKey(f"expected an Idempotency-Key of 1 to {LONGEST} plain characters")
    body = await request.body()
    name = hashlib.sha256(f"{token_id}\n{key}".encode()).hexdigest()
    asked = f"{request.method} {request.url.path}?{request.url.query}\n".encode() + body
    fingerprint = hashlib.sha256(asked).hexdigest()
    lock = Fernet(base64.urlsafe_b64encode(hashlib.sha256(f"answer\n{key}".encode()).digest()))
    before = await run_in_threadpool(_begin, context, name, fingerprint)
    if before is not None:
        return _repeated(lock, before)
    try:
        response = await handle(request)
    except BaseException:  # nothing was done: another try of the same request may do better
        await run_in_threadpool(_forget, context, name)
        raise
    content = bytes(response.body)
    if response.status_code >= 400 or len(content) > LARGEST:
        await run_in_threadpool(_forget, context, name)
        return response
    told = {"status": response.status_code, "type": response.media_type, "body": content.decode()}
    sealed = lock.encrypt(json.dumps(told).encode()).decode()
    await run_in_threadpool(_answered, context, name, sealed)
    return response


def _begin(context: Context, name: str, fingerprint: str) -> str | None:
    """Note that a request begins; the sealed answer if there was one already."""
    now = context.clock()
    row = IdempotencyRow(name=name, fingerprint=fingerprint, begun_at=now)
    try:
        with context.db.write() as session:
            session.execute(delete(IdempotencyRow).where(IdempotencyRow.begun_at < now - KEEP))
            session.add(row)
    except IntegrityError:
        with context.db.read() as session:
            there = session.get(IdempotencyRow, name)
            if there is None:
                raise RequestInProgress("the same request was being answered: ask again") from None
            if there.fingerprint != fingerprint:
                raise IdempotencyKeyReused(
                    "this Idempotency-Key came before with another request: choose a new one"
                ) from None
            if there.answer is None:
                raise RequestInProgress(
                    "the same request is being answered, or the server ended meanwhile: ask again, "
                    "or look whether what it asks for is there"
                ) from None
            return there.answer
    return None


def _answered(context: Context, name: str, sealed: str) -> None:
    r = IdempotencyRow
    with context.db.write() as session:
        session.execute(update(r).where(r.name == name).values(answer=sealed))


def _forget(context: Context, name: str) -> None:
    with context.db.write() as session:
        session.execute(delete(IdempotencyRow).where(IdempotencyRow.name == name))


def _repeated(lock: Fernet, sealed: str) -> Response:
    told = json.loads(lock.decrypt(sealed.encode()))
    headers = {"Idempotency-Replayed": "true"}
    return Response(told["body"], told["status"], headers, told["type"])
