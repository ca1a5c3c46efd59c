"""Hold the data folder against what it must be: its user's alone, without a door out of it.

Whoever may write there could give the agent orders, and a link there would have it write elsewhere.
What is in the files is checked where they are read.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from pilotwave_agent.apps import heartbeats
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.host.shared_folder import SharedFolder
from pilotwave_protocol import names
from pilotwave_protocol.errors import PilotwaveError, ProtocolError

Kind = Callable[[int], bool]


class BadCustody(PilotwaveError):
    """Someone else may write where only the agent should; the sentence says what to do."""

    code = "bad_custody"


def check(layout: Layout) -> None:
    """Refuse a data folder that is another user's, that others may write to, or that has links
    where folders and files should be. What is not there yet is fine. Where applications may write,
    the sticky bit is set: earlier releases did not. Raises `BadCustody`."""
    try:
        found = os.stat(layout.root)  # the data folder itself may be named by a link
    except OSError:
        return
    _check_kind(layout.root, found, stat.S_ISDIR)
    _check_owner(layout.root, found)
    for path in _folders(layout):
        _check_inside(path, stat.S_ISDIR)
    for path in (layout.live, *_of_applications(layout)):
        _check_inside(path, stat.S_ISDIR, shared=True)
    for path in _files(layout):
        _check_inside(path, stat.S_ISREG)


def close_up(layout: Layout, group: str) -> None:
    """Have applications write in folders of their own only, as `heartbeats.prepare` makes them:
    earlier releases let them write in `live` itself. What cannot be mended is left to `check`."""
    with contextlib.suppress(OSError, KeyError):
        if os.lstat(layout.live).st_uid in (os.geteuid(), 0):
            heartbeats.prepare_all(layout.live, _models(layout), group)


def _of_applications(layout: Layout) -> Iterator[Path]:
    """Yield the folders of models in which applications may write."""
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(layout.live)):
            if name[0] != "." and (layout.live / name).is_dir():
                yield layout.live / name


def _models(layout: Layout) -> list[str]:
    found = []
    for name in sorted(os.listdir(layout.models)):
        with contextlib.suppress(ProtocolError):
            found.append(names.check_model(name))
    return found


def check_settings(path: Path) -> None:
    """Refuse a settings file that others may write: it names programs that the agent runs."""
    try:
        found = os.stat(path)
    except OSError:
        return
    if found.st_uid not in (os.geteuid(), 0) and os.geteuid() != 0:
        sentence = f"{path}: belongs to user {_name(found.st_uid)}; expected {_name(os.geteuid())}"
        raise BadCustody(f"{sentence} or root: what it says is run as this user")
    _check_mode(path, found)


def _folders(layout: Layout) -> Iterator[Path]:
    of_files = (layout.key, layout.journal, layout.inbox, layout.telemetry, layout.trial)
    yield from (path.parent for path in of_files)
    yield from (layout.tuf, layout.root / "trust", layout.blobs, layout.models)
    yield from (layout.programs, layout.captures)
    yield from (layout.signed_plans.parent, layout.plans, layout.all_adapting)
    try:
        models = sorted(os.listdir(layout.models))
    except OSError:
        return
    for model in models:
        yield from (layout.models / model, layout.versions(model), layout.abouts(model))
        yield layout.overlays(model)


def _files(layout: Layout) -> Iterator[Path]:
    yield from (layout.key, layout.pinned_root, layout.enrolled, layout.seq, layout.journal)
    yield from (layout.inbox, layout.telemetry, layout.run_lock, layout.work_lock, layout.status)
    yield from (layout.confinement, layout.trial, layout.capture_rules)
    yield layout.tier_rules


def _check_inside(path: Path, kind: Kind, *, shared: bool = False) -> None:
    try:
        found = os.lstat(path)
    except OSError:
        return
    _check_kind(path, found, kind)
    _check_owner(path, found, shared=shared)


def _check_kind(path: Path, found: os.stat_result, kind: Kind) -> None:
    if stat.S_ISLNK(found.st_mode):
        sentence = f"{path}: is a link to {os.readlink(path)}; nothing here may lead elsewhere"
        raise BadCustody(f"{sentence}: remove it (data_dir itself may lie anywhere)")
    if not kind(found.st_mode):
        what = "folder" if kind is stat.S_ISDIR else "file"
        raise BadCustody(f"{path}: expected a {what}; move away what is there")


def _check_owner(path: Path, found: os.stat_result, *, shared: bool = False) -> None:
    mine = os.geteuid()
    if found.st_uid not in (mine, 0):
        owner = _name(found.st_uid)
        sentence = f"{path}: belongs to user {owner}, and this is user {_name(mine)}"
        raise BadCustody(f"{sentence}: run it as that user (sudo -u {owner} …), or chown it")
    _check_mode(path, found, shared=shared)


def _check_mode(path: Path, found: os.stat_result, *, shared: bool = False) -> None:
    others = bool(found.st_mode & stat.S_IWOTH)
    # a group of the user's own, as many systems give each user, is no other's
    group = bool(found.st_mode & stat.S_IWGRP) and found.st_gid != os.getegid()
    if shared and group and not others:
        # each may make files there, and with the sticky bit none may remove another's
        if not (found.st_mode & stat.S_ISVTX or _made_sticky(path)):
            raise BadCustody(f"{path}: has no sticky bit; run: chmod +t {path}")
    elif others or group:
        who = "every user" if others else f"group {found.st_gid}"
        raise BadCustody(f"{path}: {who} may write to it; run: chmod go-w {path}")


def _made_sticky(path: Path) -> bool:
    try:
        with SharedFolder(path) as folder:
            os.fchmod(folder.fd, stat.S_IMODE(os.fstat(folder.fd).st_mode) | stat.S_ISVTX)
    except OSError:
        return False
    return True


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
