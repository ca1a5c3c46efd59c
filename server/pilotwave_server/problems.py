"""Every error on the wire as `application/problem+json` (RFC 9457), from wherever it comes.

Members: type, title, status, detail, code (machine-readable), and what the error adds. Nothing of
the request is repeated but the path of a wrong field, so no secret comes back in an error.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import DataError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.responses import Response

from pilotwave_protocol.errors import PilotwaveError
from pilotwave_server.errors import Conflict, Invalid, ServerError, Unavailable

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 20


class WrongField(BaseModel):
    path: str = Field(description="Where in the request, for example `body.labels.site`.")
    message: str = Field(description="What was expected there.")
    line: int | None = Field(None, description="The line, where a text was handed in.")


class Problem(BaseModel):
    """An error, as RFC 9457 has it. Some errors carry further members."""

    model_config = ConfigDict(extra="allow")

    type: str = Field("about:blank", description="Always `about:blank`: `code` tells the kind.")
    title: str = Field(description="The kind of error in a few words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="One sentence: what was wrong and what was expected.")
    code: str = Field(description="The kind of error, for programs.")
    errors: list[WrongField] | None = Field(None, description="Which fields were wrong.")


def body(*, status: int, code: str, title: str, detail: str, **extra: Any) -> bytes:
    """The problem document as bytes."""
    document = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        **extra,
    }
    return json.dumps(document, default=str).encode()


def error_body(error: ServerError) -> bytes:
    return body(
        status=error.status,
        code=error.code,
        title=error.title,
        detail=error.detail,
        **error.extra,
    )


def error_response(error: ServerError) -> Response:
    """The response to an error; for plain ASGI code too (`await error_response(e)(scope, …)`)."""
    return Response(error_body(error), error.status, error.headers, MEDIA_TYPE)


class EarlyProblem(HTTPException):
    """A ServerError found while the body is read, where FastAPI lets only its own kind through."""

    def __init__(self, error: ServerError) -> None:
        super().__init__(error.status, error.detail, error.headers)
        self.error = error


def install(app: FastAPI) -> None:
    """Let every exception leave `app` as a problem."""
    handlers: dict[type[Exception], Callable[[Request, Any], Awaitable[Response]]] = {
        ServerError: _server_error,
        PilotwaveError: _protocol_error,
        HTTPException: _http_error,
        RequestValidationError: _validation_error,
        IntegrityError: _integrity_error,
        DataError: _data_error,
        OperationalError: _database_gone,
        PoolTimeout: _database_gone,
        Exception: _unexpected,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


async def _server_error(request: Request, error: ServerError) -> Response:
    return error_response(error)


async def _protocol_error(request: Request, error: PilotwaveError) -> Response:
    """A name, manifest or envelope that the protocol refuses is the caller's mistake."""
    problem = Invalid(str(error))
    problem.code = error.code  # type: ignore[misc]  # this one instance speaks for the protocol
    return error_response(problem)


HTTP_CODES = {404: "no_such_route", 405: "method_not_allowed"}
HTTP_DETAILS = {
    404: "There is nothing at this path; /api/v1/openapi.json lists what there is.",
    405: "This path does not take that method; the Allow header lists those that it takes.",
}


async def _http_error(request: Request, error: HTTPException) -> Response:
    if isinstance(error, EarlyProblem):
        return error_response(error.error)
    status = HTTPStatus(error.status_code)
    if 300 <= status < 400 or status in (204, 205):
        return Response(status_code=status, headers=error.headers)
    content = body(
        status=status,
        code=HTTP_CODES.get(status, status.name.lower()),
        title=status.phrase,
        detail=HTTP_DETAILS.get(status, str(error.detail)),
    )
    return Response(content, status, error.headers, MEDIA_TYPE)


async def _validation_error(request: Request, error: RequestValidationError) -> Response:
    wrong = [
        {"path": ".".join(str(part) for part in item["loc"]), "message": _expected(request, item)}
        for item in error.errors()[:MAX_ERRORS]
    ]
    first = f"{wrong[0]['path']}: {wrong[0]['message']}" if wrong else "it could not be read"
    return error_response(Invalid(f"The request is not as described: {first}", errors=wrong))


def _expected(request: Request, item: Mapping[str, Any]) -> str:
    """Say what was expected. A body of another content type was never read as JSON."""
    if item["type"] != "model_attributes_type":
        return str(item["msg"])
    if isinstance(item["input"], bytes):
        given = ascii(request.headers.get("content-type", ""))[1:-1][:100] or "none"
        return f"expected the header Content-Type: application/json; got {given}"
    return "expected a JSON object"


class Clash(Conflict):
    """Two requests wanted the same name at the same time, or one that is taken."""

    code = "clash"


async def _integrity_error(request: Request, error: IntegrityError) -> Response:
    log.info("a constraint refused %s %s", request.method, request.scope.get("path"))
    return error_response(
        Clash("The change clashes with what is stored, or with one made at the same moment.")
    )


class BadValue(Invalid):
    code = "bad_value"


async def _data_error(request: Request, error: DataError) -> Response:
    return error_response(BadValue("A value is out of the range that can be stored."))


class DatabaseUnavailable(Unavailable):
    code = "database_unavailable"


async def _database_gone(request: Request, error: Exception) -> Response:
    log.error("the database did not answer: %s", type(error).__name__, exc_info=error)
    return error_response(DatabaseUnavailable("The database does not answer; try again soon."))


async def _unexpected(request: Request, error: Exception) -> Response:
    incident = secrets.token_hex(4)
    # The traceback follows from the ASGI server; this line ties it to what the caller was told.
    log.error("incident %s at %s %s", incident, request.method, request.scope.get("path"))
    return error_response(
        ServerError(
            f"The server failed; its log says more under incident {incident}.", incident=incident
        )
    )


def responses(*errors: type[ServerError]) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses=`: the problems it may answer, by status, with their codes."""
    by_status: dict[int, list[type[ServerError]]] = {}
    for error in errors:
        by_status.setdefault(error.status, []).append(error)
    return {status: described(kinds) for status, kinds in sorted(by_status.items())}


def described(kinds: list[type[ServerError]]) -> dict[str, Any]:
    """One OpenAPI response for errors that share a status."""
    codes = ", ".join(f"`{kind.code}`" for kind in kinds)
    schema: Mapping[str, Any] = {"$ref": "#/components/schemas/Problem"}
    return {
        "description": f"{kinds[0].title} ({codes})",
        "content": {MEDIA_TYPE: {"schema": schema}},
    }
