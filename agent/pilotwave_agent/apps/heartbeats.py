"""Read what applications say of themselves in `live/<model>/`: who lives, serves, refused, crashed.

Their files are another program's, and often another user's: each is bounded, and one that makes no
sense is passed over. `live` itself is the agent's alone. In `live/<model>` members of a group may
make files, and the sticky bit keeps each from removing another's.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotwave_agent.host.shared_folder import SharedFolder, remove_tree
from pilotwave_protocol.errors import ProtocolError
from pilotwave_protocol.names import check_model
from pilotwave_protocol.shadow import SHADOW_FILE

MAX_FILES = 256
MAX_BYTES = 64 << 10
_LATE_BEATS = 3
_GRACE_S = 5.0
_WELL_ENDED = "stopped"
_ENDED = (_WELL_ENDED, "crashed")
_OWN = 0o755
_SHARED = 0o1775  # only its owner removes or replaces what is made inside
_ASIDE = ".gone-"
_KEEP_S = 86_400.0

Users = Mapping[str, Collection[int]]
"""Who may speak for a model: user ids. A model that is not named: whoever can write there."""


@dataclass(frozen=True)
class AppRefusal:
    """A version's folder that an application could not take, when (uptime) and why."""

    name: str
    at: float
    sentence: str


@dataclass(frozen=True)
class AppShadow:
    """The folder of the candidate that an application tries, and what is wrong, if anything."""

    name: str
    sentence: str


@dataclass(frozen=True)
class App:
    """One process of an application, as its file says. Times are seconds of uptime."""

    path: Path
    app: str
    state: str
    serving: str | None
    refused: AppRefusal | None
    started: float
    beat: float
    heartbeat_s: float
    pid: int | None = None
    start: str | None = None
    ns: str | None = None
    shadow: AppShadow | None = None

    def lives(self, now: float | None = None) -> bool:
        """Say whether the process is there and has given a sign of life in time."""
        if self.state in _ENDED or self.gone():
            return False
        now = uptime() if now is None else now
        patience = self.heartbeat_s * _LATE_BEATS + _GRACE_S
        return now - patience <= self.beat <= now + 1.0

    def gone(self) -> bool:
        """Say whether the kernel knows that the process has ended."""
        if self.pid is None or self.ns is None or self.ns != _own_ns():
            return False  # of another container: only its signs of life tell
        return self.start != _start_of(self.pid)

    def crashed(self, now: float | None = None) -> bool:
        """Say whether it ended without saying so."""
        return self.state == "crashed" or (self.state != _WELL_ENDED and not self.lives(now))


def uptime() -> float:
    """Return seconds since the machine started, suspended ones included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def prepare(live: Path, model: str, group: str) -> None:
    """Make the folder where a model's applications leave their heartbeats. Members of `group` may
    write there; without one, only the agent's own user may. No model: the folder of all, in which
    nobody else may write. What lies in place of either is moved out of the way. May raise
    `OSError`."""
    gid = _gid(group)
    _made(live, None, gid)
    if not model:
        return
    with SharedFolder(live) as all_of_them:
        _clear(all_of_them, model)
        _made(Path(model), all_of_them.fd, gid, shared=True)


def prepare_all(live: Path, models: Iterable[str], group: str) -> None:
    """Do so for each model that is on this device, and tidy up: links and others' folders in `live`
    are from a time when others could write there. May raise `OSError`."""
    prepare(live, "", group)
    with SharedFolder(live) as folder:
        for name in [n for n in os.listdir(folder.fd) if not n.startswith(_ASIDE)]:
            found = folder.stat(name)
            if found and (stat.S_ISLNK(found.st_mode) or stat.S_ISDIR(found.st_mode)):
                _clear(folder, name)
    for model in models:
        prepare(live, model, group)
        tidy(live, model)
    with SharedFolder(live) as folder:
        for name in [n for n in os.listdir(folder.fd) if n.startswith(_ASIDE)]:
            with contextlib.suppress(OSError):
                remove_tree(name, within=folder.fd)


def tidy(live: Path, model: str) -> None:
    """Remove old heartbeat files and what a user has made too much of; a folder that cannot be
    cleared is replaced. May raise `OSError`."""
    with SharedFolder(live) as all_of_them:
        with SharedFolder(Path(model), within=all_of_them.fd) as folder:
            if folder.tidy(time.time(), keep_s=_KEEP_S, but=SHADOW_FILE):
                return
            found = os.fstat(folder.fd)
        os.rename(model, _aside(), src_dir_fd=all_of_them.fd, dst_dir_fd=all_of_them.fd)
        shared = bool(found.st_mode & stat.S_IWGRP)
        _made(Path(model), all_of_them.fd, found.st_gid if shared else None, shared=shared)


def models(live: Path) -> list[str]:
    """Name the models that have a folder; what else lies there is none of them."""
    found = []
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(live)):
            with contextlib.suppress(OSError, ProtocolError):
                if stat.S_ISDIR(os.lstat(live / check_model(name)).st_mode):
                    found.append(name)
    return found


def _gid(group: str) -> int | None:
    if not group:
        return None
    import grp

    return grp.getgrnam(group).gr_gid


def _clear(live: SharedFolder, model: str) -> None:
    """Move away what is no folder of the agent's own: a link, or a folder that somebody made."""
    found = live.stat(model)
    if found is None:
        return
    if not stat.S_ISDIR(found.st_mode):
        os.unlink(model, dir_fd=live.fd)
    elif found.st_uid not in (os.geteuid(), 0):
        os.rename(model, _aside(), src_dir_fd=live.fd, dst_dir_fd=live.fd)


