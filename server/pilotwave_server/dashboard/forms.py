"""Answering forms: read the text fields, do what they ask, or show the page again with what was
typed and what was wrong beside the field it was wrong in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel, ValidationError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from pilotwave_server.context import Context
from pilotwave_server.errors import ServerError

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


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


async def answer_form(
    request: Request,
    context: Context,
    change: Callable[[Session, dict[str, str]], T],
    *,
    done: Callable[[T], Response],
    again: Callable[[Session, Refused], Response],
    fields: Mapping[str, str] | None = None,
    otherwise: str = "",
    gone: type[ServerError] | tuple[()] = (),
) -> Response:
    """Do what a form asks in one transaction, and answer with `done` when it is committed.

    A "no" goes beside the field that `fields` gives for its code, else beside `otherwise` (empty:
    above the form), and the page comes `again`. `gone` is the one that there is no page for.
    """
    form = await read_form(request)

    def run() -> Response:
        try:
            with context.db.write() as session:
                made = change(session, form)
        except gone:
            raise
        except ServerError as error:
            field = (fields or {}).get(error.code, otherwise)
            refusal = Refused(form, {field: error.detail}, error.status)
        except Refused as error:
            refusal = error
        else:
            return done(made)
        with context.db.read() as session:
            return again(session, refusal)

    return await run_in_threadpool(run)


def blank(text: str | None) -> str | None:
    """None for an empty field."""
    text = (text or "").strip()
    return text or None
