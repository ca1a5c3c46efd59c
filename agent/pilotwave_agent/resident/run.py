"""The resident agent's process: its lock, its signals, and what is said at start and end."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from pilotwave_agent import copies, identity, permissions
from pilotwave_agent.host import lock
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.host.log import keep_in, say
from pilotwave_agent.identity import Identity
from pilotwave_agent.resident.agent import Agent
from pilotwave_agent.settings.config import Config
from pilotwave_agent.settings.proxies import named_in_environment

RESTART = 5
"""The exit status of an agent that ends because another version of it is to run."""


class Stop(BaseException):
    """A signal asked the agent to end."""


@contextlib.contextmanager
def signals() -> Iterator[int]:
    """Let SIGTERM and SIGINT end what runs inside, wherever it is, and SIGUSR1 wake it.

    Yields a descriptor that is readable after a signal.
    """

    def stop(number: int, frame: object) -> None:
        raise Stop

    reader, writer = os.pipe()
    for fd in (reader, writer):
        os.set_blocking(fd, False)
    handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGUSR1: lambda *_: None}
    before = {n: signal.signal(n, handler) for n, handler in handlers.items()}
    old = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(old)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)


def wake(layout: Layout) -> None:
    """Have a running agent look at the journal now."""
    pid = lock.holder(layout.run_lock)
    if pid:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGUSR1)


@contextlib.contextmanager
def alone(config: Config) -> Iterator[tuple[Layout, Identity]]:
    """Keep other agents off this data folder. Raises `Held`, `NotEnrolled`, `BadCustody`."""
    layout = Layout(config.data_dir)
    permissions.close_up(layout, config.apps_group)
    permissions.check(layout)
    who = identity.load(layout)
    with lock.held(layout.run_lock, "the agent"):
        _tell_applications(config, layout, who)
        keep_in(layout.log if config.diagnostics.readers else None)
        try:
            yield layout, who
        finally:
            keep_in(None)


def _tell_applications(config: Config, layout: Layout, who: Identity) -> None:
    """Tell them what to capture, where inputs may go and whether to keep labelled examples; without
    a word of the owner's, nothing."""
    if config.escalate.allow or layout.tier_rules.exists():
        from pilotwave_agent.apps.rules import tell_tiers  # mostly not asked for

        try:
            tell_tiers(config, layout, Disk())
        except OSError as e:
            say(f"applications are not told where inputs may go: {e}", level="warning")
    if config.capture.reader or layout.captures.exists() or layout.capture_rules.exists():
        from pilotwave_agent.captures import tell_applications  # mostly not asked for

        try:
            tell_applications(config, layout, who, Disk())
        except OSError as e:
            say(f"applications are not told what to capture: {e}", level="warning")
    if config.learn.allow or layout.all_examples.exists() or layout.label_rules.exists():
        from pilotwave_agent import rounds  # mostly not allowed

        try:
            rounds.tell_applications(config, layout, Disk())
        except OSError as e:
            say(f"applications are not told to keep examples: {e}", level="warning")


def run(config: Config, config_path: Path) -> bool:
    """Run the resident agent until a signal ends it, or another agent is to run instead; say
    whether that is so. Raises `Held`, `NotEnrolled`, `OSError`."""
    again = False
    with alone(config) as (layout, who), contextlib.suppress(Stop), signals() as wakeup:
        copies.note(Disk(), layout)
        if copies.is_copy(layout):
            say(
                "this data folder was made on another machine; if that one is still there, give "
                "this one its own identity: pilotwave-agent enrol --new-identity --server "
                f"{config.server} --name NEW-NAME --code CODE --root root.json "
                f"--data {layout.root}",
                level="warning",
            )
        say(f"{who.device} of fleet {who.fleet}, server {config.server}, data {config.data_dir}")
        unused = "" if config.proxy else named_in_environment()
        if unused:
            words = 'write proxy = "environment" into the settings to have it used'
            say(f"{unused} is set and not used; {words}", level="warning")
        agent = Agent(config, config_path, who)
        agent.run(wakeup)
        again = agent.restarts
    say("ended: another version of it is to run" if again else "ended")
    return again
