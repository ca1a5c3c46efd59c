"""Ask whether a version is well: by a command, over HTTP, at a model server, by what applications
and systemd say of crashes, or by its self-test once more.

A probe answers None or the "no" it met. How often one is asked, and what a "no" leads to, is
decided in `machine`.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import urllib.parse
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from pilotwave_agent.apps import heartbeats
from pilotwave_agent.net.http import BadAnswer, Channel, TooSlow, Unreachable
from pilotwave_agent.runtimes import holder
from pilotwave_agent.settings.config import ProbeSettings
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.states import Reason

_TAIL = 300


@dataclass(frozen=True)
class Subject:
    """The version that is asked about, as hooks and probes see it."""

    model: str
    version: str
    path: Path  # the folder of its files
    state: str
    number: int = 0  # its number with serving layers

    def environment(self) -> dict[str, str]:
        """Return the environment of a hook or probe."""
        return {
            **os.environ,
            "PILOTWAVE_MODEL": self.model,
            "PILOTWAVE_VERSION": self.version,
            "PILOTWAVE_PATH": str(self.path),
            "PILOTWAVE_STATE": self.state,
            "PILOTWAVE_NUMBER": str(self.number),
        }


@dataclass(frozen=True)
class Since:
    """What was so when the version was switched to: the moment (seconds of uptime), and how often
    systemd had restarted the unit."""

    uptime: float = 0.0
    restarts: int = 0


def ask(
    probe: ProbeSettings,
    subject: Subject,
    selftest: Callable[[], object],
    *,
    live: Path = Path(),
    since: Since | None = None,
    users: Collection[int] | None = None,
) -> RefusedError | None:
    """Return the "no" of one probe; `selftest` runs the version's self-test or raises one, `live`
    is where applications leave their heartbeats, `users` who may speak for them (None: anyone)."""
    since = since or Since()
    try:
        match probe.kind:
            case "exec":
                run_program(probe.command, subject, timeout_s=probe.timeout_s)
            case "http":
                _get(probe.url, probe.timeout_s)
            case "kserve":
                base = probe.url.rstrip("/")
                name = probe.name or subject.model
                # Triton's own /v2/health/ready says no for any version that it once failed to load
                for path in ("/v2/health/live", f"/v2/models/{name}/ready"):
                    _get(base + path, probe.timeout_s)
            case "apps":
                found = heartbeats.read(live / subject.model, users)
                _ask_apps(probe, subject, found, since)
            case "systemd":
                _ask_unit(probe, subject, since)
            case _:
                selftest()
    except RefusedError as no:
        return no
    return None


def _ask_apps(
    probe: ProbeSettings, subject: Subject, found: list[heartbeats.App], since: Since
) -> None:
    crashed = [a for a in found if a.beat >= since.uptime and a.crashed()]
    if len(crashed) >= probe.crashes:
        words = f"{crashed[-1].app} ended {len(crashed)} times without a word since the switch"
        raise RefusedError(Reason.PROBE_FAILED, words)
    living = [a for a in found if a.serving and a.lives()]  # one that starts up serves nothing yet
    if len(living) < probe.apps:
        words = f"{len(living)} applications give signs of life; at least {probe.apps} must"
        raise RefusedError(Reason.PROBE_FAILED, words)
    for app in living:
        if app.serving != subject.path.name:
            words = f"{app.app} serves {app.serving}, not {subject.path.name}"
            raise RefusedError(Reason.PROBE_FAILED, words)


def _ask_unit(probe: ProbeSettings, subject: Subject, since: Since) -> None:
    state, sub, restarts = _unit(probe, subject)
    again = restarts - since.restarts if restarts >= since.restarts else restarts
    if again >= probe.crashes:
        words = f"systemd restarted {probe.unit} {again} times since the switch"
        raise RefusedError(Reason.PROBE_FAILED, words)
    if state != "active":
        raise RefusedError(Reason.PROBE_FAILED, f"{probe.unit} is {state} ({sub})")


def restarts(probe: ProbeSettings, subject: Subject) -> int:
    """Return how often systemd has restarted the probe's unit so far; 0 where nobody knows."""
    if probe.kind != "systemd":
        return 0
    try:
        return _unit(probe, subject)[2]
    except RefusedError:
        return 0


def _unit(probe: ProbeSettings, subject: Subject) -> tuple[str, str, int]:
    """Return a unit's state, its finer state and how often systemd restarted it by itself."""
    wanted = ("ActiveState", "SubState", "NRestarts")
    command = ("systemctl", "show", f"--property={','.join(wanted)}", "--", probe.unit)
    text = run_program(command, subject, timeout_s=probe.timeout_s)
    said = dict(line.partition("=")[::2] for line in text.splitlines())
    count = said.get("NRestarts", "")
    return (
        said.get("ActiveState", "?"),
        said.get("SubState", "?"),
        int("0" + count * count.isdigit()),
    )


def run_program(command: Sequence[str], subject: Subject, *, timeout_s: float) -> str:
    """Run a program to its end and return the end of what it said; it and all that it
    starts end with this process. Raises `RefusedError` if it fails, hangs or cannot be started."""
    what = os.path.basename(command[0])
    with tempfile.TemporaryFile() as noise:
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=noise,
                stderr=noise,
                env=subject.environment(),
                start_new_session=True,
                preexec_fn=holder.held(),
            )
        except OSError as e:
            sentence = f"{what} cannot be started: {e.strerror}"
            raise RefusedError(Reason.PROBE_FAILED, sentence) from e
        status = holder.status_of(child, timeout_s)
        noise.seek(max(noise.seek(0, os.SEEK_END) - _TAIL, 0))
        tail = noise.read().decode(errors="replace")
        if status == 0:
            return tail
        said = " ".join(tail.split())
    if status is None:
        raise RefusedError(Reason.PROBE_TIMEOUT, f"{what}: no end within {timeout_s:g} s")
    raise RefusedError(
        Reason.PROBE_FAILED, f"{what} ended with status {status}: {said}".rstrip(": ")
    )


def _get(url: str, timeout_s: float) -> None:
    parts = urllib.parse.urlsplit(url)
    path = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
    origin = f"{parts.scheme}://{parts.netloc}"
    channel = Channel(origin, gap_s=timeout_s, deadline_s=timeout_s)
    try:
        status = channel.request("GET", path, max_body=1 << 20).status
    except TooSlow as e:
        raise RefusedError(Reason.PROBE_TIMEOUT, f"{url}: no answer in {timeout_s:g} s") from e
    except (Unreachable, BadAnswer) as e:
        raise RefusedError(Reason.PROBE_FAILED, f"{url}: {e}") from e
    finally:
        channel.close()
    if not 200 <= status < 300:
        raise RefusedError(Reason.PROBE_FAILED, f"{url}: status {status}")
