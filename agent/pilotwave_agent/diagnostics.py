"""Answer a wish for diagnostics: the last lines of the log and how this device is, sealed for the
key that asks, where the owner names that key in the settings.

The wish itself is not signed. Whoever forges one gets bytes that only the named reader opens.
"""

from __future__ import annotations

import json
import zlib
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pilotwave_agent.check_in.build import status_of
from pilotwave_agent.core.state import DeviceState
from pilotwave_agent.facts import agent_version, facts_of
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.host.log import kept_lines
from pilotwave_agent.identity import Identity
from pilotwave_agent.settings.config import Config
from pilotwave_protocol import dsse
from pilotwave_protocol.errors import SealingError
from pilotwave_protocol.fields import format_time
from pilotwave_protocol.messages.diagnostics import (
    DIAGNOSTICS_TYPE,
    Diagnostics,
    DiagnosticsWish,
)
from pilotwave_protocol.sealing import seal, sealed_about

# what may be told; other settings could hold a secret
SETTINGS = (
    *("server", "profile", "metered", "timezone", "mirrors", "deltas", "delta_memory_mb"),
    *("keep_free_mb", "max_model_mb", "max_models_mb", "allow_removal", "allow_unsafe_formats"),
    *("max_poll_interval_s", "max_check_in_interval_s", "network_timeout_s", "probation_s"),
    *("selftest_timeout_s", "selftest_memory_mb", "selftest_cpu_s", "selftest_filter_calls"),
)
_OVERHEAD = 1024
NOT_NAMED = (
    "the settings of this device do not name this key: its owner adds it to `readers` "
    "in the section [diagnostics] of agent.toml"
)


def answer_to(
    wish: DiagnosticsWish,
    config: Config,
    who: Identity,
    state: DeviceState,
    *,
    fleet: str,
    root: Path = Path("/"),
) -> bytes:
    """Return the signed answer: what was asked for, or why not."""
    public = dsse.raw_public(who.key.public_key()).hex()
    sealed, refused = b"", None
    if wish.reader not in config.diagnostics.readers:
        refused = NOT_NAMED
    else:
        about = sealed_about(fleet, who.device, wish.id)
        try:
            sealed = seal(_packed(config, state, root), wish.reader, about=about)
        except SealingError as e:
            refused = f"it cannot be sealed: {e}"
    answer = Diagnostics(fleet, who.device, wish, public, sealed, refused)
    return dsse.sign(DIAGNOSTICS_TYPE, answer.to_bytes(), who.key)


def _packed(config: Config, state: DeviceState, root: Path) -> bytes:
    """Return all of it, compressed; the oldest lines go until it fits."""
    found = _collect(config, state, root)
    most = (config.diagnostics.max_kb << 10) - _OVERHEAD
    while True:
        packed = zlib.compress(json.dumps(found).encode(), 9)
        if len(packed) <= most or not found["lines"]:
            return packed
        found["lines"] = found["lines"][len(found["lines"]) // 4 + 1 :]


def _collect(config: Config, state: DeviceState, root: Path) -> dict[str, Any]:
    layout = Layout(config.data_dir)
    return {
        "at": format_time(datetime.now(timezone.utc)),
        "agent": agent_version(),
        "status": status_of(state),
        "facts": dict(facts_of(config, root=root)),
        "settings": {name: _plain(getattr(config, name)) for name in SETTINGS},
        "disk_free_bytes": Disk().free_bytes(layout.root),
        "lines": kept_lines(layout.log),
    }


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
