"""`command`: a variant whose entry point is a program that tests itself.

It is called as `ENTRYPOINT selftest` in the version's folder, with PILOTWAVE_CASES naming the
golden cases if there are any, under the same limits as every self-test. Status 0 passes; the last
line of its output may be a JSON object with `cases`, `worst`, `agreement`, `p05_ms`, `p50_ms`,
`p95_ms`. What it says last before another status is what people read. An application runs it as it
likes.
"""

from __future__ import annotations

import json
import math
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pilotwave_agent.runtimes import programs
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.states import Reason

_TAIL = 4096
_SEGFAULTS = (11, 7)
_NUMBERS = dict.fromkeys(("worst", "p05_ms", "p50_ms", "p95_ms"), 0.0)


def run(file: Path, folder: Path, cases: Path | None) -> dict[str, Any]:
    """Let the program test itself; return its figures. Raises `RefusedError` or `OSError`."""
    # whoever started this process removes its scratch, and whatever a model made in it
    scratch = tempfile.mkdtemp(prefix="command-")
    return ask([programs.runnable(file, Path(scratch))], file.name, folder, cases)


def ask(words: Sequence[str | Path], name: str, folder: Path, cases: Path | None) -> dict[str, Any]:
    """Run a program, called `name`, with the word `selftest`; as `run`."""
    with tempfile.TemporaryFile() as out:
        environment = {"PILOTWAVE_CASES": str(cases) if cases else ""}
        child = programs.start([*words, "selftest"], cwd=folder, out=out, environment=environment)
        child.wait()
        out.seek(max(out.seek(0, 2) - _TAIL, 0))
        said = out.read().decode(errors="replace").strip()
    if child.returncode:
        raise RefusedError(_reason(child), f"{name} {programs.ended(child)}: {said[-300:]}")
    return _figures(said.splitlines()[-1] if said else "")


def _reason(child: subprocess.Popen[bytes]) -> Reason:
    if child.returncode > 0:
        return Reason.SELFTEST_ERROR
    dead = -child.returncode in _SEGFAULTS
    return Reason.SELFTEST_SEGFAULT if dead else Reason.SELFTEST_CRASH


def _figures(line: str) -> dict[str, Any]:
    """Take from the line what is a number of the kind that is asked for."""
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        said = {}
    said = said if isinstance(said, dict) else {}
    figures = {name: _number(said.get(name), default) for name, default in _NUMBERS.items()}
    share = said.get("agreement")
    agreement = None if share is None else min(max(_number(share, 0.0), 0.0), 1.0)
    return {**figures, "agreement": agreement, "cases": int(_number(said.get("cases"), 0.0))}


def _number(found: object, default: float) -> float:
    known = isinstance(found, (int, float)) and not isinstance(found, bool)
    number = float(found) if known else default  # type: ignore[arg-type]  # known says it is one
    return number if math.isfinite(number) and 0 <= number < 1e12 else default
