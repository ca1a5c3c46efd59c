"""The payloads inside the envelopes, and the plain replies (docs/protocol.md gives each field).

Directive: server to device, signed by the director key. Check-in and enrol: device to server,
signed by the device key. Parsing proves the form only; who signed it is `dsse`'s to prove.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from pilotwave_protocol import names, strictjson
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.errors import BadJson, BadMessage, BadName, ProtocolError
from pilotwave_protocol.fields import MAX_INT, Fields, Scalar, format_time
from pilotwave_protocol.push import PushTerms
from pilotwave_protocol.sketch import Sketch
from pilotwave_protocol.states import ModelState

DIRECTIVE_TYPE = "application/vnd.pilotwave.directive.v1+json"
CHECK_IN_TYPE = "application/vnd.pilotwave.check-in.v1+json"
ENROL_TYPE = "application/vnd.pilotwave.enrol.v1+json"

MAX_DIRECTIVE_BYTES = 256 << 10
# base64 grows the payload by a third; type, key ids and signatures take the rest
MAX_DIRECTIVE_ENVELOPE_BYTES = MAX_DIRECTIVE_BYTES * 4 // 3 + (8 << 10)
MAX_CHECK_IN_BYTES = 512 << 10
SMALL_CHECK_IN_BYTES = 64 << 10
"""What a registry of before 2026-11-29 takes; a larger one only where the registry says so."""
MAX_ENROL_BYTES = 16 << 10
MAX_REPLY_BYTES = 16 << 10
MAX_ENTRIES = 256
SMALL_ENTRIES = 64
"""What an agent of before 2026-11-29 takes in a directive, and a registry in a check-in."""
MAX_REPORTS = 512
MAX_EVENTS = 64
MAX_FACTS = 64
MAX_METRICS = 16
NUMBERING = "numbering"
"""In `CheckInReply.accepts`: the registry reads `numbering`, `boot` and `challenge`."""
_NUMBERED = ("numbering", "boot", "challenge")
_NUMBER_NAME = re.compile(r"[0-9a-f]{8,64}")
_CHALLENGE = re.compile(r"[A-Za-z0-9._~-]{1,256}")
M = TypeVar("M")


AGENT_PROFILE = "agent.profile"
"""The fact that says how an agent spends wake-ups: `battery`, or missing."""
AGENT_LONGEST = "agent.max_check_in_interval_s"
"""The fact of an agent whose settings cap the interval between check-ins, in whole seconds."""
BATTERY_INTERVAL_S = 900
"""An agent on a battery polls and reports no more often than this, in seconds."""
AGENT_TIES = "agent.together"
"""The fact of an agent that heeds the condition `together`; one without it changes all at once."""


@dataclass(frozen=True)
class Entry:
    """One model's assignment: the version (by its signed manifest), its variant, and why."""

    model: str
    version: str
    target: str
    sha256: str
    length: int
    counter: int
    variant: str
    reason: str = "baseline"
    rollout: str | None = None
    attempt: int = 0
    conditions: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Directive:
    """All that one device should run. `seq` never falls; the set is always the full one."""

    fleet: str
    device: str
    seq: int
    issued: datetime
    expires: datetime
    min_snapshot: int
    entries: tuple[Entry, ...]
    remove: tuple[str, ...] = ()  # models to take off the device; only told to agents that can

    def to_bytes(self) -> bytes:
        """Write the payload that is signed."""
        return strictjson.dumps(
            {
                "schema": "pilotwave/directive/1",
                "fleet": self.fleet,
                "device": self.device,
                "seq": self.seq,
                "issued": format_time(self.issued),
                "expires": format_time(self.expires),
                "min_snapshot": self.min_snapshot,
                "set": plain_set(self.entries),
                # agents of before 2026-11-29 refuse a directive with this field
                **({"remove": sorted(self.remove)} if self.remove else {}),
            }
        )

    @property
    def set_digest(self) -> str:
        """Digest of what is ordered alone: equal for directives that order the same."""
        return set_digest(self.entries, self.remove)


