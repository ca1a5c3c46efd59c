"""Write the text of a systemd unit: from a few facts, nothing is touched here.

Every unit gives its service a user of its own, one folder to write to and no privilege. What a
service needs beside that it adds in `own`, with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pilotwave_protocol.errors import PilotwaveError

STATE = Path("/var/lib")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
_HOMES = ("/home", "/root", "/run/user")
_SANDBOX = (
    # keys in memory shall lie in no dump
    "LimitCORE=0",
    "NoNewPrivileges=yes",
    "ProtectSystem=strict",
    "PrivateTmp=yes",
    "PrivateMounts=yes",
    "ProtectProc=invisible",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectControlGroups=yes",
    "LockPersonality=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "RemoveIPC=yes",
    "KeyringMode=private",
    "DevicePolicy=closed",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@privileged @resources",
    # background work steps back, the limit of open files is raised, a model's memory is bounded
    "SystemCallFilter=setpriority setrlimit prlimit64 sched_setaffinity",
    "SystemCallErrorNumber=EPERM",
)


class CannotInstall(PilotwaveError):
    """Something about the wish that no unit can be written for."""

    code = "cannot_install"


@dataclass(frozen=True)
class Unit:
    """A service; paths are as the running system will see them, whatever root they are written
    below. `command` is started as `user`, which may write to `data` (made with the mode
    `data_mode`); `uses` are further paths that it has to reach, `after` what it waits for at boot,
    `capability` the one that it keeps. `ends_with` ends the command as it is, unquoted; `own` are
    further lines."""

    description: str
    command: Sequence[str]
    data: Path
    user: str
    data_mode: str
    after: str = ""
    uses: Sequence[Path] = ()
    capability: str = ""
    own: Sequence[str] = field(default_factory=tuple)
    ends_with: str = ""


def unit_text(unit: Unit) -> str:
    """Return the unit as systemd reads it. Raises `CannotInstall`."""
    for path in (unit.data, *unit.uses):
        checked(path)
    if not _USER.fullmatch(unit.user):
        raise CannotInstall(f"--user: expected a name like pilotwave; got {ascii(unit.user)[:40]}")
    after = " ".join(filter(None, ("network-online.target time-sync.target", unit.after)))
    lines = [
        "[Unit]",
        f"Description={unit.description}",
        "Wants=network-online.target",
        f"After={after}",
        f"RequiresMountsFor={quoted(str(unit.data))}",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=notify",
        "NotifyAccess=main",
        f"ExecStart={' '.join(map(quoted, unit.command))}{unit.ends_with}",
        "TimeoutStartSec=120",
        "TimeoutStopSec=30",
        "KillMode=mixed",
        "Restart=always",
        "RestartSec=5",
        f"User={unit.user}",
        f"Group={unit.user}",
        "Environment=PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1",
        *_storage(unit),
        *_SANDBOX,
        f"CapabilityBoundingSet={unit.capability}",
        f"AmbientCapabilities={unit.capability}",
        f"ProtectHome={_homes(unit)}",
        *unit.own,
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"


def sysusers_text(unit: Unit) -> str:
    """Return what systemd-sysusers reads to make the user."""
    name = unit.description.partition(":")[0]
    return f'u {unit.user} - "{name}" {quoted(str(unit.data))} /usr/sbin/nologin\n'


def quoted(word: str) -> str:
    """Quote a word as systemd reads it."""
    word = escaped(word).replace("$", "$$").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{word}"' if " " in word or "'" in word else word


def escaped(word: str) -> str:
    """Keep systemd from reading its own signs in a word that is not quoted."""
    return word.replace("%", "%%")


def _storage(unit: Unit) -> list[str]:
    """A data folder below /var/lib is systemd's to make and to give to the user; elsewhere it is
    given at each start, which changes nothing once it is right."""
    if unit.data.parent == STATE:
        return [f"StateDirectory={unit.data.name}", f"StateDirectoryMode={unit.data_mode}"]
    owner = f"{unit.user}:{unit.user}"
    return [
        f"ExecStartPre=+/bin/chown -hR {owner} {quoted(str(unit.data))}",
        f"ReadWritePaths={quoted(str(unit.data))}",
    ]


def _homes(unit: Unit) -> str:
    used = [str(path) for path in (unit.data, *unit.uses)]
    return "read-only" if any(path.startswith(_HOMES) for path in used) else "yes"


def checked(path: Path) -> str:
    """Return a path's words. Raises `CannotInstall` for one that no unit can name."""
    if not path.is_absolute():
        raise CannotInstall(f"{path}: expected an absolute path")
    if any(ord(c) < 32 for c in str(path)) or len(str(path)) > 1000:
        raise CannotInstall(f"{ascii(str(path))[:80]}: no unit can name such a path")
    return str(path)
