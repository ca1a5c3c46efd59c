"""Whether a device may believe a training plan, and runs what the plan is based on."""

from __future__ import annotations

import time
from functools import partial

from pilotwave_agent.core.journal import Journal
from pilotwave_agent.net.mirrors import Mirrors
from pilotwave_agent.net.server_api import channel_of
from pilotwave_agent.take_part.device import CannotTakePart, Device
from pilotwave_agent.trust.tuf_fetcher import Fetcher
from pilotwave_agent.trust.view import TrustedMetadata, TrustedView
from pilotwave_protocol.learning.decline import Why
from pilotwave_protocol.learning.plan import TrainingPlan
from pilotwave_protocol.messages.check_in import Installed
from pilotwave_protocol.states import ModelState


def check_signed(device: Device, plan: TrainingPlan, digest: str) -> str:
    """Check that the publisher stands by these very bytes; return the fleet's name as signed."""
    view = _view(device)
    if view.policy(plan.model).plans.get(plan.plan) != digest:
        raise CannotTakePart(f"the publisher of {plan.model} stands by no such plan {plan.plan}")
    target = view.version(plan.model, plan.base.version)
    if target is None or target.yanked or target.sha256 != plan.base.sha256:
        no = f"plan {plan.plan} is not based on a version that may run"
        raise CannotTakePart(no, Why.OTHER_VERSION)
    if plan.deadline.timestamp() <= time.time():
        raise CannotTakePart(f"plan {plan.plan} of {plan.model} is over", Why.OVER)
    return view.director().fleet


def _view(device: Device) -> TrustedView:
    config = device.config
    mirrors = Mirrors(
        config.mirrors,
        hosts=config.download_hosts,
        disk=device.disk,
        path=device.layout.mirrors,
        connect=partial(channel_of, config),
    )
    fetcher = Fetcher(device.channel, mirrors)
    return TrustedMetadata.refresh(device.layout.tuf, device.who.root, fetcher, disk=device.disk)


def current_version(device: Device, plan: TrainingPlan) -> Installed:
    """The version that runs, where it is the one that the plan is based on."""
    slot = Journal(device.disk, device.layout.journal).state.slot(plan.model)
    current, base = slot.current, plan.base
    runs = slot.state is ModelState.HEALTHY and current is not None
    if (
        current is None
        or not runs
        or (current.sha256, current.variant) != (base.sha256, base.variant)
    ):
        raise CannotTakePart(
            f"plan {plan.plan} is for {plan.model} {base.version} ({base.variant}), healthy",
            Why.OTHER_VERSION,
        )
    return current
