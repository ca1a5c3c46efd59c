"""What the operator API refuses of a request before its route sees it: query parameters that the
route does not know or that come twice, and a body where the route takes none.

Paths beside the operator API stay lenient: devices, caches and mirrors may add parameters of theirs
to a URL, and old agents meet new servers.
"""

from __future__ import annotations

import inspect
import typing
from collections import Counter
from collections.abc import Callable
from typing import Any

from fastapi import Request, params
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_flat_params
from pydantic.fields import FieldInfo

from pilotwave_server.errors import Invalid
from pilotwave_server.fields import ApiRequest
from pilotwave_server.strangers import has_body


class QueryUnknown(Invalid):
    """The sentence names the parameters that there are."""

    code = "query_unknown"


class BodyNotTaken(Invalid):
    """The request has a body, and this operation takes none: send it without."""

    code = "body_not_taken"


def query_names(dependant: Dependant) -> dict[str, bool]:
    """The query parameters of a route, and whether each may be repeated."""
    fields = [(f.alias, f.field_info) for f in get_flat_params(dependant)]
    return {name: _is_list(info) for name, info in fields if isinstance(info, params.Query)}


def _is_list(field: FieldInfo) -> bool:
    kinds = (field.annotation, *typing.get_args(field.annotation))
    return any(typing.get_origin(kind) is list for kind in kinds)


def says_who_asks(request: Request) -> bool:
    """Whether the request has a token or a cookie, good or not."""
    return "authorization" in request.headers or "cookie" in request.headers


def check_query(request: Request, known: dict[str, bool]) -> None:
    """QueryUnknown unless each parameter is known, and given once where it is no list."""
    given = Counter(name for name, _ in request.query_params.multi_items())
    for name, times in given.items():
        if name not in known:
            there = ", ".join(sorted(known)) or "none"
            raise QueryUnknown(
                f"there is no query parameter {ascii(name)[:60]} here; known: {there}",
                known=sorted(known),
            )
        if times > 1 and not known[name]:
            raise QueryUnknown(f"expected {name} once; it was given {times} times")


async def check_no_body(request: Request) -> None:
    """BodyNotTaken if a body comes. One of no bytes is none; what comes is as long as any request
    document may be (`edge.py`)."""
    if has_body(request) and await request.body():
        raise BodyNotTaken("this operation takes no body: what it is to do stands in the URL")


def with_optional_body(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """`endpoint` with a default for a request document that needs nothing, so that the request
    may be sent without a body."""
    hints = typing.get_type_hints(endpoint)
    signature = inspect.signature(endpoint)
    made = []
    for name, parameter in signature.parameters.items():
        kind = hints.get(name)
        if isinstance(kind, type) and issubclass(kind, ApiRequest) and needs_nothing(kind):
            parameter = parameter.replace(default=kind())
        made.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    endpoint.__signature__ = signature.replace(parameters=made)  # type: ignore[attr-defined]  # read by inspect
    return endpoint


def needs_nothing(kind: type[ApiRequest]) -> bool:
    return not any(field.is_required() for field in kind.model_fields.values())
