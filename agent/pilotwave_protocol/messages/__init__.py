"""The payloads inside the envelopes, and the plain replies (docs/protocol.md gives each field).

Directive: server to device, signed by the director key. Check-in and enrol: device to server,
signed by the device key. Parsing proves the form only; who signed it is `dsse`'s to prove.
"""

from __future__ import annotations

from pilotwave_protocol.messages.check_in import (
    CHECK_IN_TYPE,
    MAX_CHECK_IN_BYTES,
    MAX_EVENTS,
    MAX_METRICS,
    MAX_REPORTS,
    SMALL_CHECK_IN_BYTES,
    CheckIn,
    DeviceEvent,
    Installed,
    MetricReport,
    ModelReport,
    check_challenge,
    check_number_name,
    parse_check_in,
)
from pilotwave_protocol.messages.check_in_reply import NUMBERING, CheckInReply, parse_check_in_reply
from pilotwave_protocol.messages.diagnostics import (
    DIAGNOSTICS_TYPE,
    MAX_DIAGNOSTICS_BYTES,
    MAX_SEALED_BYTES,
    Diagnostics,
    DiagnosticsWish,
    parse_diagnostics,
)
from pilotwave_protocol.messages.directive import (
    DIRECTIVE_TYPE,
    MAX_DIRECTIVE_BYTES,
    MAX_DIRECTIVE_ENVELOPE_BYTES,
    MAX_ENTRIES,
    SMALL_ENTRIES,
    Directive,
    Entry,
    parse_directive,
    plain_set,
    set_digest,
)
from pilotwave_protocol.messages.enrol import (
    ENROL_TYPE,
    MAX_ENROL_BYTES,
    Enrol,
    EnrolReply,
    parse_enrol,
    parse_enrol_reply,
)
from pilotwave_protocol.messages.facts import (
    AGENT_LONGEST,
    AGENT_MANIFEST,
    AGENT_PROFILE,
    AGENT_TIES,
    BATTERY_INTERVAL_S,
    MAX_FACTS,
    read_facts,
)
from pilotwave_protocol.messages.reading import MAX_REPLY_BYTES, M

__all__ = [
    "AGENT_LONGEST",
    "AGENT_MANIFEST",
    "AGENT_PROFILE",
    "AGENT_TIES",
    "BATTERY_INTERVAL_S",
    "CHECK_IN_TYPE",
    "DIAGNOSTICS_TYPE",
    "DIRECTIVE_TYPE",
    "ENROL_TYPE",
    "MAX_CHECK_IN_BYTES",
    "MAX_DIAGNOSTICS_BYTES",
    "MAX_DIRECTIVE_BYTES",
    "MAX_DIRECTIVE_ENVELOPE_BYTES",
    "MAX_ENROL_BYTES",
    "MAX_ENTRIES",
    "MAX_EVENTS",
    "MAX_FACTS",
    "MAX_METRICS",
    "MAX_REPLY_BYTES",
    "MAX_REPORTS",
    "MAX_SEALED_BYTES",
    "NUMBERING",
    "SMALL_CHECK_IN_BYTES",
    "SMALL_ENTRIES",
    "CheckIn",
    "CheckInReply",
    "DeviceEvent",
    "Diagnostics",
    "DiagnosticsWish",
    "Directive",
    "Enrol",
    "EnrolReply",
    "Entry",
    "Installed",
    "M",
    "MetricReport",
    "ModelReport",
    "check_challenge",
    "check_number_name",
    "parse_check_in",
    "parse_check_in_reply",
    "parse_diagnostics",
    "parse_directive",
    "parse_enrol",
    "parse_enrol_reply",
    "plain_set",
    "read_facts",
    "set_digest",
]
