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
from starlette.datastructures import FormData

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


class Form(dict[str, str]):
    """A form's text fields. Of a name that comes more than once it has the last."""

    def __init__(self, data: FormData) -> None:
        self._texts = [(k, v) for k, v in data.multi_items() if isinstance(v, str)]
        super().__init__(self._texts)

    def every(self, name: str) -> list[str]:
        """All values of a name, as of the boxes that were ticked."""
        return [value for key, value in self._texts if key == name]


def validated(kind: type[M], given: Mapping[str, str], **values: object) -> M:
    """A request document of `values`, or Refused with a sentence beside each field."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        wrong = {str(e["loc"][0]) if e["loc"] else "": e["msg"] for e in error.errors()}
        raise Refused(given, wrong) from None


def in_transaction(context: Context, change: Callable[[Session, Form], T]) -> Callable[[Form], T]:
    """What a form asks, done in one transaction, which is committed before the answer."""

    def act(form: Form) -> T:
        with context.db.write() as session:
            return change(session, form)

    return act


async def answer_form(
    request: Request,
    context: Context,
    act: Callable[[Form], T],
    *,
    done: Callable[[T], Response],
    again: Callable[[Session, Refused], Response] | None = None,
    fields: Mapping[str, str] | None = None,
    otherwise: str = "",
    gone: type[ServerError] | tuple[type[ServerError], ...] = (),
) -> Response:
    """Do what a form asks, and answer with `done`.

    A "no" goes beside the field that `fields` gives for its code, else beside `otherwise` (empty:
    above the form), and the page comes `again`. `gone` are those that there is no page for; without
    `again` there is none for any.
    """
    form = Form(await request.form())

    def run() -> Response:
        if again is None:
            return done(act(form))
        try:
            made = act(form)
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
