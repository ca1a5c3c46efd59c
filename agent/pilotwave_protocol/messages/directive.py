"""Directive: all that one device should run, signed by the director key."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pilotwave_protocol import names, strictjson
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.errors import BadMessage, ProtocolError
from pilotwave_protocol.fields import Fields, format_time
from pilotwave_protocol.messages.reading import open_payload

DIRECTIVE_TYPE = "application/vnd.pilotwave.directive.v1+json"
MAX_DIRECTIVE_BYTES = 256 << 10
# base64 grows the payload by a third; type, key ids and signatures take the rest
MAX_DIRECTIVE_ENVELOPE_BYTES = MAX_DIRECTIVE_BYTES * 4 // 3 + (8 << 10)
MAX_ENTRIES = 256
SMALL_ENTRIES = 64
"""What an agent of before 2026-11-29 takes in a directive, and a registry in a check-in."""


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


def parse_directive(payload: bytes) -> Directive:
    """Read a directive's payload, or raise `BadMessage`."""
    f = open_payload(payload, MAX_DIRECTIVE_BYTES, "pilotwave/directive/1")
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
