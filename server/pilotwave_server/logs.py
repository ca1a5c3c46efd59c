"""How the server's log is written, and the id by which its lines and an answer find together.

Lines for people on a terminal, JSON for the system's journal. The id is made for each request, or
taken from a trusted proxy; `edge.py` puts it into the answer.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import Any

from pilotwave_server.settings import Settings

HEADER = b"x-request-id"
REQUEST: ContextVar[str] = ContextVar("request", default="")
_GIVEN = re.compile(rb"[A-Za-z0-9._-]{8,64}")


def begin_request(given: bytes | None) -> str:
    """Have what is logged from here on carry an id: the one `given`, if it looks like one."""
    taken = given is not None and _GIVEN.fullmatch(given)
    request = given.decode() if given is not None and taken else secrets.token_hex(8)
    REQUEST.set(request)
    return request


class Lines(logging.Formatter):
    """A line for people."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        request = REQUEST.get()
        return super().formatMessage(record) + (f" (request {request})" if request else "")


class Json(logging.Formatter):
    """An object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, timezone.utc).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request := REQUEST.get():
            told["request"] = request
        if record.exc_info:
            told["trace"] = self.formatException(record.exc_info)
        return json.dumps(told)


def is_structured(settings: Settings, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether lines are JSON."""
    if settings.log_format != "auto":
        return settings.log_format == "json"
    under_systemd = "JOURNAL_STREAM" in environment or "INVOCATION_ID" in environment
    return under_systemd and not sys.stderr.isatty()


def log_config(settings: Settings) -> dict[str, Any]:
    """Everything to stderr, one line each."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": Json if is_structured(settings) else Lines}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": settings.log_level.upper()},
        # alembic says two lines of the database's kind each time that it is asked where that is
        "loggers": {name: {"level": "WARNING"} for name in ("httptools", "alembic")},
    }
