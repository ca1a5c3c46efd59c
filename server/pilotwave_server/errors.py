"""The errors that reach a caller, and their statuses. Each rule declares its own beside itself.

    ServerError
    ├── Invalid 422        ├── NotFound 404       ├── Unauthorised 401
    ├── Conflict 409       ├── Forbidden 403      ├── TooLarge 413
    ├── Unavailable 503    └── SetupError (the command line: one sentence, exit status 2)
                               ├── BadSetting
                               └── NotInitialised

How an error looks on the wire is `problems.py`; which ones exist is each slice's.
"""

from __future__ import annotations

from typing import Any, ClassVar


class ServerError(Exception):
    """An answer of "no". `str()` is the sentence; `extra` are further members of the problem."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "The server failed"

    def __init__(self, detail: str, *, headers: dict[str, str] | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = headers or {}
        self.extra = extra


class Invalid(ServerError):
    status = 422
    code = "invalid"
    title = "The request is not valid"


class NotFound(ServerError):
    status = 404
    code = "not_found"
    title = "Not found"


class Conflict(ServerError):
    status = 409
    code = "conflict"
    title = "The request does not fit the present state"


class Unauthorised(ServerError):
    status = 401
    code = "unauthorised"
    title = "A valid token is needed"


class Forbidden(ServerError):
    status = 403
    code = "forbidden"
    title = "This token may not do that"


class TooLarge(ServerError):
    status = 413
    code = "too_large"
    title = "The request is too large"


class Unavailable(ServerError):
    """Something behind the server does not answer. Carries Retry-After, in seconds."""

    status = 503
    code = "unavailable"
    title = "The server cannot answer now"

    def __init__(self, detail: str, *, retry_after_s: int = 5, **extra: Any) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after_s)}, **extra)


class SetupError(ServerError):
    """The server cannot be set up or started like this. Its sentence says what to do."""

    status = 503
    code = "setup"
    title = "The server is not set up"


class BadSetting(SetupError):
    code = "bad_setting"


class NotInitialised(SetupError):
    code = "not_initialised"