def _aside() -> str:
    return f"{_ASIDE}{os.urandom(8).hex()}"


def _made(path: Path, within: int | None, gid: int | None, *, shared: bool = False) -> None:
    """Make a folder, or give one that is there the group and the mode that it should have."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, _OWN, dir_fd=within)
    with SharedFolder(path, within=within) as folder:
        found = os.fstat(folder.fd)
        mode = stat.S_IMODE(found.st_mode)
        others = bool(mode & stat.S_IWOTH)
        if gid is not None and shared:
            if (found.st_gid, mode) != (gid, _SHARED):
                os.fchown(folder.fd, -1, gid)
                os.fchmod(folder.fd, _SHARED)
        elif others or (mode & stat.S_IWGRP and found.st_gid != os.getegid()):
            os.fchmod(folder.fd, mode & 0o755)


def read(folder: Path, users: Collection[int] | None = None) -> list[App]:
    """Return the applications with a heartbeat file for a model, by file name. With `users`, only
    what they (and the agent's own user, which writes what comes by the socket) wrote counts."""
    return [app for path in names(folder, ".json") if (app := _app(path, users))]


def names(folder: Path, ending: str) -> Iterator[Path]:
    """Yield a folder's visible files of one ending, at most `MAX_FILES`."""
    try:
        with SharedFolder(folder) as shared:
            found = shared.names(ending, MAX_FILES)
    except OSError:
        return
    for name in found:
        yield folder / name


def load(path: Path, users: Collection[int] | None = None) -> Any:
    """Return the JSON of a small regular file, of one of `users` if any are named; None for
    anything else."""
    try:
        with SharedFolder(path.parent) as folder:
            found = folder.read(path.name, MAX_BYTES)
        if found is None or not heard(found[1], users):
            return None
        return json.loads(found[0])
    except (ValueError, RecursionError, OSError):
        return None


def heard(uid: int, users: Collection[int] | None) -> bool:
    """Say whether a user may speak for a model."""
    return users is None or uid in users or uid in (0, os.geteuid())


def _app(path: Path, users: Collection[int] | None) -> App | None:
    found = load(path, users)
    if not isinstance(found, dict) or found.get("schema") != "pilotwave/app/1":
        return None
    try:
        no, tried = found.get("refused"), found.get("shadow")
        return App(
            path=path,
            app=printable(found["app"], 64),
            state=printable(found["state"], 32),
            serving=None if found.get("serving") is None else printable(found["serving"], 256),
            refused=AppRefusal(
                printable(no["name"], 256), float(no["at"]), printable(no["sentence"], 400)
            )
            if no
            else None,
            started=float(found["started"] if "started" in found else found["beat"]),
            beat=float(found["beat"]),
            heartbeat_s=min(max(float(found["heartbeat_s"]), 0.05), 3600.0),
            pid=int(found["pid"]) if "pid" in found else None,
            start=str(found["start"]) if "start" in found else None,
            ns=str(found["ns"]) if "ns" in found else None,
            shadow=AppShadow(printable(tried["name"], 256), printable(tried["sentence"], 400))
            if tried
            else None,
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def printable(text: object, limit: int) -> str:
    """Return text from another program as one that may be shown."""
    return "".join(c for c in str(text) if c.isprintable())[:limit]


def _own_ns() -> str | None:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def _start_of(pid: int) -> str | None:
    """Return when a process began (clock ticks, as /proc has it); None if there is none."""
    with contextlib.suppress(OSError, IndexError):
        stat_line = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        fields = stat_line.rpartition(")")[2].split()
        return None if fields[0] in ("Z", "X") else fields[19]
    return None
