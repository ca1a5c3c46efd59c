"""Ask whether a version is well: by a command, over HTTP, or by its self-test once more.

A probe answers None or the "no" it met. How often one is asked, and what a "no" leads to, is
decided in `machine`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pilotwave_agent.channel import BadAnswer, Channel, TooSlow, Unreachable
from pilotwave_agent.config import Probe
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


def ask(probe: Probe, subject: Subject, selftest: Callable[[], object]) -> RefusedError | None:
    """Return the "no" of one probe; `selftest` runs the version's self-test or raises one."""
    try:
        if probe.kind == "exec":
            run_program(probe.command, subject, timeout_s=probe.timeout_s)
        elif probe.kind == "http":
            _get(probe.url, probe.timeout_s)
        else:
            selftest()
    except RefusedError as no:
        return no
    return None


def run_program(command: Sequence[str], subject: Subject, *, timeout_s: float) -> None:
    """Run a program to its end. Raises `RefusedError` if it fails, hangs or cannot be started."""
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
            )
        except OSError as e:
            sentence = f"{what} cannot be started: {e.strerror}"
            raise RefusedError(Reason.PROBE_FAILED, sentence) from e
        status = _status(child, timeout_s)
        if status == 0:
            return
        noise.seek(max(noise.seek(0, os.SEEK_END) - _TAIL, 0))
        said = " ".join(noise.read().decode(errors="replace").split())
    if status is None:
        raise RefusedError(Reason.PROBE_TIMEOUT, f"{what}: no end within {timeout_s:g} s")
    raise RefusedError(
        Reason.PROBE_FAILED, f"{what} ended with status {status}: {said}".rstrip(": ")
    )


def _status(child: subprocess.Popen[bytes], timeout_s: float) -> int | None:
    try:
        return child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


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
