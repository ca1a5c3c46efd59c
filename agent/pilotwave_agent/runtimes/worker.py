"""The child process of a self-test: load the model, try it, say how it went, line by line.

It is told what to do in JSON on stdin and answers in JSON lines on a descriptor of its own, since
runtimes write to stdout and stderr as they please. Each stage is announced before it begins: the
last line tells where a model killed the process. A verdict is the last line of one that lived.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pilotwave_agent.runtimes import faults
from pilotwave_agent.runtimes.confine import confine, die_with_parent, peak_mb


class _Line:
    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.stage = "start"

    def say(self, **words: Any) -> None:
        os.write(self._fd, json.dumps(words, allow_nan=False).encode() + b"\n")

    def enter(self, stage: str) -> None:
        self.stage = stage
        self.say(stage=stage)


def _try(spec: dict[str, Any], line: _Line) -> dict[str, Any]:
    adapter = importlib.import_module(spec["module"])
    from pilotwave_agent.runtimes import golden
    from pilotwave_agent.runtimes.base import Options

    folder = Path(spec["folder"])
    base = peak_mb()
    line.enter("load")
    model = adapter.load(folder / spec["entrypoint"], Options())
    line.enter("io")
    golden.check_schema("input", spec["inputs"], list(model.inputs))
    golden.check_schema("output", spec["outputs"], list(model.outputs))
    cases = golden.read_cases(folder / spec["cases"]) if spec["cases"] else None
    line.enter("run")
    if cases is None:
        figures = golden.run_zeros(model)
    else:
        figures = golden.run_cases(
            model,
            cases,
            atol=float(spec["atol"]),
            rtol=float(spec["rtol"]),
            compare=lambda: line.enter("compare"),
        )
    line.enter("done")
    return {**asdict(figures), "base_mb": round(base, 1), "peak_mb": round(peak_mb(), 1)}


def main() -> None:
    """Run one self-test as told on stdin."""
    spec = json.loads(sys.stdin.buffer.read())
    faulthandler.enable()
    die_with_parent(spec["parent"])
    line = _Line(spec["fd"])
    offline = confine(memory_mb=spec["memory_mb"], cpu_s=spec["cpu_s"])
    line.say(stage="start", offline=offline)
    try:
        line.say(verdict="ok", figures=_try(spec, line))
    except BaseException as e:  # a runtime may raise anything, and the parent must hear of it
        reason = faults.reason_of(e, line.stage)
        sentence = faults.shortened(faults.words(e).replace(spec["folder"] + "/", ""))
        line.say(verdict=str(reason), sentence=sentence, peak_mb=round(peak_mb(), 1))
    # a runtime may crash while it is torn down, when all that matters has been said
    os._exit(0)


if __name__ == "__main__":
    main()
