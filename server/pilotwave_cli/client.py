"""The operator API over HTTP: requests, problem+json as exceptions, pages as one iterator.

It knows how to ask, not what: paths and fields are the callers'. Scripts may use it as a library.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any

import httpx

from pilotwave_cli import tracing
from pilotwave_cli.config import Config, load
from pilotwave_cli.errors import ApiError, CliError, Failed, NoAnswer

PAGE = 200
LONGEST_WAIT_S = 30
PAUSES = (0.5, 2.0)
"""Seconds before a request without an answer is sent again."""
BAD_GATEWAY = (502, 504)
"""Not the server's own: what stands before it got no answer, maybe of a host that has just died."""
IN_PROGRESS = "request_in_progress"
NOT_FOUND = 404
Done = Callable[[], Any]
"""Looks whether what a POST asks for is there; returns what the answer says, None for nothing."""


def twice() -> None:
    """The `Done` of a POST that does the same however often it is done: nothing to look for."""


def check_id(text: str) -> str:
    """Return the id of a token or code, or raise `CliError` for what could leave its place."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text):
        raise CliError(f"expected an id as `list` shows it; got {ascii(text)[:60]}")
    return text


class Api:
    """A connection to a server's operator API. Use it as a context manager."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._http = httpx.Client(
            base_url=config.url,
            headers={"Authorization": f"Bearer {config.token}"},
            timeout=httpx.Timeout(30, connect=10),
            follow_redirects=False,
        )

    def __enter__(self) -> Api:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: dict[str, Any] | None = None,
        content: bytes | Iterable[bytes] | None = None,
        headers: dict[str, str] | None = None,
        tries: int = 3,
    ) -> httpx.Response:
        """Send one request; raises `ApiError` for the server's no, `NoAnswer` for silence."""
        query = {k: v for k, v in (params or {}).items() if v is not None}
        try:
            answer = self._http.request(
                method,
                path,
                json=json,
                params=query,
                content=content,
                headers={**tracing.headers(), **(headers or {})},
            )
        except (httpx.HTTPError, httpx.InvalidURL) as e:
            raise NoAnswer(f"{self.config.url} does not answer: {_cause(e)}") from e
        pause = _asked_to_wait(answer)
        if pause is not None and tries:
            time.sleep(pause)
            return self.send(
                method, path, json=json, params=params, content=content, headers=headers,
                tries=tries - 1,
            )  # fmt: skip
        if answer.status_code in BAD_GATEWAY:
            said = f"its load balancer says {answer.status_code} {answer.reason_phrase}"
            raise NoAnswer(f"{self.config.url} does not answer: {said}")
        if not answer.is_success:
            raise _problem(answer)
        return answer

    def get(self, path: str, **params: Any) -> Any:
        """GET `/api/v1` + path."""
        return _json(self.send("GET", f"/api/v1{path}", params=params))

    def post(self, path: str, body: Any = None, *, done: Done | None = None, **params: Any) -> Any:
        """POST JSON; returns the answer's JSON, or None where it has none.

        A host that ends while it answers leaves the request in progress, done or not. `done` looks,
        and where it was not done, the same is asked for anew.
        """
        try:
            return self._post(path, body, params)
        except ApiError as e:
            if e.problem != IN_PROGRESS or done is None:
                raise
        for pause in PAUSES:
            time.sleep(pause)  # the host may live, and be about to have done it
            if (found := done()) is not None:
                return found
        try:
            return self._post(path, body, params)
        except ApiError:
            found = done()  # maybe it is refused as what was just done stands in its way
            if found is None:
                raise
            return found

    def _post(self, path: str, body: Any, params: dict[str, Any]) -> Any:
        # it may have been done: by its key it is not done twice
        key = {"Idempotency-Key": secrets.token_hex(16)}
        return self._until_answered("POST", path, json=body, params=params, headers=key)

    def _until_answered(self, method: str, path: str, **how: Any) -> Any:
        """Send a request that does the same however often it is sent."""
        for pause in (*PAUSES, None):
            try:
                return _json(self.send(method, f"/api/v1{path}", **how))
            except NoAnswer:
                if pause is None:
                    raise
                time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def put(self, path: str, body: Any = None) -> Any:
        """PUT JSON."""
        return self._until_answered("PUT", path, json=body)

    def patch(self, path: str, body: Any) -> Any:
        """PATCH JSON."""
        return self._until_answered("PATCH", path, json=body)

    def delete(self, path: str) -> Any:
        """DELETE. Where an answer was lost and there is nothing now, it was done."""
        try:
            return _json(self.send("DELETE", f"/api/v1{path}"))
        except NoAnswer:
            time.sleep(PAUSES[0])
        try:
            return self._until_answered("DELETE", path)
        except ApiError as e:
            if e.status != NOT_FOUND:
                raise
            return None

    def pages(self, path: str, *, most: int | None = None, **params: Any) -> Iterator[Any]:
        """Yield the items of all pages of a list, `most` of them at the most."""
        cursor: str | None = None
        given = 0
        while True:
            limit = PAGE if most is None else min(PAGE, most - given)
            page = self.get(path, limit=limit, cursor=cursor, **params)
            yield from page["items"]
            given += len(page["items"])
            cursor = page["next_cursor"]
            if cursor is None or (most is not None and given >= most):
                return

    def lines(self, path: str, **params: Any) -> Iterator[str]:
        """Yield the lines of a long answer as they come. ApiError, NoAnswer."""
        query = {k: v for k, v in params.items() if v is not None}
        try:
            with self._http.stream("GET", f"/api/v1{path}", params=query) as answer:
                if not answer.is_success:
                    answer.read()
                    raise _problem(answer)
                yield from answer.iter_lines()
        except (httpx.HTTPError, httpx.InvalidURL) as e:
            raise NoAnswer(f"{self.config.url} does not answer: {_cause(e)}") from e

    def event_stream(
        self, path: str, after: str | None, **params: Any
    ) -> Iterator[tuple[str, str]]:
        """Yield (id, data) of a stream of server-sent events; data may be empty. NoAnswer."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": after} if after else {})
        # the server says something every 15 s
        quiet = httpx.Timeout(10, read=45)
        try:
            with self._http.stream(
                "GET", f"/api/v1{path}", params=params, headers=headers, timeout=quiet
            ) as answer:
                if not answer.is_success:
                    answer.read()
                    raise _problem(answer)
                yield from _frames(answer.iter_lines())
        except (httpx.HTTPError, httpx.InvalidURL) as e:
            raise NoAnswer(f"{self.config.url} does not answer: {_cause(e)}") from e


def connect() -> Api:
    """Open the API of the configured server."""
    return Api(load())


def _frames(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Read server-sent events as this server writes them: one line of data at the most."""
    place = data = ""
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "id":
            place = value
        elif name == "data":
            data = value
        elif not line:
            yield place, data
            data = ""


