"""The OpenAPI document: what each route takes and every answer it may give, errors included."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from threading import Lock
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response

from pilotwave_server import __version__
from pilotwave_server.api_limits import TooManyRequests
from pilotwave_server.connections import HeadTooLarge
from pilotwave_server.deps import ForgedRequest
from pilotwave_server.edge import BadUrl, BodyTooLarge, BodyTooSlow
from pilotwave_server.errors import Invalid, ServerError
from pilotwave_server.operators.authenticate import (
    TokenExpired,
    TokenMissing,
    TokenRevoked,
    TokenUnknown,
)
from pilotwave_server.operators.service import RoleForbids
from pilotwave_server.pacing import TooManyRefusals
from pilotwave_server.problems import (
    BadValue,
    Clash,
    DatabaseUnavailable,
    Problem,
    WrongField,
    described,
)
from pilotwave_server.routing import API, api_router
from pilotwave_server.scope import ScopeForbids
from pilotwave_server.strictbody import NotStrictJson
from pilotwave_server.strictroute import BodyNotTaken, QueryUnknown

DESCRIPTION = """\
Pilotwave ships signed ML models to fleets of edge devices and takes them back when they fail.

Every error is `application/problem+json`; its `code` tells the kind to programs, its `detail` says
in a sentence what was expected. Lists are paged: pass `next_cursor` of one page as `cursor` of the
next. `total`, where a list has it, counts the rows of all pages; `/api/v1/device-count` counts
devices. Times are RFC 3339 in UTC. Refused with 422 are unknown fields and query parameters
(`invalid`, `query_unknown`), a query parameter that comes twice and is no list (`query_unknown`),
and a body where an operation takes none (`body_not_taken`; an empty one is fine). The paths of
devices beside /api/v1 take parameters that they do not know.
"""
TAGS = {
    "server": "The server about itself.",
    "operators": "Who may do what: bearer tokens and their roles. publisher and operator both "
    "include viewer but not one another; admin includes all.",
    "audit": "What was changed, by whom, and how it looked before and after.",
    "trust": "The Update Framework's metadata: bootstrap, delegations, rotation of keys.",
    "models": "Models, their signed versions, publishing, yanking, denying.",
    "blobs": "Content-addressed bytes: resumable upload, download in ranges.",
    "devices": "The machines: enrolment, labels, facts, pins, rollback, revocation.",
    "groups": "Named sets of devices and what they run.",
    "rollouts": "Versions on their way to a group, wave by wave, watched by gates.",
    "device": "What devices themselves ask for. Signed envelopes and short-lived read tokens.",
}
UNAUTHORISED: list[type[ServerError]] = [TokenMissing, TokenUnknown, TokenExpired, TokenRevoked]
METHODS = ("get", "put", "post", "patch", "delete", "head", "options")


def install(app: FastAPI) -> None:
    """Have `app` answer with the completed document, which is made when it is first asked for.

    It takes a second of CPU; in a thread, as no device's poll may wait for it.
    """
    lock = Lock()
    made: list[bytes] = []

    router = api_router(tag="server")

    @router.get("/openapi.json", include_in_schema=False)
    def get_document() -> Response:
        with lock:
            if not made:
                made.append(bytes(JSONResponse(build(app)).body))
        return Response(made[0], media_type="application/json")

    app.include_router(router)


def build(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title="Pilotwave",
        version=__version__,
        description=DESCRIPTION,
        routes=app.routes,
        tags=[{"name": name, "description": text} for name, text in TAGS.items()],
        license_info={"name": "Apache 2.0", "identifier": "Apache-2.0"},
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    template = "#/components/schemas/{model}"
    schemas["WrongField"] = WrongField.model_json_schema(ref_template=template)
    problem = Problem.model_json_schema(ref_template=template)
    problem.pop("$defs", None)
    schemas["Problem"] = problem
    for path, operations in document["paths"].items():
        for method in METHODS:
            if method in operations:
                complete(path, operations[method], writes=method not in ("get", "head"))
    return document


def complete(path: str, operation: dict[str, Any], *, writes: bool) -> None:
    """Add the problems that any operation of its kind may answer."""
    responses = operation.setdefault("responses", {})
    if "HTTPValidationError" in str(responses.get("422", "")):
        del responses["422"]  # FastAPI's own form of this answer is never sent
    for kinds in common_problems(path, operation, writes=writes):
        add_problems(responses, kinds)
    operation["responses"] = dict(sorted(responses.items()))


def common_problems(
    path: str, operation: dict[str, Any], *, writes: bool
) -> Iterator[Sequence[type[ServerError]]]:
    """The problems, one list for each status, that no route declares by itself."""
    yield [DatabaseUnavailable]
    yield [ServerError]
    yield [HeadTooLarge]
    has_body = "requestBody" in operation
    if any("operatorToken" in way for way in operation.get("security", [])):
        yield UNAUTHORISED
        yield [RoleForbids, ScopeForbids, ForgedRequest]
    if path.startswith(API):
        yield [Invalid, BadUrl, QueryUnknown, NotStrictJson, BadValue if has_body else BodyNotTaken]
        yield [TooManyRefusals, TooManyRequests]
    elif has_body or operation.get("parameters"):
        yield [Invalid, BadUrl, NotStrictJson]
    if writes and path.startswith(API):
        yield [Clash]
    if has_body:
        yield [BodyTooLarge]
        yield [BodyTooSlow]


def add_problems(responses: dict[str, Any], kinds: Sequence[type[ServerError]]) -> None:
    """Add problems of one status to what a route declares."""
    status = str(kinds[0].status)
    there = responses.setdefault(status, described(list(kinds)))
    missing = [f"`{kind.code}`" for kind in kinds if f"`{kind.code}`" not in there["description"]]
    if missing:
        there["description"] = ", ".join([there["description"].rstrip(")"), *missing]) + ")"
