"""Keep captured cases until the server has them: applications leave them sealed in `live/<model>`,
and the folder `captures` holds what waits, within the owner's budget.

Each step can be repeated after a power cut: a case has the name of its digest, it is on the medium
before the application's own file goes, and goes itself only when the server has it. So none is
half-written, and one that is sent twice is one case to the server.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pilotwave_agent.apps import heartbeats
from pilotwave_agent.apps.rules import write_rules
from pilotwave_agent.core.conditions import FETCH, hold, own_hold
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.host.log import say
from pilotwave_agent.host.shared_folder import SharedFolder
from pilotwave_agent.identity import Identity
from pilotwave_agent.live.capture import ENDING, MAX_WAITING
from pilotwave_agent.live.capture_rules import CaptureRules, drifting_bytes
from pilotwave_agent.net import server_api
from pilotwave_agent.net.http import BadAnswer, Channel, Unreachable
from pilotwave_agent.net.server_api import ServerSaid
from pilotwave_agent.read_conditions import look_around
from pilotwave_agent.settings.capture import DRIFT
from pilotwave_agent.settings.config import Config
from pilotwave_agent.settings.download_limits import OwnLimits
from pilotwave_protocol import dsse
from pilotwave_protocol.errors import ProtocolError
from pilotwave_protocol.messages.case import (
    CASE_TYPE,
    MAX_CASE_BYTES,
    Case,
    join_case,
    parse_case,
    split_case,
)

MOST_AT_ONCE = 8
MOST_KEPT = 4096
_LONGEST_S = 30.0  # the agent does nothing else meanwhile
_DAY_S = 86_400.0
_HOUR_S = _REFUSED_S = 3600.0
_TOO_OLD_S = _DAY_S  # a server that knows nothing of cases is asked again so late
_NEVER_TAKEN = (413, 422)


@dataclass(frozen=True)
class Kept:
    """A case that waits: its file, its size, and what is said of it in the open."""

    path: Path
    size: int
    case: Case


def tell_applications(config: Config, layout: Layout, who: Identity, disk: Disk) -> None:
    """Write down what applications are to capture. Where the owner wants nothing captured, what
    waits is removed as well. May raise `OSError`."""
    settings, path = config.capture, layout.capture_rules
    if not settings.reader:
        for told in (path, layout.drifting):
            write_rules(config, disk, told, None)
        forget(disk, layout, None)
        return
    rules = CaptureRules(
        fleet=who.fleet,
        device=who.device,
        public_key=_public(who),
        reader=settings.reader,
        reasons=settings.reasons,
        below=settings.below,
        share=settings.share,
        max_case_bytes=settings.max_case_kb << 10,
        max_bytes=settings.max_mb << 20,
        max_bytes_per_day=settings.max_mb_per_day << 20,
    )
    write_rules(config, disk, path, rules.to_bytes())


def kept(disk: Disk, layout: Layout) -> Iterator[Kept]:
    """Yield the cases that wait, those that applications still have included, oldest first."""
    folders = [layout.captures, *(layout.live / m for m in heartbeats.models(layout.live))]
    for folder in folders:
        for path in _by_age(disk, folder):
            with contextlib.suppress(OSError, ProtocolError):
                raw = _read(path)
                yield Kept(path, len(raw), parse_case(*split_case(raw)))


def forget(disk: Disk, layout: Layout, ids: set[str] | None) -> int:
    """Remove the cases with these ids, or all of them; return how many there were."""
    folders = [layout.captures, *(layout.live / m for m in heartbeats.models(layout.live))]
    gone = 0
    for folder in folders:
        found = [path for path in _by_age(disk, folder) if ids is None or path.stem in ids]
        for path in found:
            disk.unlink(path)
        if found:
            disk.sync_dir(folder)
        gone += len(found)
    return gone


class Captures:
    """The cases of one device on their way to the server."""

    def __init__(self, config: Config, who: Identity, disk: Disk) -> None:
        self._config, self._who, self._disk = config, who, disk
        self._layout = Layout(config.data_dir)
        self._not_before = 0.0
        self._told_drift: bytes | None = b""  # nothing yet, since the start

    def collect(self, wall: float) -> None:
        """Take what applications left, and hold what waits to the owner's budget. A disk that says
        no is asked another time."""
        with contextlib.suppress(OSError):
            self._disk.make_dirs(self._layout.captures)
            for model in heartbeats.models(self._layout.live):
                self._collect(model)
            self._prune(wall)

    def tell_drift(self, drifting: dict[str, str]) -> None:
        """Tell applications which version folder of each model meets inputs that drift, where the
        owner wants such cases. A disk that says no is asked another time."""
        if DRIFT not in self._config.capture.reasons:
            drifting = {}
        raw = drifting_bytes(drifting) if drifting else None
        if raw != self._told_drift:
            with contextlib.suppress(OSError):
                write_rules(self._config, self._disk, self._layout.drifting, raw)
                self._told_drift = raw

    def _collect(self, model: str) -> None:
        users = self._config.app_users.get(model)
        with SharedFolder(self._layout.live / model) as folder:
            for name in folder.names(ENDING, MAX_WAITING):
                raw, uid = _left(folder, name)
                case = self._wanted(raw)
                if case and case.model == model and heartbeats.heard(uid, users):
                    if not self._has_room(len(raw)):
                        return
                    self._disk.write_atomic(self._layout.captures / f"{case.id}{ENDING}", raw)
                folder.remove(name)

    def _wanted(self, raw: bytes) -> Case | None:
        """Return the case, if it is one of this device's that its owner wants captured."""
        settings, who = self._config.capture, self._who
        try:
            case = parse_case(*split_case(raw))
        except ProtocolError:
            return None
        own = (case.fleet, case.device, case.public_key) == (who.fleet, who.device, _public(who))
        wanted = case.reader == settings.reader and case.reason in settings.reasons
        return case if own and wanted and len(raw) <= settings.max_mb << 20 else None

    def _has_room(self, size: int) -> bool:
        free = self._disk.free_bytes(self._layout.captures)
        return free - size >= self._config.keep_free_mb << 20

    def _prune(self, wall: float) -> None:
        """Remove what is too old, what a crash left, and the oldest of what is too much."""
        folder, settings = self._layout.captures, self._config.capture
        for name in self._disk.names(folder):
            if name[0] == ".":
                self._disk.unlink(folder / name)
        left = count = 0
        for path in reversed(_by_age(self._disk, folder)):
            found = os.lstat(path)
            left, count = left + found.st_size, count + 1
            old = wall - found.st_mtime > settings.keep_days * _DAY_S
            if old or left > settings.max_mb << 20 or count > MOST_KEPT:
                self._disk.unlink(path)

    def send(self, channel: Channel, token: str, *, now: float, wall: float, root: Path) -> None:
        """Send some of what waits, if the device may now. `now` in seconds of uptime."""
        held_s = self._config.capture.hold_hours * _HOUR_S
        until = wall - held_s if held_s else math.inf
        waiting = _by_age(self._disk, self._layout.captures, until=until)
        if not waiting or now < self._not_before:
            return
        world = look_around(self._config, wall, root=root)
        windows = OwnLimits(windows=self._config.capture.windows)
        if hold({"network": "unmetered"}, world, FETCH) or own_hold(windows, world, FETCH):
            return
        begun = time.monotonic()
        try:
            for path in waiting[:MOST_AT_ONCE]:
                if time.monotonic() - begun > _LONGEST_S or not self._send(
                    channel, token, path, wall
                ):
                    return
        except ServerSaid as e:
            wait = _TOO_OLD_S if e.status == 404 else e.retry_after_s or _REFUSED_S
            self._not_before = now + wait
            say(f"captured cases wait: {e}", level="warning")
        except (Unreachable, BadAnswer, OSError):
            return  # the next check-in tries again

    def _send(self, channel: Channel, token: str, path: Path, wall: float) -> bool:
        """Send one; False where the day's budget is used up."""
        raw = _read(path)
        if self._wanted(raw) is None:
            self._remove(path)  # the owner has changed the settings since
            return True
        statement, sealed = split_case(raw)
        if not self._count(len(raw), wall):
            return False
        signed = join_case(dsse.sign(CASE_TYPE, statement, self._who.key), sealed)
        try:
            server_api.send_case(channel, token, signed)
        except ServerSaid as e:
            if e.status not in _NEVER_TAKEN:
                raise
            say(f"a captured case is dropped: {e}", level="warning")
        self._remove(path)
        return True

    def _remove(self, path: Path) -> None:
        self._disk.unlink(path)
        self._disk.sync_dir(path.parent)

    def _count(self, size: int, wall: float) -> bool:
        """Take so many bytes from the day's budget, on disk before they are sent; False where too
        few are left."""
        path, day = self._layout.captures_sent, int(wall // _DAY_S)
        sent = 0
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            said = json.loads(self._disk.read(path))
            sent = int(said["bytes"]) if said["day"] == day else 0
        if sent + size > self._config.capture.max_mb_per_day << 20:
            return False
        self._disk.write_atomic(path, json.dumps({"day": day, "bytes": sent + size}).encode())
        return True


def _public(who: Identity) -> str:
    return dsse.raw_public(who.key.public_key()).hex()


def _by_age(disk: Disk, folder: Path, *, until: float = math.inf) -> list[Path]:
    """Return the cases in a folder that came `until` then, those that came first, first."""
    aged = []
    for name in disk.names(folder):
        if name[0] != "." and name.endswith(ENDING):
            with contextlib.suppress(OSError):
                aged.append((os.lstat(folder / name).st_mtime_ns, folder / name))
    return [path for at, path in sorted(aged) if at <= until * 1e9]


def _left(folder: SharedFolder, name: str) -> tuple[bytes, int]:
    """Return what an application left, and whose it is; nothing for what is no file of its own."""
    try:
        return folder.read(name, MAX_CASE_BYTES) or (b"", -1)
    except OSError:
        return b"", -1


def _read(path: Path) -> bytes:
    with SharedFolder(path.parent) as folder:
        found = folder.read(path.name, MAX_CASE_BYTES)
    if found is None:
        raise OSError(f"{path}: expected a file of at most {MAX_CASE_BYTES} bytes")
    return found[0]
