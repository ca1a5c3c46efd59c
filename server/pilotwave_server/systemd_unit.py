"""What the server's systemd unit has beside what every unit has (`pilotwave_systemd.unit`).

The files of a certificate stay root's: systemd hands them to the server as credentials.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pilotwave_systemd.unit import CannotInstall, Unit, checked, escaped

SETTINGS = Path("/etc/pilotwave/server.env")
WATCHDOG_S = 60
_SANDBOX = (
    "PrivateDevices=yes",
    "ProcSubset=pid",
    "RestrictNamespaces=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
)


@dataclass(frozen=True)
class Plan:
    """What to install."""

    command: Sequence[str]
    data: Path
    user: str = "pilotwave-server"
    host: str = "127.0.0.1"
    port: int = 8600
    tls_cert: Path | None = None
    tls_key: Path | None = None


def unit_of(plan: Plan) -> Unit:
    """Return the server's unit. Raises `CannotInstall`."""
    where = ["--data", str(plan.data), "--host", plan.host, "--port", str(plan.port)]
    certificate = [path for path in (plan.tls_cert, plan.tls_key) if path is not None]
    if len(certificate) == 1:
        raise CannotInstall("--tls-cert and --tls-key go together: give both, or neither")
    return Unit(
        description="Pilotwave server: signed models for a fleet of devices",
        command=[*plan.command, "run", *where],
        ends_with=" --tls-cert %d/tls-cert --tls-key %d/tls-key" if certificate else "",
        data=plan.data,
        data_mode="0700",
        user=plan.user,
        after="postgresql.service",
        uses=tuple(map(Path, plan.command[:1])),
        capability="CAP_NET_BIND_SERVICE" if plan.port < 1024 else "",
        own=(
            f"EnvironmentFile=-{SETTINGS}",
            *(
                f"LoadCredential={name}:{escaped(checked(path))}"
                for name, path in zip(("tls-cert", "tls-key"), certificate, strict=False)
            ),
            f"WatchdogSec={WATCHDOG_S}",
            "UMask=0077",
            "LimitNOFILE=262144",
            *_SANDBOX,
        ),
    )
