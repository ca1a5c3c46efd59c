"""An agent comes back to a data folder that its successor has written to, and goes on from there.

A later agent may add fields to whatever it writes and must be able to do without them; that is how
the folder goes forward with a new agent, and back with the one before it.
"""

from __future__ import annotations

import json
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

from pilotwave_agent import identity
from pilotwave_agent.core.journal import Journal
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.resident.session import session_of
from pilotwave_protocol.states import ModelState
from tests.peers.device import Device
from tests.peers.registry import Registry, example

FOREIGN = ("tuf", "blobs", "models", "inbox")  # signed documents, and files as they were signed


def later(value: Any) -> Any:
    """The same as a later agent would write it: something more in each object."""
    if isinstance(value, dict):
        return {**{key: later(inner) for key, inner in value.items()}, "later": ["more", 1]}
    return [later(inner) for inner in value] if isinstance(value, list) else value


# by what else an object is keyed than by the names of its fields: models, roles, digests
KEYED = ("floors", "yanks", "epochs", "ordered", "tuf", "conditions", "models")


def later_record(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        found = {k: later_record(inner, k) for k, inner in value.items()}
        return found if key in KEYED else {**found, "later": ["more", 1]}
    return [later_record(inner, key) for inner in value] if isinstance(value, list) else value


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line[9:]) for line in path.read_bytes().splitlines()]


def write_lines(path: Path, records: list[Any]) -> None:
    lines = [json.dumps(record).encode() for record in records]
    path.write_bytes(b"".join(b"%08x %b\n" % (zlib.crc32(line), line) for line in lines))


def a_later_agent_writes(data: Path) -> int:
    """Have every file of the agent's own written anew by a later agent; return how many."""
    count = 0
    for path in sorted(data.rglob("*.json")):
        if path.relative_to(data).parts[0] not in FOREIGN and path.name != "root.json":
            path.write_text(json.dumps(later(json.loads(path.read_bytes()))))
            count += 1
    journal = data / "journal" / "log"
    records = [later_record(record) for record in lines_of(journal)]
    write_lines(journal, [*records, {"k": "a kind of later", "at": 1.0, "what": "ever"}])
    return count


def reports(device: Device) -> None:
    session = session_of(device.config, identity.load(device.layout))
    with closing(session.channel):
        assert session.check_in(device.state)


def test_what_a_later_agent_wrote_is_read_by_the_one_before_it(
    registry: Registry, device: Device
) -> None:
    old = registry.publish("detector", "1.0.0", example("1.0.0"))
    new = registry.publish("detector", "1.1.0", example("1.1.0"))
    for entry in (old, new):
        registry.order(entry)
        device.work(refresh=True, boot=True)
    registry.yank("detector", "1.0.0")
    device.work(refresh=True)
    reports(device)
    before, seq = device.state, registry.last_seq
    assert a_later_agent_writes(device.config.data_dir) >= 4
    assert device.state == before
    done = device.work(refresh=True, boot=True)
    assert done.retry is None, done
    assert Journal(Disk(), device.layout.journal).damaged == 0
    assert device.slot().state is ModelState.HEALTHY
    assert device.state.memory.has_yanked("detector", old.sha256)
    reports(device)
    assert registry.last_seq > seq
    # compacted, it is this agent's own again
    journal = Journal(Disk(), device.layout.journal)
    state = journal.state
    journal.compact()
    assert device.state == state
    assert b"later" not in device.layout.journal.read_bytes()
