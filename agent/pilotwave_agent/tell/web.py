"""Tell over HTTP: one request with a deadline, to the application's own address."""

from __future__ import annotations

import json
import time
import urllib.parse
from typing import Any

from pilotwave_agent.net.http import BadAnswer, Channel, HttpAnswer, TooSlow, Unreachable
from pilotwave_agent.settings.tell import Tell
from pilotwave_agent.tell.base import Quiet, Release, refused, silent

_AGAIN_S = 0.3
_MAX_BODY = 1 << 20


def ask(method: str, url: str, *, within_s: float, body: Any = None) -> HttpAnswer:
    """Return the answer to one request with a JSON body; a server that is not there (it may be
    restarting) is asked again until the time is over. Raises `RefusedError`."""
    ends = time.monotonic() + within_s
    while True:
        left = max(ends - time.monotonic(), 0.1)
        try:
            return _ask(method, url, left, body)
        except TooSlow as e:
            raise silent(f"{url}: no answer within {within_s:g} s") from e
        except BadAnswer as e:
            raise refused(f"{url}: {e}") from e
        except Unreachable as e:
            if time.monotonic() + _AGAIN_S >= ends:
                raise silent(f"{url}: not reached within {within_s:g} s: {e}") from e
            time.sleep(_AGAIN_S)


def _ask(method: str, url: str, left: float, body: Any) -> HttpAnswer:
    parts = urllib.parse.urlsplit(url)
    path = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
    channel = Channel(f"{parts.scheme}://{parts.netloc}", gap_s=left, deadline_s=left)
    raw = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} if raw is not None else {}
    try:
        return channel.request(method, path, headers=headers, body=raw, max_body=_MAX_BODY)
    finally:
        channel.close()


def said(answer: HttpAnswer) -> Any:
    """Return the JSON of an answer; None if it is none."""
    try:
        return json.loads(answer.body)
    except ValueError:
        return None


def words(answer: HttpAnswer) -> str:
    """Return what an answer says went wrong."""
    found = said(answer)
    error = found.get("error") if isinstance(found, dict) else None
    text = str(error) if error else answer.body.decode(errors="replace")
    return f"status {answer.status}: {' '.join(text.split())[:300]}".rstrip(": ")


class Http(Quiet):
    """POST the release to a URL; a status of 2xx is the acknowledgement."""

    def __init__(self, tell: Tell) -> None:
        self.within_s, self._url = tell.timeout_s, tell.url

    def activate(self, release: Release) -> None:
        """Send {model, version, variant, number, path, entrypoint, state}."""
        body = {**vars(release), "path": str(release.path)}
        del body["keep"]
        answer = ask("POST", self._url, within_s=self.within_s, body=body)
        if not 200 <= answer.status < 300:
            raise refused(f"{self._url}: {words(answer)}")

    def rollback(self, bad: Release | None, good: Release) -> None:
        """Send the same of the version that is current again; its state says `rolled_back`."""
        self.activate(good)

    def remove(self, release: Release) -> None:
        """Send the same of the version that goes; its state says `removed`."""
        self.activate(release)