def plain_set(entries: tuple[Entry, ...]) -> list[dict[str, Any]]:
    """Return the set as JSON values, ordered by model."""
    return [vars(e) for e in sorted(entries, key=lambda e: e.model)]


def set_digest(entries: tuple[Entry, ...], remove: tuple[str, ...] = ()) -> str:
    """Return the SHA-256 (hex) of the canonical form of a set and of the models to remove."""
    ordered = plain_set(entries)
    return sha256_hex(strictjson.dumps([ordered, sorted(remove)] if remove else ordered))


@dataclass(frozen=True)
class Installed:
    """A version on a device's disk; `sha256` is its manifest's."""

    version: str
    sha256: str
    variant: str
    counter: int


@dataclass(frozen=True)
class ModelReport:
    """How one model does on the device."""

    model: str
    state: ModelState
    current: Installed | None = None
    previous: Installed | None = None
    candidate: Installed | None = None
    reason: str | None = None
    detail: str | None = None
    progress: int | None = None  # percent of the candidate's bytes on disk


@dataclass(frozen=True)
class DeviceEvent:
    """Something that happened on a device. `id` rises by one; `at` is the device's own clock."""

    id: int
    at: datetime
    kind: str
    model: str | None = None
    version: str | None = None
    reason: str | None = None
    detail: str | None = None


@dataclass(frozen=True)
class MetricReport:
    """One window of a live metric of a version in use. `id` rises by one with each window of the
    device, whatever its metric; `start` and `end` are by the device's own clock.

    `latency_ms` is of each call, `error` 0 or 1 for each call, `score` the application's own; any
    other name is the application's too.
    """

    id: int
    model: str
    version: str
    metric: str
    start: datetime
    end: datetime
    sketch: Sketch


@dataclass(frozen=True)
class CheckIn:
    """A device's signed report. `seq` rises with each; no clock is needed to believe it."""

    fleet: str
    device: str
    seq: int
    agent: str
    directive_seq: int
    tuf: dict[str, int]
    models: tuple[ModelReport, ...] = ()
    events: tuple[DeviceEvent, ...] = ()
    facts: dict[str, Scalar] | None = None  # None: unchanged since the last acknowledged one
    dropped_events: int = 0
    refusal: dict[str, str] | None = None  # {"reason", "detail"} of the last refused directive
    metrics: tuple[MetricReport, ...] = ()
    # what follows is sent only to a registry that `accepts` it
    numbering: str | None = None  # under which `seq`, events and windows count
    boot: str | None = None  # tells this start of the agent from every other
    challenge: str | None = None  # from the 409 that this answers

    def to_bytes(self) -> bytes:
        """Write the payload that is signed."""
        return strictjson.dumps(
            {
                **{name: v for name in _NUMBERED if (v := getattr(self, name)) is not None},
                "schema": "pilotwave/check-in/1",
                "fleet": self.fleet,
                "device": self.device,
                "seq": self.seq,
                "agent": self.agent,
                "directive_seq": self.directive_seq,
                "tuf": self.tuf,
                "models": [_plain_report(m) for m in self.models],
                "events": [{**vars(e), "at": format_time(e.at)} for e in self.events],
                "facts": self.facts,
                "dropped_events": self.dropped_events,
                "refusal": self.refusal,
                "metrics": [_plain_metric(m) for m in self.metrics],
            }
        )


@dataclass(frozen=True)
class Enrol:
    """A device's wish to join, signed by the key it asks to be known by."""

    name: str
    public_key: str  # 64 hex digits: the 32 raw bytes of an Ed25519 key
    code: str | None = None
    facts: dict[str, Scalar] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Write the payload that is signed."""
        return strictjson.dumps({"schema": "pilotwave/enrol/1", **vars(self)})


@dataclass(frozen=True)
class EnrolReply:
    """The server's plain answer to an enrolment. `state` is `enrolled` or `pending`."""

    device: str
    state: str
    fleet: str
    poll_interval_s: int
    check_in_interval_s: int

    def to_bytes(self) -> bytes:
        """Write the reply."""
        return strictjson.dumps(vars(self))


