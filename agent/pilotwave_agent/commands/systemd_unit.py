"""What the agent's systemd unit has beside what every unit has (`pilotwave_systemd.unit`).

What is left open is left open for a reason: namespaces for the self-test (it gives a model under
test a world of its own, without the network), executable memory for runtimes that compile, devices
of accelerators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pilotwave_agent.resident.run import RESTART
from pilotwave_systemd.unit import Unit

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
_SANDBOX = (
    "RestrictNamespaces=user net pid",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    # what the self-test takes away from a model: the network, the file system
    "SystemCallFilter=seccomp",
    "SystemCallFilter=landlock_create_ruleset landlock_add_rule landlock_restrict_self",
    # folders and the socket of applications are given to their group, of which it is a member
    "SystemCallFilter=fchown fchownat",
    *(f"DeviceAllow={name} rw" for name in _DEVICES),
)


@dataclass(frozen=True)
class Plan:
    """What to install. `launcher` starts `command` or a newer agent (`self_update.launch`)."""

    command: Sequence[str]
    launcher: Sequence[str]
    data: Path
    config: Path
    user: str = "pilotwave"
    watchdog_s: int = 300
    groups: Sequence[str] = field(default_factory=tuple)


def unit_of(plan: Plan) -> Unit:
    """Return the agent's unit."""
    programs = (*plan.command[:1], *plan.launcher[:1])
    words = [*plan.launcher, str(plan.data), *plan.command, "--", "run", "--config"]
    return Unit(
        description="Pilotwave agent: keeps this device on the model versions it is assigned",
        command=[*words, str(plan.config)],
        data=plan.data,
        data_mode="0755",
        user=plan.user,
        uses=(plan.config, *map(Path, programs)),
        own=(
            f"WatchdogSec={plan.watchdog_s}",
            # it ends so when another version of it is to run
            f"SuccessExitStatus={RESTART}",
            "OOMPolicy=continue",
            *([f"SupplementaryGroups={' '.join(plan.groups)}"] if plan.groups else []),
            "UMask=0022",
            *_SANDBOX,
        ),
    )
