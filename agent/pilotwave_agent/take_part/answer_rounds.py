"""Answer the rounds of training plans that wait: verify, compute, sign, send.

    1 the plan is the very one that the model's publisher stands by (TUF), and of no yanked version
    2 the version that it is based on runs here
    3 there are enough labelled examples
    4 a child as the self-test's computes the numbers: no network, niced, limited
    5 the update is signed and on disk before it is sent, and it alone is sent for this round; one
      whose numbers are masked goes in the steps of `masked_round`

A device answers each round that the plan allows once, with the same bytes each time it is asked: of
two answers to one round, with one example more, the difference would be that example. It may be
killed at any moment.
"""

from __future__ import annotations

import contextlib
import time
from functools import partial
from pathlib import Path

from pilotwave_agent.host import lock
from pilotwave_agent.host.log import say
from pilotwave_agent.net import server_api
from pilotwave_agent.net.http import BadAnswer, Unreachable
from pilotwave_agent.net.server_api import WaitingRound
from pilotwave_agent.rounds import MADE, SENT, Answered, answered, network_held, waits
from pilotwave_agent.take_part.compute_numbers import compute_numbers
from pilotwave_agent.take_part.decline import decline
from pilotwave_agent.take_part.device import LOCK_WAIT_S, CannotTakePart, Device
from pilotwave_agent.take_part.fetch_head import fetch_head
from pilotwave_agent.take_part.masked_files import tidy_masked
from pilotwave_agent.take_part.masked_round import MaskedRound
from pilotwave_agent.take_part.send_update import send_update
from pilotwave_agent.take_part.trusted_plan import check_signed, current_version
from pilotwave_agent.version_folder import build_of
from pilotwave_protocol import dsse
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.errors import PilotwaveError
from pilotwave_protocol.learning.plan import TrainingPlan, parse_plan
from pilotwave_protocol.learning.update import UPDATE_TYPE, Update, join_update


def take_part(device: Device) -> None:
    """Answer each plan whose round waits. Raises `ServerSaid`, `Unreachable`, `BadAnswer`."""
    _tidy(device)
    for waiting in server_api.waiting_rounds(device.channel, device.token):
        sent = answered(device.layout, sha256_hex(waiting.plan), waiting.number)
        if sent.exists() or waits(device.config, time.time(), Path("/"), waiting.conditions):
            continue
        try:
            plan = parse_plan(waiting.plan)
            if plan.privacy.masked:
                MaskedRound(device, plan, waiting, sent).go_on()
            else:
                _answer(device, plan, waiting, sent)
        except PilotwaveError as no:
            if isinstance(no, (Unreachable, BadAnswer)):
                raise
            say(f"no update is sent: {no}", level="warning")
            decline(device, waiting, no)


def _tidy(device: Device) -> None:
    """Remove what a power cut left: half a file, and an update that the server has."""
    folder = device.layout.updates
    for name in device.disk.names(folder):
        sent = (folder / name).with_suffix(SENT)
        if name.startswith(".") or (name.endswith(MADE) and sent.exists()):
            device.disk.unlink(folder / name)
    tidy_masked(device.disk, folder)


def _answer(device: Device, plan: TrainingPlan, waiting: WaitingRound, sent: Path) -> None:
    disk, made = device.disk, sent.with_suffix(MADE)
    if disk.size(made) is None:
        disk.make_dirs(made.parent)
        disk.write_atomic(made, _made(device, plan, waiting))
        say(f"made an update for round {waiting.number} of plan {plan.plan} of {plan.model}")
    with contextlib.suppress(FileNotFoundError):
        send_update(device.channel, device.token, disk.read(made), held=partial(_held, device))
    disk.write_atomic(sent, Answered(plan.model, plan.plan, waiting.number).to_bytes())
    disk.unlink(made)
    disk.sync_dir(made.parent)
    say(f"sent an update for round {waiting.number} of the plan {sent.name[:12]}…")


def _held(device: Device) -> str:
    return network_held(device.config, time.time(), Path("/"))


def _made(device: Device, plan: TrainingPlan, waiting: WaitingRound) -> bytes:
    """Return the signed update."""
    digest = sha256_hex(waiting.plan)
    if waiting.number > plan.rounds:
        raise CannotTakePart(f"plan {plan.plan} has {plan.rounds} rounds, not {waiting.number}")
    with lock.held(device.layout.work_lock, "the agent's work", wait_s=LOCK_WAIT_S):
        fleet = check_signed(device, plan, digest)
        version = current_version(device, plan)
        variant = build_of(device.disk, device.layout, version).variant
    head = fetch_head(device, plan, digest, waiting.number) if plan.head else None
    count, numbers = compute_numbers(device, plan, version, variant, head)
    update = Update(
        fleet=fleet,
        device=device.who.device,
        model=plan.model,
        plan=digest,
        round=waiting.number,
        examples=count,
        numbers=sha256_hex(numbers),
        size=len(numbers),
    )
    return join_update(dsse.sign(UPDATE_TYPE, update.to_bytes(), device.who.key), numbers)
