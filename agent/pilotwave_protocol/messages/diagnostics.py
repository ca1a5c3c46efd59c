"""Diagnostics: what a device says of itself to one person, sealed for them and signed by it.

An operator asks with the public half of a key of their own, the reader's key. The server passes the
wish on and keeps the answer; it can read neither.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from pilotwave_protocol import names, strictjson
from pilotwave_protocol.messages.reading import open_payload

DIAGNOSTICS_TYPE = "application/vnd.pilotwave.diagnostics.v1+json"
MAX_SEALED_BYTES = 192 << 10
MAX_DIAGNOSTICS_BYTES = 512 << 10
"""Of an envelope: what is sealed is written in base64 twice."""
_SCHEMA = "pilotwave/diagnostics/1"


@dataclass(frozen=True)
class DiagnosticsWish:
    """Which answer is wanted, and whose key may open it: 64 hex digits, the 32 raw bytes of an
    X25519 key."""

    id: int
    reader: str


@dataclass(frozen=True)
class Diagnostics:
    """A device's answer: `sealed` bytes for the reader, or the sentence why there are none.

    `public_key` is the device's, 64 hex digits; its digest is the key id that the server shows.
    """

    fleet: str
    device: str
    wish: DiagnosticsWish
    public_key: str
    sealed: bytes = b""
    refused: str | None = None

    def to_bytes(self) -> bytes:
        """Write the payload that is signed."""
        return strictjson.dumps(
            {
                "schema": _SCHEMA,
                "fleet": self.fleet,
                "device": self.device,
                "id": self.wish.id,
                "reader": self.wish.reader,
                "public_key": self.public_key,
                "sealed": base64.b64encode(self.sealed).decode(),
                "refused": self.refused,
            }
        )


def parse_diagnostics(payload: bytes) -> Diagnostics:
    """Read an answer's payload, or raise `BadMessage`."""
    f = open_payload(payload, MAX_DIAGNOSTICS_BYTES, _SCHEMA)
    text = f.text("sealed", limit=MAX_DIAGNOSTICS_BYTES)
    try:
        sealed = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise f.fail("sealed", "base64", text[:40]) from None
    found = Diagnostics(
        fleet=f.named("fleet", names.check_fleet),
        device=f.named("device", names.check_device),
        wish=DiagnosticsWish(f.integer("id", low=1), f.named("reader", names.check_sha256)),
        public_key=f.named("public_key", names.check_sha256),
        sealed=sealed,
        refused=f.opt_text("refused", limit=512),
    )
    f.done()
    if len(sealed) > MAX_SEALED_BYTES:
        raise f.fail("sealed", f"at most {MAX_SEALED_BYTES} bytes", len(sealed))
    if bool(sealed) is (found.refused is not None):
        raise f.fail("refused", "either sealed bytes or a refusal", found.refused)
    return found
