"""Enrolment: a device's wish to join, signed by its key, and the plain answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from pilotwave_protocol import names, strictjson
from pilotwave_protocol.fields import Scalar
from pilotwave_protocol.messages.facts import read_facts
from pilotwave_protocol.messages.reading import open_payload, read_reply

ENROL_TYPE = "application/vnd.pilotwave.enrol.v1+json"
MAX_ENROL_BYTES = 16 << 10


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


def parse_enrol(payload: bytes) -> Enrol:
    """Read an enrolment's payload, or raise `BadMessage`."""
    f = open_payload(payload, MAX_ENROL_BYTES, "pilotwave/enrol/1")
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
    return read_reply(
        raw,
        lambda f: EnrolReply(
            device=f.named("device", names.check_device),
            state=f.text("state", limit=16),
            fleet=f.named("fleet", names.check_fleet),
            poll_interval_s=f.integer("poll_interval_s", low=1, high=86_400 * 7),
            check_in_interval_s=f.integer("check_in_interval_s", low=1, high=86_400 * 7),
        ),
    )