@dataclass(frozen=True)
class CheckInReply:
    """The server's plain answer to a check-in: a read token and how to go on.

    Times are in seconds, `tuf` holds the newest root and timestamp versions as a hint. `push` is
    None where no channel is offered.
    """

    token: str
    token_expires_in_s: int
    poll_interval_s: int
    check_in_interval_s: int
    acked_event: int
    tuf: dict[str, int]
    now: datetime
    acked_metric: int = 0
    push: PushTerms | None = None
    max_check_in_bytes: int = SMALL_CHECK_IN_BYTES  # what the registry takes
    accepts: tuple[str, ...] = ()  # fields of later check-ins that this registry can read

    def to_bytes(self) -> bytes:
        """Write the reply."""
        push = None if self.push is None else vars(self.push)
        return strictjson.dumps({**vars(self), "now": format_time(self.now), "push": push})


def parse_directive(payload: bytes) -> Directive:
    """Read a directive's payload, or raise `BadMessage`."""
    f = _open(payload, MAX_DIRECTIVE_BYTES, "pilotwave/directive/1")
    directive = Directive(
        fleet=f.named("fleet", names.check_fleet),
        device=f.named("device", names.check_device),
        seq=f.integer("seq"),
        issued=f.time("issued"),
        expires=f.time("expires"),
        min_snapshot=f.integer("min_snapshot"),
        entries=tuple(_entry(e) for e in f.objects("set", limit=MAX_ENTRIES)),
        remove=_removals(f),
    )
    f.done()
    named = [*(e.model for e in directive.entries), *directive.remove]
    if len(set(named)) != len(named):
        raise BadMessage("set and remove: expected each model once")
    return directive


def _removals(f: Fields) -> tuple[str, ...]:
    found = f.texts("remove", limit=MAX_ENTRIES, default=[])
    try:
        return tuple(names.check_model(model) for model in found)
    except ProtocolError as e:
        raise BadMessage(f"remove: {e}") from e


def parse_check_in(payload: bytes) -> CheckIn:
    """Read a check-in's payload, or raise `BadMessage`."""
    f = _open(payload, MAX_CHECK_IN_BYTES, "pilotwave/check-in/1")
    facts = None if f.raw("facts", None) is None else read_facts(f)
    refusal = f.opt_inner("refusal")
    check_in = CheckIn(
        fleet=f.named("fleet", names.check_fleet),
        device=f.named("device", names.check_device),
        seq=f.integer("seq", low=1),
        agent=f.text("agent", limit=64),
        directive_seq=f.integer("directive_seq"),
        tuf=_tuf(f.inner("tuf")),
        models=tuple(_report(m) for m in f.objects("models", limit=MAX_REPORTS)),
        events=tuple(_event(e) for e in f.objects("events", limit=MAX_EVENTS)),
        facts=facts,
        dropped_events=f.integer("dropped_events", default=0),
        refusal=None if refusal is None else _refusal(refusal),
        metrics=tuple(_metric(w) for w in f.objects("metrics", limit=MAX_METRICS, default=[])),
        numbering=f.opt_named("numbering", check_number_name),
        boot=f.opt_named("boot", check_number_name),
        challenge=f.opt_named("challenge", check_challenge),
    )
    f.done()
    if len({m.model for m in check_in.models}) != len(check_in.models):
        raise BadMessage("models: expected each model once")
    return check_in


def parse_enrol(payload: bytes) -> Enrol:
    """Read an enrolment's payload, or raise `BadMessage`."""
    f = _open(payload, MAX_ENROL_BYTES, "pilotwave/enrol/1")
    enrol = Enrol(
        name=f.named("name", names.check_device),
        public_key=f.named("public_key", names.check_sha256),
        code=f.opt_text("code", limit=128),
        facts=read_facts(f),
    )
    f.done()
    return enrol


