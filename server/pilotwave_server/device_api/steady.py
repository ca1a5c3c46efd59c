"""Read a check-in of the kind that most are: without facts, windows and refusals, byte for byte as
agents write it, its models like those of many other devices. That takes a fraction of the time.

What is read here, `parse_check_in` would read in the same way. Everything else, right or wrong, is
left to that.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as BadBase64
from functools import lru_cache
from typing import Any

from pilotwave_protocol import names, strictjson
from pilotwave_protocol.dsse import Signature, Unverified
from pilotwave_protocol.errors import BadMessage, ProtocolError
from pilotwave_protocol.fields import MAX_INT, Fields
from pilotwave_protocol.messages.check_in import (
    CHECK_IN_TYPE,
    CheckIn,
    DeviceEvent,
    ModelReport,
    read_events,
    read_models,
)

MAX_BYTES = 4096
"""A larger payload is not looked at, so that what is remembered of models stays small."""
KNOWN_MODELS = 1024

_BASE64 = rb"([A-Za-z0-9+/]*={0,2})"
_ENVELOPE = re.compile(
    rb'\{"payload":"%b","payloadType":"%b","signatures":\[\{"keyid":"([0-9a-f]{64})","sig":"%b"\}\]\}'
    % (_BASE64, re.escape(CHECK_IN_TYPE.encode()), _BASE64)
)
_NUMBER = rb"(0|[1-9][0-9]{0,15})"
_RANDOM = rb"([0-9a-f]{8,64})"
# no quote, and no backslash: what stands between quotes is the text itself
_HEAD = re.compile(
    rb'\{"agent":"([ !#-\[\]-~]{0,64})"(?:,"boot":"%b")?,"device":"([a-z0-9._-]+)"'
    rb',"directive_seq":%b,"dropped_events":%b' % (_RANDOM, _NUMBER, _NUMBER)
)
_MODELS = re.compile(rb'(\[[^\\]*\])(?:,"numbering":"%b")?' % _RANDOM)
_TAIL = re.compile(
    rb'"seq":%b,"tuf":\{"root":%b,"snapshot":%b,"timestamp":%b\}\}'
    % (_NUMBER, _NUMBER, _NUMBER, _NUMBER)
)


def read_steady(raw: bytes) -> tuple[Unverified, CheckIn] | None:
    """Return what the envelope claims and its payload, unverified; None: read it as any other."""
    found = _ENVELOPE.fullmatch(raw) if len(raw) <= 2 * MAX_BYTES else None
    if found is None:
        return None
    try:
        payload, signature = (b64decode(found[n], validate=True) for n in (1, 3))
        check_in = _check_in(payload) if len(payload) <= MAX_BYTES else None
    except (BadBase64, ProtocolError):
        return None
    if check_in is None:
        return None
    return Unverified(payload, (Signature(found[2].decode(), signature),)), check_in


def _check_in(payload: bytes) -> CheckIn | None:
    before, _, rest = payload.partition(b',"events":')
    events, _, rest = rest.partition(b',"facts":null,"fleet":"')
    fleet, _, rest = rest.partition(b'","metrics":[],"models":')
    models, _, after = rest.partition(b',"refusal":null,"schema":"pilotwave/check-in/1",')
    head, middle, tail = _HEAD.fullmatch(before), _MODELS.fullmatch(models), _TAIL.fullmatch(after)
    if head is None or middle is None or tail is None or b"\\" in events:
        return None
    agent, boot, device, *counts = head.groups()
    seq, root, snapshot, timestamp = numbers = [int(text) for text in tail.groups()]
    directive_seq, dropped = map(int, counts)
    if max(directive_seq, dropped, *numbers) > MAX_INT or seq < 1:
        return None
    return CheckIn(
        fleet=names.check_fleet(_text(fleet)),
        device=names.check_device(_text(device)),
        seq=seq,
        agent=_text(agent),
        directive_seq=directive_seq,
        tuf={"root": root, "timestamp": timestamp, "snapshot": snapshot},
        models=_models_of(middle[1]),
        events=() if events == b"[]" else _events_of(events),
        dropped_events=dropped,
        numbering=_text(middle[2]) if middle[2] else None,
        boot=_text(boot) if boot else None,
    )


def _text(found: bytes) -> str:
    """Read what stood between quotes; what is not ASCII makes no name."""
    return found.decode("ascii", "replace")


@lru_cache(maxsize=KNOWN_MODELS)
def _models_of(text: bytes) -> tuple[ModelReport, ...]:
    return read_models(_field("models", text))


def _events_of(text: bytes) -> tuple[DeviceEvent, ...]:
    return read_events(_field("events", text))


def _field(name: str, text: bytes) -> Fields:
    value: Any = strictjson.loads(text, max_bytes=MAX_BYTES, max_depth=7)
    return Fields({name: value}, "", BadMessage)
