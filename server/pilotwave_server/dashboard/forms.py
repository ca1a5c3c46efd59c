"""Reading forms: the text fields, and what was wrong beside the field it was wrong in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from pilotwave_server.errors import ServerError

M = TypeVar("M", bound=BaseModel)


@dataclass
class Refused(Exception):
    """A form that will not do: by field a sentence. What was typed is in `given`."""

    given: Mapping[str, str]
    wrong: dict[str, str] = field(default_factory=dict)
    status: int = 422


async def read_form(request: Request) -> dict[str, str]:
    """The form's text fields; the first of a name counts."""
    form = await request.form()
    return {key: value for key, value in form.items() if isinstance(value, str)}


def validated(kind: type[M], given: Mapping[str, str], **values: object) -> M:
    """A request document of `values`, or Refused with a sentence beside each field."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        wrong = {str(e["loc"][0]) if e["loc"] else "": e["msg"] for e in error.errors()}
        raise Refused(given, wrong) from None


def refused(error: ServerError, given: Mapping[str, str], **fields: str) -> Refused:
    """The server's "no" beside the field that `fields` gives for its code, else above the form."""
    return Refused(given, {fields.get(error.code, ""): error.detail}, error.status)


def blank(text: str | None) -> str | None:
    """None for an empty field."""
    text = (text or "").strip()
    return text or None
