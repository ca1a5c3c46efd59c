"""The errors that both ends of the protocol share.

    PilotwaveError
    ├── ProtocolError            what came does not follow docs/protocol.md
    │   ├── BadJson              not the strict JSON of `strictjson`
    │   ├── BadName              a model, version, device, path… outside its pattern
    │   ├── BadEnvelope          not a DSSE envelope, or not signed by a key we trust
    │   ├── BadMessage           a well-signed payload with wrong fields
    │   ├── BadManifest          a version manifest with wrong fields
    │   ├── BadPlan              a training plan with wrong fields
    │   ├── BadTrustData         signed facts in TUF `custom` with wrong fields
    │   └── BadDelta             a delta that breaks its format, or does not give what it promises
    ├── SigningError             a key file, passphrase or signer that does not work
    └── RefusedError             a "no" of the device, with its machine-readable reason

Each class carries `code`, a stable machine-readable word; `str()` is a sentence for a person.
"""

from __future__ import annotations

from typing import ClassVar

from pilotwave_protocol.states import Reason


class PilotwaveError(Exception):
    """Base of everything that Pilotwave raises on purpose."""

    code: ClassVar[str] = "error"


class ProtocolError(PilotwaveError):
    """What came from the other end does not follow the protocol."""

    code = "protocol_error"


class BadJson(ProtocolError):
    """Not UTF-8, not JSON, too large, too deep, a repeated key, or a number JSON does not have."""

    code = "bad_json"


class BadName(ProtocolError):
    """A name, version, digest or path outside its pattern."""

    code = "bad_name"


class BadEnvelope(ProtocolError):
    """Not a DSSE envelope of the expected type, or too few valid signatures on it."""

    code = "bad_envelope"


class WrongKey(BadEnvelope):
    """A well-formed envelope that no trusted key has signed."""

    code = "wrong_key"


class BadMessage(ProtocolError):
    """A payload whose fields are missing, unknown or of the wrong type."""

    code = "bad_message"


class BadManifest(ProtocolError):
    """A version manifest whose fields are missing, unknown or of the wrong type."""

    code = "bad_manifest"


class BadPlan(ProtocolError):
    """A training plan whose fields are missing, unknown, or do not go together."""

    code = "bad_plan"


class BadTrustData(ProtocolError):
    """Signed facts (TUF `custom`) whose fields are missing or of the wrong type."""

    code = "bad_trust_data"


class BadDelta(ProtocolError):
    """A delta that breaks its format, or that does not give the file it promises."""

    code = "bad_delta"


class SigningError(PilotwaveError):
    """A key cannot be made, read or used for signing."""

    code = "signing_error"


class SealingError(PilotwaveError):
    """Bytes cannot be sealed for a key, or not be opened with it."""

    code = "sealing_error"


class RefusedError(PilotwaveError):
    """The device says no. `reason` is for machines, the sentence for people."""

    code = "refused"

    def __init__(self, reason: Reason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.sentence = sentence
