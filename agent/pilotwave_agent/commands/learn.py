"""Show a device's owner what is kept for training plans and what was answered; remove examples."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pilotwave_agent import permissions
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.live.labels import ENDING
from pilotwave_agent.rounds import MADE, SENT, Answered, forget_examples, models_with_examples
from pilotwave_agent.settings.config import Config
from pilotwave_agent.take_part.masked_files import drop_masked
from pilotwave_protocol import dsse, strictjson
from pilotwave_protocol.errors import ProtocolError
from pilotwave_protocol.learning.update import (
    MAX_UPDATE_BYTES,
    UPDATE_TYPE,
    parse_update,
    split_update,
)
from pilotwave_protocol.names import check_model

_MAX_ANSWERED = 1 << 10


def learning(config: Config) -> dict[str, Any]:
    """Return whether examples may be kept, how many are, and which plans were answered."""
    layout = Layout(config.data_dir)
    kept = {model: _count(layout, model) for model in models_with_examples(layout)}
    rounds = Counter((a.model, a.plan) for a in _answered(layout))
    return {
        "allowed": config.learn.allow,
        "examples": {model: count for model, count in kept.items() if count},
        "answered": [
            {"model": model, "plan": plan, "rounds": count}
            for (model, plan), count in sorted(rounds.items())
        ],
    }


def lines_of_learning(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines for people."""
    for model, count in found["examples"].items():
        yield f"{model}: {count} labelled examples are kept"
    for answer in found["answered"]:
        rounds = "1 round" if answer["rounds"] == 1 else f"{answer['rounds']} rounds"
        yield f"{answer['model']}: answered {rounds} of the training plan {answer['plan']}"


def forget(config: Config, model: str) -> str:
    """Remove the examples that are kept of a model. What was made of them and is not sent yet goes
    too: its round is not answered, as no round is answered twice. Raises `BadName`."""
    layout, disk = Layout(config.data_dir), Disk()
    permissions.check(layout)
    gone = forget_examples(layout, check_model(model))
    dropped = sum(_drop(disk, path, model) for path in _files(layout, MADE))
    dropped += drop_masked(disk, layout, model)
    told = f", and {dropped} updates that were not sent yet" if dropped else ""
    return f"forgot {gone} labelled examples of {model}{told}"


def _count(layout: Layout, model: str) -> int:
    """How many are kept, those that the agent is still to take included."""
    return sum(
        name.endswith(ENDING)
        for folder in (layout.examples(model), layout.live / model)
        if folder.is_dir()
        for name in os.listdir(folder)
    )


def _files(layout: Layout, ending: str) -> list[Path]:
    return sorted(layout.updates.glob(f"[!.]*{ending}"))


def _answered(layout: Layout) -> Iterator[Answered]:
    """Yield the rounds that were answered; agents of before wrote none of their names."""
    for path in _files(layout, SENT):
        with contextlib.suppress(ProtocolError, TypeError, OSError):
            found = strictjson.loads(path.read_bytes(), max_bytes=_MAX_ANSWERED)
            yield Answered(str(found["model"]), str(found["plan"]), int(found["round"]))


def _drop(disk: Disk, made: Path, model: str) -> bool:
    """Never send this update, if it is of the model."""
    envelope, _ = split_update(disk.read(made))
    claimed = dsse.peek_unverified(
        envelope, payload_type=UPDATE_TYPE, max_bytes=2 * MAX_UPDATE_BYTES
    )
    update = parse_update(claimed.payload)
    if update.model != model:
        return False
    disk.write_atomic(made.with_suffix(SENT), b"")
    disk.unlink(made)
    disk.sync_dir(made.parent)
    return True