def _asked_to_wait(answer: httpx.Response) -> float | None:
    """For how many seconds a busy server asks to wait, if it is not for long."""
    asked = answer.headers.get("Retry-After", "")
    if answer.status_code not in (429, 503) or not asked.isdecimal() or len(asked) > 3:
        return None
    return float(asked) if int(asked) <= LONGEST_WAIT_S else None


def _cause(error: Exception) -> str:
    text = re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__
    return text[:200] if text.isprintable() else type(error).__name__


def _json(answer: httpx.Response) -> Any:
    if not answer.content:
        return None
    try:
        return answer.json()
    except ValueError as e:
        where = answer.request.url.copy_with(path="/", query=None)
        raise Failed(f"{where} answered with something else; is it a Pilotwave server?") from e


def _problem(answer: httpx.Response) -> ApiError:
    try:
        members = answer.json()
    except ValueError:
        members = {}
    if not isinstance(members, dict) or "detail" not in members:
        detail = f"{answer.request.url.host} answered {answer.status_code} {answer.reason_phrase}"
        if answer.is_redirect:
            detail += f", to {ascii(answer.headers.get('Location', ''))[:200]}; use that address"
        return ApiError(answer.status_code, "no_problem", detail, {})
    return ApiError(
        answer.status_code, str(members.get("code", "")), str(members["detail"]), members
    )
