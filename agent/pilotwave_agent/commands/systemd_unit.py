"""Write the systemd unit of the agent: text from a few facts, nothing is touched here.

The unit gives the agent a user of its own, one folder to write to and no privilege. What is left
open is left open for a reason: namespaces for the self-test (it gives a model under test a world of
its own, without the network), executable memory for runtimes that compile,
devices of accelerators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pilotwave_agent.resident.run import RESTART
from pilotwave_protocol.errors import PilotwaveError

NAME = "pilotwave-agent.service"
STATE = Path("/var/lib")
_HOMES = ("/home", "/root", "/run/user")
_DEVICES = (
    "char-drm",
    "char-accel",
    "char-nvidia",
    "char-nvidia-frontend",
    "char-nvidia-uvm",
    "char-nvhost",
    "char-nvmap",
    "char-apex",
    "char-hailo_chardev",
    "char-usb_device",
)


class CannotInstall(PilotwaveError):
    """Something about the wish that no unit can be written for."""

    code = "cannot_install"


@dataclass(frozen=True)
class Plan:
    """What to install: paths are as the running system will see them, whatever root they are
    written below. `launcher` starts `command` or a newer agent (`self_update.launch`)."""

    command: Sequence[str]
    launcher: Sequence[str]
    data: Path
    config: Path
    user: str = "pilotwave"
    watchdog_s: int = 300
    groups: Sequence[str] = field(default_factory=tuple)


def unit_of(plan: Plan) -> str:
    """Return the unit's text. Raises `CannotInstall`."""
    programs = (*plan.command[:1], *plan.launcher[:1])
    for path in (plan.data, plan.config, *map(Path, programs)):
        _check(path)
    words = [*plan.launcher, str(plan.data), *plan.command, "--", "run", "--config"]
    started = " ".join(map(_quoted, [*words, str(plan.config)]))
    lines = [
        "[Unit]",
        "Description=Pilotwave agent: keeps this device on the model versions it is assigned",
        "Wants=network-online.target",
        "After=network-online.target time-sync.target",
        f"RequiresMountsFor={_quoted(str(plan.data))}",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=notify",
        "NotifyAccess=main",
        f"ExecStart={started}",
        f"WatchdogSec={plan.watchdog_s}",
        "TimeoutStartSec=120",
        "TimeoutStopSec=30",
        "KillMode=mixed",
        "Restart=always",
        "RestartSec=5",
        # it ends so when another version of it is to run
        f"SuccessExitStatus={RESTART}",
        "OOMPolicy=continue",
        f"User={plan.user}",
        f"Group={plan.user}",
        *([f"SupplementaryGroups={' '.join(plan.groups)}"] if plan.groups else []),
        "UMask=0022",
        "Environment=PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1",
        *_storage(plan),
        *_hardening(plan),
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"


def _storage(plan: Plan) -> list[str]:
    """The data folder below /var/lib is systemd's to make and to give to the user; elsewhere it is
    given at each start, which changes nothing once it is right."""
    if plan.data.parent == STATE:
        return [f"StateDirectory={plan.data.name}", "StateDirectoryMode=0755"]
    owner = f"{plan.user}:{plan.user}"
    return [
        f"ExecStartPre=+/bin/chown -hR {owner} {_quoted(str(plan.data))}",
        f"ReadWritePaths={_quoted(str(plan.data))}",
    ]


def _hardening(plan: Plan) -> list[str]:
    used = [str(p) for p in (plan.data, plan.config, *plan.command[:1], *plan.launcher[:1])]
    homes = "read-only" if any(p.startswith(_HOMES) for p in used) else "yes"
    return [
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "AmbientCapabilities=",
        "ProtectSystem=strict",
        f"ProtectHome={homes}",
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
        "RestrictNamespaces=user net pid",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        "RemoveIPC=yes",
        "KeyringMode=private",
        "SystemCallArchitectures=native",
        "SystemCallFilter=@system-service",
        "SystemCallFilter=~@privileged @resources",
        # what the self-test takes away from a model: memory, rank, the network, the file system
        "SystemCallFilter=setrlimit prlimit64 setpriority sched_setaffinity seccomp",
        # folders and the socket of applications are given to their group, of which it is a member
        "SystemCallFilter=fchown fchownat",
        "SystemCallFilter=landlock_create_ruleset landlock_add_rule landlock_restrict_self",
        "SystemCallErrorNumber=EPERM",
        "DevicePolicy=closed",
        *(f"DeviceAllow={name} rw" for name in _DEVICES),
    ]


def _quoted(word: str) -> str:
    """Quote a word as systemd reads it."""
    word = word.replace("%", "%%").replace("$", "$$").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{word}"' if " " in word or "'" in word else word


def _check(path: Path) -> None:
    if not path.is_absolute():
        raise CannotInstall(f"{path}: expected an absolute path")
    if any(ord(c) < 32 for c in str(path)) or len(str(path)) > 1000:
        raise CannotInstall(f"{ascii(str(path))[:80]}: no unit can name such a path")


def sysusers_of(plan: Plan) -> str:
    """Return what systemd-sysusers reads to make the user."""
    return f'u {plan.user} - "Pilotwave agent" {_quoted(str(plan.data))} /usr/sbin/nologin\n'
