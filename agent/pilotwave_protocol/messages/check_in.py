"""Check-in: how the models of one device do, signed by its key."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pilotwave_protocol import names, strictjson
from pilotwave_protocol.errors import BadMessage, BadName
from pilotwave_protocol.fields import Fields, Scalar, format_time
from pilotwave_protocol.messages.facts import read_facts
from pilotwave_protocol.messages.reading import open_payload, read_versions
from pilotwave_protocol.sketch import Sketch
from pilotwave_protocol.states import ModelState

CHECK_IN_TYPE = "application/vnd.pilotwave.check-in.v1+json"
MAX_CHECK_IN_BYTES = 512 << 10
SMALL_CHECK_IN_BYTES = 64 << 10
"""What a registry of before 2026-11-29 takes; a larger one only where the registry says so."""
MAX_REPORTS = 512
MAX_EVENTS = 64
MAX_METRICS = 16
_NUMBERED = ("numbering", "boot", "challenge")
_NUMBER_NAME = re.compile(r"[0-9a-f]{8,64}")
_CHALLENGE = re.compile(r"[A-Za-z0-9._~-]{1,256}")


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


def parse_check_in(payload: bytes) -> CheckIn:
    """Read a check-in's payload, or raise `BadMessage`."""
    f = open_payload(payload, MAX_CHECK_IN_BYTES, "pilotwave/check-in/1")
    facts = None if f.raw("facts", None) is None else read_facts(f)
    refusal = f.opt_inner("refusal")
    check_in = CheckIn(
        fleet=f.named("fleet", names.check_fleet),
        device=f.named("device", names.check_device),
        seq=f.integer("seq", low=1),
        agent=f.text("agent", limit=64),
        directive_seq=f.integer("directive_seq"),
        tuf=read_versions(f.inner("tuf")),
        models=read_models(f),
        events=read_events(f),
        facts=facts,
        dropped_events=f.integer("dropped_events", default=0),
        refusal=None if refusal is None else _refusal(refusal),
        metrics=tuple(_metric(w) for w in f.objects("metrics", limit=MAX_METRICS, default=[])),
        numbering=f.opt_named("numbering", check_number_name),
        boot=f.opt_named("boot", check_number_name),
        challenge=f.opt_named("challenge", check_challenge),
    )
    f.done()
    return check_in


def read_models(f: Fields) -> tuple[ModelReport, ...]:
    """Read the `models` field: each model once."""
    models = tuple(_report(m) for m in f.objects("models", limit=MAX_REPORTS))
    if len({m.model for m in models}) != len(models):
        raise BadMessage("models: expected each model once")
    return models


def read_events(f: Fields) -> tuple[DeviceEvent, ...]:
    """Read the `events` field."""
    return tuple(_event(e) for e in f.objects("events", limit=MAX_EVENTS))


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
