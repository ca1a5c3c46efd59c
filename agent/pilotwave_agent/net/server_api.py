"""Ask the server, as one device: enrol, check in, poll. What the answers lead to is in
`resident`."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilotwave_agent.net.authorities import ClientCert
from pilotwave_agent.net.http import BadAnswer, Channel, HttpAnswer
from pilotwave_agent.settings.config import Config
from pilotwave_protocol import dsse, names, strictjson
from pilotwave_protocol.errors import BadJson, PilotwaveError, ProtocolError
from pilotwave_protocol.learning.plan import MAX_PLAN_BYTES, MAX_ROUNDS
from pilotwave_protocol.messages.check_in import CHECK_IN_TYPE, CheckIn, check_challenge
from pilotwave_protocol.messages.check_in_reply import CheckInReply, parse_check_in_reply
from pilotwave_protocol.messages.directive import MAX_DIRECTIVE_ENVELOPE_BYTES
from pilotwave_protocol.messages.enrol import ENROL_TYPE, Enrol, EnrolReply, parse_enrol_reply
from pilotwave_protocol.tracing import HEADER as TRACES

_JSON = {"Content-Type": "application/json"}
# whoever can forge an answer may silence a device for no longer than this at a time
MAX_RETRY_AFTER_S = 3600
CASE_DEADLINE_S = 60.0
_MAX_ROUNDS = 256 << 10
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{1,512}")
_ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e]{0,74}"')


class ServerSaid(PilotwaveError):
    """The server answered with a problem."""

    code = "server_said"

    def __init__(self, answer: HttpAnswer) -> None:
        problem = _problem(answer.body)
        self.status = answer.status
        self.problem = str(problem.get("code", ""))[:64]
        last = problem.get("last_seq")
        self.last_seq = last if type(last) is int and last >= 0 else None
        self.challenge = _told(check_challenge, problem.get("challenge"))
        self.fleet = _told(names.check_fleet, problem.get("fleet"))
        self.retry_after_s = retry_after(answer.headers.get("retry-after", ""))
        detail = problem.get("detail") or problem.get("title") or "no reason given"
        words = "".join(c for c in str(detail) if c.isprintable())[:300]
        super().__init__(f"the server said {answer.status} {self.problem}: {words}")


def channel_of(config: Config, url: str = "", receive_buffer: int = 0) -> Channel:
    """Return a connection by these settings, to their server or to `url`."""
    return Channel(
        url or config.server,
        ca_file=config.ca_file,
        client=client_cert_of(config),
        gap_s=config.network_timeout_s,
        receive_buffer=receive_buffer,
        proxies=config.proxies,
    )


def client_cert_of(config: Config) -> ClientCert | None:
    """Return the certificate that these settings have the device show."""
    return ClientCert(config.client_cert, config.client_key) if config.client_cert else None


def _problem(body: bytes) -> dict[str, object]:
    try:
        found = strictjson.loads(body, max_bytes=1 << 16)
    except BadJson:
        return {}
    return found if isinstance(found, dict) else {}


def _told(check: Callable[[object], str], found: object) -> str | None:
    try:
        return check(found)
    except ProtocolError:
        return None


def retry_after(value: str) -> float | None:
    """Read a `Retry-After` in seconds, held within what an unsigned answer may ask; else None."""
    if not (value.isascii() and value.isdigit()):
        return None
    return float(min(int(value[:9]), MAX_RETRY_AFTER_S))


@dataclass(frozen=True)
class Polled:
    """A poll's answer: `raw` is a new directive, or None if nothing changed.

    `root` and `timestamp` are the server's hint at the newest TUF versions, `traces` what it says
    of the traces that a new directive belongs to.
    """

    raw: bytes | None
    etag: str
    root: int
    timestamp: int
    traces: str = ""


def enrol(channel: Channel, key: Ed25519PrivateKey, wish: Enrol) -> EnrolReply:
    """Ask to join. Raises `ServerSaid`, `Unreachable`, `BadAnswer`."""
    body = dsse.sign(ENROL_TYPE, wish.to_bytes(), key)
    answer = channel.request("POST", "/device/v1/enrol", headers=_JSON, body=body)
    if answer.status not in (200, 201):
        raise ServerSaid(answer)
    try:
        reply = parse_enrol_reply(answer.body)
    except ProtocolError as e:
        raise BadAnswer(f"enrol: {e}") from e
    if reply.device != wish.name:
        raise BadAnswer(f"enrol: expected an answer for {wish.name}; this is for {reply.device}")
    if reply.state not in ("enrolled", "pending"):
        raise BadAnswer(f"enrol: expected enrolled or pending; got {reply.state!a}")
    return reply


def check_in(
    channel: Channel, key: Ed25519PrivateKey, report: CheckIn, *, traces: str = ""
) -> CheckInReply:
    """Send a signed report, and beside it `traces`. Raises `ServerSaid`, `Unreachable`,
    `BadAnswer`."""
    body = dsse.sign(CHECK_IN_TYPE, report.to_bytes(), key)
    headers = {**_JSON, TRACES: traces} if traces else _JSON
    answer = channel.request("POST", "/device/v1/check-in", headers=headers, body=body)
    if answer.status != 200:
        raise ServerSaid(answer)
    try:
        reply = parse_check_in_reply(answer.body)
    except ProtocolError as e:
        raise BadAnswer(f"check-in: {e}") from e
    if not _TOKEN.fullmatch(reply.token):
        raise BadAnswer("check-in: expected a token that fits into a header")
    return reply


def send_diagnostics(channel: Channel, token: str, envelope: bytes) -> None:
    """Answer a wish for diagnostics. Raises `ServerSaid`, `Unreachable`, `BadAnswer`."""
    headers = {**_JSON, "Authorization": f"Bearer {token}"}
    answer = channel.request("POST", "/device/v1/diagnostics", headers=headers, body=envelope)
    if answer.status != 204:
        raise ServerSaid(answer)


def send_case(channel: Channel, token: str, case: bytes) -> None:
    """Send a captured case. Raises `ServerSaid`, `Unreachable`, `BadAnswer`."""
    send_bytes(channel, token, "/device/v1/captures", case)


@dataclass(frozen=True)
class WaitingRound:
    """A training plan as the server gave it, not verified, which of its rounds is open, and what
    the server says to wait for."""

    plan: bytes
    number: int
    conditions: Mapping[str, Any] = field(default_factory=dict)


def waiting_rounds(channel: Channel, token: str) -> list[WaitingRound]:
    """Ask for the rounds of training plans that wait for this device.

    Raises `ServerSaid`, `Unreachable`, `BadAnswer`.
    """
    headers = {"Authorization": f"Bearer {token}"}
    answer = channel.request("GET", "/device/v1/learning", headers=headers, max_body=_MAX_ROUNDS)
    if answer.status != 200:
        raise ServerSaid(answer)
    try:
        found = strictjson.loads(answer.body, max_bytes=_MAX_ROUNDS)
        return [_waiting(item) for item in found["rounds"]]
    except (BadJson, ValueError, TypeError, KeyError) as e:
        raise BadAnswer(f"learning: expected plans: {e}") from e


def _waiting(item: dict[str, Any]) -> WaitingRound:
    number = item["round"]
    if type(number) is not int or not 1 <= number <= MAX_ROUNDS:
        raise ValueError(f"expected a round from 1 to {MAX_ROUNDS}; got {number!r}")
    conditions = item.get("conditions", {})  # an older server names none
    if not isinstance(conditions, dict):
        raise ValueError("expected conditions as an object")
    return WaitingRound(base64.b64decode(item["content"], validate=True), number, conditions)


def head_of_round(channel: Channel, token: str, plan: str, number: int, size: int) -> bytes:
    """Fetch the head that a round goes on from: `size` bytes, not verified.

    Raises `ServerSaid`, `Unreachable`, `BadAnswer`.
    """
    path = f"/device/v1/learning/{plan}/rounds/{number}/head"
    headers = {"Authorization": f"Bearer {token}"}
    answer = channel.request("GET", path, headers=headers, max_body=size)
    if answer.status != 200:
        raise ServerSaid(answer)
    return answer.body


def read_plan(channel: Channel, token: str, digest: str) -> bytes:
    """Ask for a training plan by its digest; it is not verified. Raises `ServerSaid`,
    `Unreachable`, `BadAnswer`."""
    headers = {"Authorization": f"Bearer {token}"}
    path = f"/device/v1/plans/{digest}"
    answer = channel.request("GET", path, headers=headers, max_body=MAX_PLAN_BYTES)
    if answer.status != 200:
        raise ServerSaid(answer)
    return answer.body


def send_bytes(channel: Channel, token: str, path: str, body: bytes) -> bytes:
    """Send bytes to a path; return the answer. Raises `ServerSaid`, `Unreachable`, `BadAnswer`."""
    headers = {"Content-Type": "application/octet-stream", "Authorization": f"Bearer {token}"}
    answer = channel.request("POST", path, headers=headers, body=body, deadline_s=CASE_DEADLINE_S)
    if answer.status not in (200, 204):
        raise ServerSaid(answer)
    return answer.body


def poll(channel: Channel, token: str, etag: str) -> Polled:
    """Ask for a directive other than the one with `etag`.

    Raises `ServerSaid`, `Unreachable`, `BadAnswer`.
    """
    headers = {"Authorization": f"Bearer {token}"}
    if etag:
        headers["If-None-Match"] = etag
    most = MAX_DIRECTIVE_ENVELOPE_BYTES
    answer = channel.request("GET", "/device/v1/directive", headers=headers, max_body=most)
    if answer.status not in (200, 304):
        raise ServerSaid(answer)
    root, timestamp = _hint(answer.headers.get("pilotwave-tuf", ""))
    fresh = answer.status == 200
    return Polled(
        raw=answer.body if fresh else None,
        etag=_etag(answer.headers.get("etag", "")) if fresh else etag,
        root=root,
        timestamp=timestamp,
        traces=answer.headers.get(TRACES.lower(), "") if fresh else "",
    )


def _etag(value: str) -> str:
    """Return an ETag that can be sent back; one that cannot would spoil every later request."""
    return value if _ETAG.fullmatch(value) else ""


def _hint(text: str) -> tuple[int, int]:
    """Read `<root>.<timestamp>`; anything else is no hint, which costs nothing but time."""
    root, _, timestamp = text.partition(".")
    if root.isdecimal() and timestamp.isdecimal() and len(text) <= 40:
        return int(root), int(timestamp)
    return 0, 0
