"""A captured case: inputs of a model and its answer, sealed on the device for one reader.

It is a statement in JSON on one line, a line feed, the sealed bytes. The application writes it with
the statement as it is; the agent sends it with the statement in an envelope signed by the device.
The digest of the sealed bytes is the case's id, so that a case that is sent twice is one case.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from pilotwave_protocol import names, strictjson
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.errors import BadMessage
from pilotwave_protocol.fields import Fields, format_time
from pilotwave_protocol.messages.reading import open_payload

CASE_TYPE = "application/vnd.pilotwave.case.v1+json"
MAX_SEALED_CASE_BYTES = 4 << 20
MAX_STATEMENT_BYTES = 4 << 10
MAX_CASE_BYTES = MAX_SEALED_CASE_BYTES + 4 * MAX_STATEMENT_BYTES
"""With its statement, in an envelope or as it is."""
_SCHEMA = "pilotwave/case/1"
_REASON = re.compile(r"[a-z][a-z_]{0,31}")


@dataclass(frozen=True)
class Case:
    """What is said of a case in the open. `public_key` is the device's and `reader` whose key opens
    the case, 64 hex digits each; `id` is the SHA-256 of the sealed bytes."""

    fleet: str
    device: str
    public_key: str
    reader: str
    model: str
    version: str
    variant: str
    reason: str
    at: datetime
    id: str = ""

    def about(self) -> bytes:
        """Return what ties the sealed bytes to what is said of them."""
        told = (self.fleet, self.device, self.model, self.version, self.variant, self.reason)
        return " ".join((_SCHEMA, *told, format_time(self.at))).encode()

    def to_bytes(self) -> bytes:
        """Write the statement."""
        return strictjson.dumps({"schema": _SCHEMA, **vars(self), "at": format_time(self.at)})


def join_case(statement: bytes, sealed: bytes) -> bytes:
    """Write a case's two parts as one."""
    return statement + b"\n" + sealed


def split_case(raw: bytes) -> tuple[bytes, bytes]:
    """Return a case's statement, or the envelope around it, and its sealed bytes."""
    statement, _, sealed = raw.partition(b"\n")
    if not 0 < len(sealed) <= MAX_SEALED_CASE_BYTES:
        limit = f"1 to {MAX_SEALED_CASE_BYTES} sealed bytes after the first line"
        raise BadMessage(f"case: expected {limit}; got {len(sealed)}")
    return statement, sealed


def parse_case(statement: bytes, sealed: bytes) -> Case:
    """Read a statement about these sealed bytes, or raise `BadMessage`."""
    f = open_payload(statement, MAX_STATEMENT_BYTES, _SCHEMA)
    found = Case(
        fleet=f.named("fleet", names.check_fleet),
        device=f.named("device", names.check_device),
        public_key=f.named("public_key", names.check_sha256),
        reader=f.named("reader", names.check_sha256),
        model=f.named("model", names.check_model),
        version=f.named("version", names.check_version),
        variant=f.named("variant", names.check_variant),
        reason=_reason(f),
        at=f.time("at"),
        id=f.named("id", names.check_sha256),
    )
    f.done()
    if found.id != sha256_hex(sealed):
        raise f.fail("id", f"the SHA-256 of what is sealed, {sha256_hex(sealed)}", found.id)
    return found


def _reason(f: Fields) -> str:
    found = f.text("reason")
    if not _REASON.fullmatch(found):
        raise f.fail("reason", "a word such as low_score", found)
    return found
