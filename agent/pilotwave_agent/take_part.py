"""The short-lived process that takes part in a training plan: verify, compute, sign, send.

    1 the plan is the very one that the model's publisher stands by (TUF), and of no yanked version
    2 the version that it is based on runs here
    3 there are enough labelled examples
    4 a child as the self-test's computes the numbers: no network, niced, limited
    5 the update is signed and on disk before it is sent, and it alone is ever sent for this plan

A device answers a plan once, with the same bytes each time it is asked: of two answers with one
example more, the difference would be that example. It may be killed at any moment.

    python -m pilotwave_agent.take_part --config FILE    {"token", "parent"} on stdin
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pilotwave_agent import identity
from pilotwave_agent.core.journal import Journal
from pilotwave_agent.effects.trial import limits_of
from pilotwave_agent.host import lock
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.host.log import say
from pilotwave_agent.host.scratch import use_scratch
from pilotwave_agent.identity import Identity
from pilotwave_agent.live.labels import ENDING
from pilotwave_agent.net import server_api
from pilotwave_agent.net.http import BadAnswer, Channel, Unreachable
from pilotwave_agent.net.mirrors import Mirrors
from pilotwave_agent.net.server_api import ServerSaid, channel_of
from pilotwave_agent.rounds import SENT, waits
from pilotwave_agent.runtimes import engines
from pilotwave_agent.runtimes.base import Array
from pilotwave_agent.runtimes.casefile import BadCases, as_safetensors, read_tensors
from pilotwave_agent.runtimes.confine import die_with_parent
from pilotwave_agent.selftest import SelfTestFolders, learn_from
from pilotwave_agent.settings import config as settings
from pilotwave_agent.settings.config import Config, RuntimeSettings
from pilotwave_agent.trust.tuf_fetcher import Fetcher
from pilotwave_agent.trust.view import TrustedMetadata, TrustedView
from pilotwave_agent.version_folder import build_of
from pilotwave_protocol import dsse
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.errors import PilotwaveError
from pilotwave_protocol.learning.plan import TrainingPlan, parse_plan
from pilotwave_protocol.learning.update import UPDATE_TYPE, Update, join_update
from pilotwave_protocol.messages.check_in import Installed
from pilotwave_protocol.states import ModelState
from pilotwave_protocol.tensortypes import NUMBERS

LOCK_WAIT_S = 60.0
_MADE = ".update"


class CannotTakePart(PilotwaveError):
    """This device answers nothing to a plan, for the reason that it says."""

    code = "cannot_take_part"


@dataclass(frozen=True)
class Device:
    """One device's files, settings and line to its server."""

    config: Config
    layout: Layout
    who: Identity
    disk: Disk
    channel: Channel
    token: str


def take_part(device: Device) -> None:
    """Answer each plan whose round waits. Raises `ServerSaid`, `Unreachable`, `BadAnswer`."""
    _tidy(device)
    for raw in server_api.waiting_rounds(device.channel, device.token):
        digest = sha256_hex(raw)
        place = device.layout.updates / digest
        if place.with_suffix(SENT).exists():
            continue
        try:
            _answer(device, raw, digest, place.with_suffix(_MADE))
        except PilotwaveError as no:
            if isinstance(no, (Unreachable, BadAnswer)):
                raise
            say(f"no update is sent: {no}", level="warning")


def _tidy(device: Device) -> None:
    """Remove what a power cut left: half a file, and an update that the server has."""
    folder = device.layout.updates
    for name in device.disk.names(folder):
        sent = (folder / name).with_suffix(SENT)
        if name.startswith(".") or (name.endswith(_MADE) and sent.exists()):
            device.disk.unlink(folder / name)


def _answer(device: Device, raw: bytes, digest: str, made: Path) -> None:
    disk = device.disk
    if disk.size(made) is None:
        plan = parse_plan(raw)
        disk.make_dirs(made.parent)
        disk.write_atomic(made, _made(device, plan, digest))
        say(f"made an update for plan {plan.plan} of {plan.model}")
    with contextlib.suppress(FileNotFoundError):
        server_api.send_update(device.channel, device.token, disk.read(made))
    disk.write_atomic(made.with_suffix(SENT), b"")
    disk.unlink(made)
    disk.sync_dir(made.parent)
    say(f"sent an update for the plan {digest[:12]}…")


