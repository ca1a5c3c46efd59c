"""Training plans, as far as the resident agent is concerned: keep labelled examples within the
owner's budget, ask whether a round waits, and start the process that takes part (`take_part`).

Nothing is done without `[learn] allow = true`; without it, what was kept goes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotwave_agent.apps import heartbeats
from pilotwave_agent.apps.rules import write_rules
from pilotwave_agent.core.conditions import CHANGE, FETCH, hold
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.host.shared_folder import MAX_SEEN, SharedFolder, remove_tree
from pilotwave_agent.learning.process import LearnProcess
from pilotwave_agent.live.labels import ENDING, LABEL_SOCKET, MAX_WAITING, LabelRules
from pilotwave_agent.net import server_api
from pilotwave_agent.net.http import BadAnswer, Channel, Unreachable
from pilotwave_agent.net.server_api import ServerSaid, WaitingRound
from pilotwave_agent.read_conditions import look_around
from pilotwave_agent.settings.config import Config
from pilotwave_protocol import strictjson
from pilotwave_protocol.digest import sha256_hex

SENT, MADE = ".sent", ".update"


def tell_applications(config: Config, layout: Layout, disk: Disk) -> None:
    """Write down that applications may keep examples; where the owner allows none, remove what was
    kept. May raise `OSError`."""
    rules = LabelRules(config.learn.max_example_kb << 10)
    allowed = rules.to_bytes() if config.learn.allow else None
    write_rules(config, disk, layout.label_rules, allowed)
    if not config.learn.allow:
        for model in models_with_examples(layout):
            forget_examples(layout, model)
        if layout.all_examples.exists():
            remove_tree(layout.all_examples)
        (layout.live / LABEL_SOCKET).unlink(missing_ok=True)


def models_with_examples(layout: Layout) -> list[str]:
    """Name the models of which examples may be kept."""
    kept = heartbeats.models(layout.all_examples)
    return sorted({*heartbeats.models(layout.live), *kept})


def forget_examples(layout: Layout, model: str) -> int:
    """Remove a model's examples; return how many there were. Which plans were answered stays
    known: none is answered twice. May raise `OSError`."""
    gone = 0
    with contextlib.suppress(FileNotFoundError), SharedFolder(layout.live / model) as folder:
        for name in folder.names(ENDING, MAX_SEEN):
            folder.remove(name)
            gone += 1
    kept = layout.examples(model)
    if kept.exists():
        gone += sum(name.endswith(ENDING) for name in os.listdir(kept))
        remove_tree(kept)
    return gone


def waits(
    config: Config,
    wall: float,
    root: Path,
    conditions: Mapping[str, Any] | None = None,
    *,
    sends: bool = True,
) -> str:
    """Say what the device waits for before it takes part; nothing: it may.

    `conditions` are those of a round. The server's answer is not signed, so they come on top of
    what the owner asks for and take nothing of it away. What `sends` nothing asks for no network.
    """
    world = look_around(config, wall, root=root)
    own: dict[str, Any] = {"power": "external"}
    own |= {"network": "unmetered"} if sends else {}
    own |= {"idle": True} if config.learn.idle else {}
    for asked in (own, conditions or {}):
        found = hold(asked, world, FETCH) or hold(asked, world, CHANGE)
        if found:
            return found.sentence
    return ""


def network_held(config: Config, wall: float, root: Path) -> str:
    """Say why nothing more may be sent over this network; nothing: it may."""
    found = hold({"network": "unmetered"}, look_around(config, wall, root=root), FETCH)
    return found.sentence if found else ""


@dataclass(frozen=True)
class Answered:
    """A round that this device has answered."""

    model: str
    plan: str
    round: int

    def to_bytes(self) -> bytes:
        """Write what stays known of it."""
        return strictjson.dumps(vars(self))


def answered(layout: Layout, plan: str, number: int) -> Path:
    """The file that says that this device answered a round of the plan with this digest."""
    return layout.updates / f"{plan}-{number}{SENT}"


class Rounds:
    """One device's part in training plans. `config_path` is what the child is started with."""

    def __init__(self, config: Config, config_path: Path, disk: Disk) -> None:
        self._config, self._disk = config, disk
        self._layout = Layout(config.data_dir)
        self._process = LearnProcess("pilotwave_agent.take_part", config_path)

    def collect(self) -> None:
        """Take the examples that applications left, and hold them to the owner's budget."""
        with contextlib.suppress(OSError):
            for model in heartbeats.models(self._layout.live):
                self._collect(model)

    def _collect(self, model: str) -> None:
        kept, limit = self._layout.examples(model), self._config.learn.max_example_kb << 10
        users = self._config.app_users.get(model)
        with SharedFolder(self._layout.live / model) as folder:
            names = sorted(folder.names(ENDING, MAX_WAITING))
            if names:
                self._disk.make_dirs(kept)
            for name in names:
                raw, uid = folder.read(name, limit) or (b"", -1)
                free = self._disk.free_bytes(self._layout.root)
                if raw and heartbeats.heard(uid, users):
                    if free - len(raw) < self._config.keep_free_mb << 20:
                        return
                    self._disk.write_atomic(kept / name, raw)
                folder.remove(name)
        if names:
            self._prune(kept)

    def _prune(self, folder: Path) -> None:
        left = 0
        for name in sorted(self._disk.names(folder), reverse=True):  # names begin with the time
            left += os.lstat(folder / name).st_size
            if left > self._config.learn.max_mb << 20 or not name.endswith(ENDING):
                self._disk.unlink(folder / name)

    def look(self, channel: Channel, token: str, *, wall: float, root: Path) -> None:
        """Ask whether a round waits, and take part if the device may now."""
        if self._process.runs or waits(self._config, wall, root):
            return
        try:
            waiting = server_api.waiting_rounds(channel, token)
        except (ServerSaid, Unreachable, BadAnswer):
            return  # an older server, or one that is not there: the next check-in asks again
        if not any(self._may_answer(one, wall, root) for one in waiting):
            return
        self._process.start(token)

    def _may_answer(self, waiting: WaitingRound, wall: float, root: Path) -> bool:
        if answered(self._layout, sha256_hex(waiting.plan), waiting.number).exists():
            return False
        return not waits(self._config, wall, root, waiting.conditions)

    def close(self) -> None:
        """End the process that takes part; it begins anew the next time."""
        self._process.close()
