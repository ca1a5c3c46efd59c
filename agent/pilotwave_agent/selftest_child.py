"""Run a self-test's child process to its end: what it is told, what it said, and how it ended.

Whatever it does, it and all that it started are gone afterwards, and its scratch folder too.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotwave_agent.host.shared_folder import remove_tree
from pilotwave_agent.runtimes.faults import WHEN
from pilotwave_agent.runtimes.programs import SHARED_MEMORY
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.states import Reason
from pilotwave_protocol.tensortypes import CASES, CASES_JSON, NUMBERS

_START = (
    "import sys; sys.path.insert(0, sys.argv[1]);"
    "from pilotwave_agent.runtimes.worker import main; main()"
)
_PACKAGES = ("pilotwave_agent", "pilotwave_protocol")
_SHARED = re.compile(r"shm-[\w-]{1,64}")
_TAIL = 2000
_PATIENCE_S = 8.0


@dataclass(frozen=True)
class Ended:
    """What a child said, line by line, and how it ended."""

    lines: list[dict[str, Any]]
    status: int
    timed_out: bool
    stderr: bytes

    @property
    def when(self) -> str:
        """The stage that it had come to, in words."""
        stage = str(self.last("stage") or "start")
        return WHEN.get(stage, stage)

    def last(self, key: str) -> Any:
        """The last word that was said under `key`."""
        return next((line[key] for line in reversed(self.lines) if key in line), None)

    @property
    def verdict(self) -> Mapping[str, Any] | None:
        """What it said last, if that was its verdict."""
        last = self.lines[-1] if self.lines else {}
        return last if "verdict" in last else None


def in_child(
    spec: dict[str, Any], python: str, timeout_s: float, keep: Path | None = None
) -> Ended:
    """Have a child work on `spec`, for at most `timeout_s`; the golden cases or the update that it
    writes go to `keep`. Raises `RefusedError` for an interpreter that cannot be started, `OSError`.
    """
    scratch = tempfile.mkdtemp(prefix="pw-")
    try:
        with tempfile.TemporaryFile(dir=scratch) as noise, _pipe() as (reader, writer):
            child = _start(
                [python, "-I", "-c", _START, _library(scratch)],
                stdin=subprocess.PIPE,
                stdout=noise,
                stderr=noise,
                pass_fds=(writer,),
                start_new_session=True,
                env={**_scrubbed(scratch), **spec["environment"]},
                cwd=scratch,
            )
            told = json.dumps({**spec, "fd": writer}).encode()
            timed_out = _wait(child, told, timeout_s)
            if keep is not None:
                _keep_cases(Path(scratch), keep)
            noise.seek(max(noise.seek(0, os.SEEK_END) - _TAIL, 0))
            return Ended(_lines(reader), child.returncode, timed_out, noise.read())
    finally:
        with contextlib.suppress(OSError):
            remove_tree(scratch)


def _keep_cases(scratch: Path, out: Path) -> None:
    """Copy what the child wrote; a link that it planted is not followed."""
    for name in (CASES, CASES_JSON, NUMBERS):
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(scratch / name, os.O_RDONLY | os.O_NOFOLLOW)
            with open(fd, "rb") as written, (out / name).open("wb") as kept:
                shutil.copyfileobj(written, kept)


def _start(words: list[str], **how: Any) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(words, **how)
    except (FileNotFoundError, PermissionError, NotADirectoryError) as e:
        sentence = f"the interpreter {words[0]} cannot be started: {e.strerror}"
        raise RefusedError(Reason.RUNTIME_MISSING, sentence) from e


def _library(scratch: str) -> str:
    """Return a folder with this agent's packages alone, for an interpreter that has its own."""
    folder = Path(scratch) / "lib"
    folder.mkdir()
    here = Path(__file__).resolve().parent.parent
    for name in _PACKAGES:
        (folder / name).symlink_to(here / name)
    return str(folder)


def remove_shared(ended: Ended) -> None:
    """Unlink the shared memory that a program which was killed could not remove by itself."""
    for name in ended.last("shared") or ():
        if isinstance(name, str) and _SHARED.fullmatch(name):
            with contextlib.suppress(OSError):
                (SHARED_MEMORY / name).unlink()


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    try:
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


def _scrubbed(scratch: str) -> dict[str, str]:
    """Return the environment of a child: nothing of ours but where programs and libraries are."""
    kept = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL")
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        "HOME": scratch,
        "TMPDIR": scratch,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def _wait(child: subprocess.Popen[bytes], told: bytes, timeout_s: float) -> bool:
    """Wait for the child's end, or kill it and all that it started; say whether time was up."""
    timed_out = False
    try:
        child.communicate(told, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        timed_out = True
        child.terminate()  # its supervisor ends all that the model started
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_PATIENCE_S)
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    return timed_out


def _lines(reader: int) -> list[dict[str, Any]]:
    """Read what the child said. What a model may have scribbled in between is passed over."""
    said = bytearray()
    with contextlib.suppress(BlockingIOError):
        while chunk := os.read(reader, 1 << 16):
            said += chunk
    lines = []
    for line in bytes(said).splitlines():
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict):
                lines.append(found)
    return lines
