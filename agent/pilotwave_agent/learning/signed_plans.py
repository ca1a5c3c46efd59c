"""The training plans that publishers stand by, kept so that a device needs no server for them.

Which hold is noted whenever the signed metadata were verified (`trust.inbox`). Their bytes are
asked for by digest, and what has another digest is not kept. What holds no more goes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime

from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.errors import BadPlan
from pilotwave_protocol.learning.device_plan import DevicePlan, parse_any_plan
from pilotwave_protocol.messages.check_in import Installed

Held = Mapping[str, Mapping[str, str]]
"""Digests of plans by model and name."""


def note(disk: Disk, layout: Layout, held: Held) -> None:
    """Write down which plans hold, and remove the others. May raise `OSError`."""
    known = {model: dict(plans) for model, plans in held.items() if plans}
    if known != read(disk, layout):
        disk.make_dirs(layout.signed_plans.parent)
        disk.write_atomic(layout.signed_plans, json.dumps(known).encode())
    of_use = set(_digests(known))
    for name in disk.names(layout.plans):
        if name not in of_use:
            disk.unlink(layout.plans / name)


def read(disk: Disk, layout: Layout) -> dict[str, dict[str, str]]:
    """Return which plans hold, as of the last metadata that were verified."""
    try:
        found = json.loads(disk.read(layout.signed_plans))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def missing(disk: Disk, layout: Layout) -> list[str]:
    """Return the digests of plans that hold and are not here."""
    names = set(disk.names(layout.plans))
    return [digest for digest in _digests(read(disk, layout)) if digest not in names]


def keep(disk: Disk, layout: Layout, digest: str, raw: bytes) -> bool:
    """Keep a plan's bytes, if they are those; say whether. May raise `OSError`."""
    if sha256_hex(raw) != digest:
        return False
    disk.make_dirs(layout.plans)
    disk.write_atomic(layout.plans / digest, raw)
    return True


def device_plan(disk: Disk, layout: Layout, model: str, digest: str) -> DevicePlan | None:
    """Return a plan of the scope `device` that holds and is here whole; None if it is no such."""
    if digest not in read(disk, layout).get(model, {}).values():
        return None
    try:
        raw = disk.read(layout.plans / digest)
        plan = parse_any_plan(raw) if sha256_hex(raw) == digest else None
    except (OSError, BadPlan):
        return None
    return plan if isinstance(plan, DevicePlan) and plan.model == model else None


def plan_for(
    disk: Disk, layout: Layout, model: str, version: Installed, now: datetime
) -> tuple[str, DevicePlan] | None:
    """Return the plan by which a device may adapt what it runs, with its digest: of several, the
    one that holds longest."""
    found = []
    for digest in read(disk, layout).get(model, {}).values():
        plan = device_plan(disk, layout, model, digest)
        wanted = version.sha256, version.variant
        if plan and plan.deadline > now and (plan.base.sha256, plan.base.variant) == wanted:
            found.append((plan.deadline, digest, plan))
    return max(found)[1:] if found else None


def _digests(held: Held) -> Iterator[str]:
    for plans in held.values():
        yield from plans.values()