def parse_enrol_reply(raw: bytes) -> EnrolReply:
    """Read the answer to an enrolment, or raise `BadMessage`."""
    return _reply(
        raw,
        lambda f: EnrolReply(
            device=f.named("device", names.check_device),
            state=f.text("state", limit=16),
            fleet=f.named("fleet", names.check_fleet),
            poll_interval_s=f.integer("poll_interval_s", low=1, high=86_400 * 7),
            check_in_interval_s=f.integer("check_in_interval_s", low=1, high=86_400 * 7),
        ),
    )


def parse_check_in_reply(raw: bytes) -> CheckInReply:
    """Read the answer to a check-in, or raise `BadMessage`."""
    return _reply(
        raw,
        lambda f: CheckInReply(
            token=f.text("token", limit=512),
            token_expires_in_s=f.integer("token_expires_in_s", low=1, high=86_400),
            poll_interval_s=f.integer("poll_interval_s", low=1, high=86_400 * 7),
            check_in_interval_s=f.integer("check_in_interval_s", low=1, high=86_400 * 7),
            acked_event=f.integer("acked_event"),
            tuf=_tuf(f.inner("tuf")),
            now=f.time("now"),
            acked_metric=f.integer("acked_metric", default=0),
            push=_push_terms(f.opt_inner("push")),
            max_check_in_bytes=_room(f.raw("max_check_in_bytes", None)),
            accepts=_accepts(f.raw("accepts", None)),
        ),
    )


def _room(said: object) -> int:
    """Read how large a check-in may be: an unsigned word, held within what every registry takes
    and what this one may ever have said."""
    if isinstance(said, bool) or not isinstance(said, int):
        return SMALL_CHECK_IN_BYTES
    return min(max(said, SMALL_CHECK_IN_BYTES), MAX_CHECK_IN_BYTES)


def _accepts(found: object) -> tuple[str, ...]:
    """Read which fields the registry can read; what is no word is none of them."""
    words = found if isinstance(found, list) else []
    return tuple(word for word in words if isinstance(word, str))


def check_number_name(value: object) -> str:
    """Check the random name of a numbering or of a start of the agent, or raise `BadName`."""
    if not isinstance(value, str) or not _NUMBER_NAME.fullmatch(value):
        raise BadName(f"expected 8 to 64 hex digits; got {ascii(value)[:80]}")
    return value


def check_challenge(value: object) -> str:
    """Check the form of a challenge; what it holds is the registry's own affair."""
    if not isinstance(value, str) or not _CHALLENGE.fullmatch(value):
        raise BadName(f"expected a challenge as a 409 carries it; got {ascii(value)[:80]}")
    return value


def _push_terms(f: Fields | None) -> PushTerms | None:
    if f is None:
        return None
    return PushTerms(
        poll_interval_s=f.integer("poll_interval_s", low=1, high=86_400),
        ping_s=f.integer("ping_s", low=1, high=86_400),
        spread_s=f.integer("spread_s", high=86_400),
    )


def read_facts(f: Fields) -> dict[str, Scalar]:
    """Read the `facts` field: flat, keys by pattern, values scalar and short."""
    found = f.mapping("facts", limit=MAX_FACTS)
    for key, value in found.items():
        try:
            names.check_fact_key(key)
        except ProtocolError as e:
            raise BadMessage(f"{f.at('facts')}: {e}") from e
        if not _is_fact(value):
            raise f.fail(
                f"facts.{key}", "printable text up to 256 characters, a number or true/false", value
            )
    return found


