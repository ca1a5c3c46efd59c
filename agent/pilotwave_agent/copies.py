"""Notice that a data folder was made on another machine, and give a copy an identity of its own.

Beside the key lie digests of what tells this machine from others: systemd's machine id and the
board's serial number, as far as there are any. A copy of an image whose machine id was not made
anew cannot be told this way; the server notices it (docs/device.md).
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from pilotwave_agent.hardware.texts import text
from pilotwave_agent.host import lock
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.identity import BadIdentity
from pilotwave_protocol import strictjson
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.errors import ProtocolError

_MARKS = {"machine_id": "etc/machine-id", "serial": "proc/device-tree/serial-number"}
_MAX_BYTES = 4096


def is_copy(layout: Layout, root: Path = Path("/")) -> bool:
    """Say whether the folder's identity was made on another machine, as far as can be told."""
    known, here = _kept(layout.machine), _marks(root)
    return any(known[name] != here[name] for name in known.keys() & here.keys())


def note(disk: Disk, layout: Layout, root: Path = Path("/"), *, anew: bool = False) -> None:
    """Remember which machine this is, if nothing is known yet or it is to be known `anew`."""
    marks = _marks(root)
    if marks and (anew or disk.size(layout.machine) is None):
        with contextlib.suppress(OSError):  # it only helps to notice copies
            disk.write_atomic(layout.machine, strictjson.dumps(marks), 0o644)


def forget_identity(disk: Disk, layout: Layout) -> None:
    """Remove key, name and numbers; models and what must never be forgotten stay."""
    if lock.holder(layout.run_lock) is not None:
        raise BadIdentity(f"{layout.root}: an agent runs here; stop it first, then enrol again")
    for path in (layout.inbox, layout.enrolled, layout.seq, layout.machine, layout.key):
        if disk.size(path) is not None:
            disk.unlink(path)


def _marks(root: Path) -> dict[str, str]:
    found = {name: text(root / path) for name, path in _MARKS.items()}
    return {name: sha256_hex(words.encode()) for name, words in found.items() if words}


def _kept(path: Path) -> dict[str, str]:
    try:
        found = strictjson.loads(path.read_bytes(), max_bytes=_MAX_BYTES)
    except (OSError, ProtocolError):
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}