def _made(device: Device, plan: TrainingPlan, digest: str) -> bytes:
    """Return the signed update."""
    with lock.held(device.layout.work_lock, "the agent's work", wait_s=LOCK_WAIT_S):
        fleet = _check_signed(device, plan, digest)
        version = _current(device, plan)
        variant = build_of(device.disk, device.layout, version).variant
    with tempfile.TemporaryDirectory(prefix="pw-learn-") as scratch:
        examples = Path(scratch) / "examples.safetensors"
        count = _gather(device.layout.examples(plan.model), examples, plan)
        out = Path(scratch) / "out"
        out.mkdir()
        own = device.config.data_dir
        learnt = learn_from(
            device.layout.version(plan.model, version),
            variant,
            examples,
            plan.to_bytes(),
            out,
            limits_of(device.config),
            device.config.runtimes.get(variant.runtime, RuntimeSettings()),
            SelfTestFolders(own=own, cache=own / engines.FOLDER),
        )
        numbers = (out / NUMBERS).read_bytes()
    if learnt != count or len(numbers) != plan.update_bytes:
        raise CannotTakePart(f"plan {plan.plan}: the child wrote {len(numbers)} bytes")
    update = Update(
        fleet=fleet,
        device=device.who.device,
        model=plan.model,
        plan=digest,
        round=1,
        examples=count,
        numbers=sha256_hex(numbers),
        size=len(numbers),
    )
    return join_update(dsse.sign(UPDATE_TYPE, update.to_bytes(), device.who.key), numbers)


def _check_signed(device: Device, plan: TrainingPlan, digest: str) -> str:
    """Check that the publisher stands by these very bytes; return the fleet's name as signed."""
    view = _view(device)
    if view.policy(plan.model).plans.get(plan.plan) != digest:
        raise CannotTakePart(f"the publisher of {plan.model} stands by no such plan {plan.plan}")
    target = view.version(plan.model, plan.base.version)
    if target is None or target.yanked or target.sha256 != plan.base.sha256:
        raise CannotTakePart(f"plan {plan.plan} is not based on a version that may run")
    if plan.deadline.timestamp() <= time.time():
        raise CannotTakePart(f"plan {plan.plan} of {plan.model} is over")
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


def _current(device: Device, plan: TrainingPlan) -> Installed:
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
            f"plan {plan.plan} is for {plan.model} {base.version} ({base.variant}), healthy"
        )
    return current


def _gather(folder: Path, to: Path, plan: TrainingPlan) -> int:
    """Write the newest examples as one file; return how many. Raises `CannotTakePart`."""
    import numpy as np

    found: list[dict[str, Array]] = []
    names = sorted(os.listdir(folder), reverse=True) if folder.is_dir() else []
    for name in names:
        if len(found) == plan.most_examples:
            break
        with contextlib.suppress(BadCases, OSError):
            tensors = read_tensors(folder / name) if name.endswith(ENDING) else {}
            if _is_example(tensors, plan) and (not found or _alike(tensors, found[0])):
                found.append(tensors)
    if len(found) < plan.least_examples:
        raise CannotTakePart(
            f"plan {plan.plan} asks for {plan.least_examples} labelled examples; here are"
            f" {len(found)}"
        )
    joined = {"label": np.concatenate([tensors["label"] for tensors in found])}
    for name, first in found[0].items():
        if name != "label":
            join = np.concatenate if first.shape[:1] == (1,) else np.stack
            joined[name.removeprefix("input.")] = join([tensors[name] for tensors in found])
    to.write_bytes(as_safetensors(joined))
    return len(found)


def _is_example(tensors: dict[str, Array], plan: TrainingPlan) -> bool:
    label = tensors.get("label")
    if label is None or label.shape != (1,) or label.dtype.kind not in "iu" or len(tensors) < 2:
        return False
    return 0 <= int(label[0]) < plan.classes


def _alike(one: dict[str, Array], other: dict[str, Array]) -> bool:
    shapes = [{n: (a.shape, a.dtype) for n, a in tensors.items()} for tensors in (one, other)]
    return shapes[0] == shapes[1]


def main() -> None:
    """Take part once, if the device may now."""
    parser = argparse.ArgumentParser(prog="pilotwave_agent.take_part")
    parser.add_argument("--config", type=Path, required=True)
    arguments = parser.parse_args()
    told = json.loads(sys.stdin.buffer.read())
    die_with_parent(int(told["parent"]))
    os.nice(19)
    config = settings.load(arguments.config)
    layout = Layout(config.data_dir)
    if not config.learn.allow or waits(config, time.time(), Path("/")):
        return
    use_scratch(config.data_dir)
    channel = channel_of(config)
    try:
        device = Device(config, layout, identity.load(layout), Disk(), channel, told["token"])
        take_part(device)
    except (ServerSaid, Unreachable, BadAnswer, lock.Held) as e:
        say(f"learning waits: {e}", level="warning")
    finally:
        channel.close()


if __name__ == "__main__":
    main()