def _is_fact(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= 256 and (value.isprintable() or value == "")
    return isinstance(value, bool) or (
        isinstance(value, (int, float)) and -MAX_INT <= value <= MAX_INT
    )


def _open(payload: bytes, max_bytes: int, schema: str) -> Fields:
    try:
        f = Fields(strictjson.loads(payload, max_bytes=max_bytes, max_depth=8), "", BadMessage)
    except BadJson as e:
        raise BadMessage(f"message: {e}") from e
    if f.raw("schema") != schema:
        raise f.fail("schema", schema, f.raw("schema"))
    return f


def _reply(raw: bytes, read: Callable[[Fields], M]) -> M:
    try:
        f = Fields(strictjson.loads(raw, max_bytes=MAX_REPLY_BYTES, max_depth=4), "", BadMessage)
    except BadJson as e:
        raise BadMessage(f"reply: {e}") from e
    # unknown fields are let pass here: a newer server may say more to an older device
    return read(f)


def _entry(f: Fields) -> Entry:
    entry = Entry(
        model=f.named("model", names.check_model),
        version=f.named("version", names.check_version),
        target=f.text("target", limit=256),
        sha256=f.named("sha256", names.check_sha256),
        length=f.integer("length"),
        counter=f.integer("counter", low=1),
        variant=f.named("variant", names.check_variant),
        reason=f.text("reason", limit=32),
        rollout=f.opt_text("rollout", limit=64),
        attempt=f.integer("attempt"),
        conditions=f.mapping("conditions", limit=16),
    )
    f.done()
    if entry.target != names.target_path(entry.model, entry.version):
        raise f.fail("target", names.target_path(entry.model, entry.version), entry.target)
    return entry


def _tuf(f: Fields) -> dict[str, int]:
    versions = {role: f.integer(role, default=0) for role in ("root", "timestamp", "snapshot")}
    f.done()
    return versions


def _refusal(f: Fields) -> dict[str, str]:
    refusal = {"reason": f.text("reason", limit=64), "detail": f.text("detail", limit=512)}
    f.done()
    return refusal


def _plain_report(m: ModelReport) -> dict[str, Any]:
    slots = {s: vars(v) if (v := getattr(m, s)) else None for s in _SLOTS}
    return {**vars(m), "state": str(m.state), **slots}


_SLOTS = ("current", "previous", "candidate")


def _report(f: Fields) -> ModelReport:
    progress = None if f.raw("progress", None) is None else f.integer("progress", high=100)
    report = ModelReport(
        model=f.named("model", names.check_model),
        state=f.one_of("state", ModelState),
        current=_installed(f.opt_inner("current")),
        previous=_installed(f.opt_inner("previous")),
        candidate=_installed(f.opt_inner("candidate")),
        reason=f.opt_text("reason", limit=64),
        detail=f.opt_text("detail", limit=512),
        progress=progress,
    )
    f.done()
    return report


def _installed(f: Fields | None) -> Installed | None:
    if f is None:
        return None
    installed = Installed(
        version=f.named("version", names.check_version),
        sha256=f.named("sha256", names.check_sha256),
        variant=f.named("variant", names.check_variant),
        counter=f.integer("counter", low=1),
    )
    f.done()
    return installed


def _event(f: Fields) -> DeviceEvent:
    event = DeviceEvent(
        id=f.integer("id", low=1),
        at=f.time("at"),
        kind=f.text("kind", limit=32),
        model=f.opt_named("model", names.check_model),
        version=f.opt_named("version", names.check_version),
        reason=f.opt_text("reason", limit=64),
        detail=f.opt_text("detail", limit=512),
    )
    f.done()
    return event


def _plain_metric(m: MetricReport) -> dict[str, Any]:
    times = {"start": format_time(m.start), "end": format_time(m.end)}
    return {**vars(m), **times, "sketch": m.sketch.to_plain()}


def _metric(f: Fields) -> MetricReport:
    report = MetricReport(
        id=f.integer("id", low=1),
        model=f.named("model", names.check_model),
        version=f.named("version", names.check_version),
        metric=f.named("metric", names.check_metric),
        start=f.time("start"),
        end=f.time("end"),
        sketch=Sketch.from_plain(f.raw("sketch"), f.at("sketch")),
    )
    f.done()
    if report.end < report.start:
        raise f.fail("end", "a time not before `start`", f.raw("end"))
    return report
