"""Write the systemd unit of the server: text from a few facts, nothing is touched here.

The unit gives the server a user of its own, one folder to write to and no privilege. The files of a
certificate stay root's: systemd hands them to the server as credentials.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pilotwave_server.errors import SetupError

NAME = "pilotwave-server.service"
STATE = Path("/var/lib")
SETTINGS = Path("/etc/pilotwave/server.env")
_HOMES = ("/home", "/root", "/run/user")


class CannotInstall(SetupError):
    """Something about the wish that no unit can be written for."""

    code = "cannot_install"


@dataclass(frozen=True)
class Plan:
    """What to install; paths are as the running system will see them."""

    command: Sequence[str]
    data: Path
    user: str = "pilotwave-server"
    host: str = "127.0.0.1"
    port: int = 8600
    tls_cert: Path | None = None
    tls_key: Path | None = None


def unit_of(plan: Plan) -> str:
    """Return the unit's text. Raises `CannotInstall`."""
    paths = [plan.data, plan.tls_cert, plan.tls_key, *map(Path, plan.command[:1])]
    for path in paths:
        if path is not None:
            _check(path)
    where = ["--data", str(plan.data), "--host", plan.host, "--port", str(plan.port)]
    words = " ".join(map(_quoted, [*plan.command, "run", *where]))
    lines = [
        "[Unit]",
        "Description=Pilotwave server: signed models for a fleet of devices",
        "Wants=network-online.target",
        "After=network-online.target time-sync.target postgresql.service",
        f"RequiresMountsFor={_quoted(str(plan.data))}",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=notify",
        "NotifyAccess=main",
        f"ExecStart={words}{' ' + _tls_words() if plan.tls_cert else ''}",
        f"EnvironmentFile=-{SETTINGS}",
        *_credentials(plan),
        "TimeoutStartSec=120",
        "TimeoutStopSec=30",
        "KillMode=mixed",
        "Restart=always",
        "RestartSec=5",
        f"User={plan.user}",
        f"Group={plan.user}",
        "UMask=0077",
        "LimitNOFILE=262144",
        "Environment=PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1",
        *_storage(plan),
        *_hardening(plan),
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"


def sysusers_of(plan: Plan) -> str:
    """Return what systemd-sysusers reads to make the user."""
    return f'u {plan.user} - "Pilotwave server" {_quoted(str(plan.data))} /usr/sbin/nologin\n'


def _tls_words() -> str:
    return "--tls-cert %d/tls-cert --tls-key %d/tls-key"


def _credentials(plan: Plan) -> list[str]:
    if plan.tls_cert is None and plan.tls_key is None:
        return []
    if plan.tls_cert is None or plan.tls_key is None:
        raise CannotInstall("--tls-cert and --tls-key go together: give both, or neither")
    return [
        f"LoadCredential=tls-cert:{_escaped(plan.tls_cert)}",
        f"LoadCredential=tls-key:{_escaped(plan.tls_key)}",
    ]


def _storage(plan: Plan) -> list[str]:
    """A data folder below /var/lib is systemd's to make and to give to the user."""
    if plan.data.parent == STATE:
        return [f"StateDirectory={plan.data.name}", "StateDirectoryMode=0700"]
    owner = f"{plan.user}:{plan.user}"
    return [
        f"ExecStartPre=+/bin/chown -hR {owner} {_quoted(str(plan.data))}",
        f"ReadWritePaths={_quoted(str(plan.data))}",
    ]


def _hardening(plan: Plan) -> list[str]:
    used = [str(path) for path in (plan.data, *plan.command[:1])]
    homes = "read-only" if any(path.startswith(_HOMES) for path in used) else "yes"
    low = "CAP_NET_BIND_SERVICE" if plan.port < 1024 else ""
    return [
        "NoNewPrivileges=yes",
        f"CapabilityBoundingSet={low}",
        f"AmbientCapabilities={low}",
        "ProtectSystem=strict",
        f"ProtectHome={homes}",
        "PrivateTmp=yes",
        "PrivateDevices=yes",
        "PrivateMounts=yes",
        "ProtectProc=invisible",
        "ProcSubset=pid",
        "ProtectClock=yes",
        "ProtectHostname=yes",
        "ProtectKernelLogs=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelTunables=yes",
        "ProtectControlGroups=yes",
        "LockPersonality=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        "RestrictNamespaces=yes",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
        "RemoveIPC=yes",
        "KeyringMode=private",
        "SystemCallArchitectures=native",
        "SystemCallFilter=@system-service",
        "SystemCallFilter=~@privileged @resources",
        # background work and the makers of deltas step back; the limit of open files is raised
        "SystemCallFilter=setpriority setrlimit prlimit64 sched_setaffinity",
        "SystemCallErrorNumber=EPERM",
        "DevicePolicy=closed",
    ]


def _escaped(path: Path) -> str:
    return str(path).replace("%", "%%")


def _quoted(word: str) -> str:
    """Quote a word as systemd reads it."""
    word = word.replace("%", "%%").replace("$", "$$").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{word}"' if " " in word or "'" in word else word


def _check(path: Path) -> None:
    if not path.is_absolute():
        raise CannotInstall(f"{path}: expected an absolute path")
    if any(ord(c) < 32 for c in str(path)) or len(str(path)) > 1000:
        raise CannotInstall(f"{ascii(str(path))[:80]}: no unit can name such a path")
