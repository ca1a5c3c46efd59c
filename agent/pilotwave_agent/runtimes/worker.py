"""The child process of a self-test: load the model, try it, say how it went, line by line.

It is told what to do in JSON on stdin and answers in JSON lines on a descriptor of its own, since
runtimes write to stdout and stderr as they please. Each stage is announced before it begins: the
last line tells where a model killed the process. A verdict is the last line of one that lived.

It may run in another interpreter than the agent's, one that has the runtime: it needs numpy and
what lies in this package and in `pilotwave_protocol.sniff`, nothing else.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pilotwave_agent import runtimes
from pilotwave_agent.runtimes import faults
from pilotwave_agent.runtimes.base import Options, Runner, Tensor
from pilotwave_agent.runtimes.confine import confine, die_with_parent, peak_mb
from pilotwave_protocol import sniff
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.formats import OPENS
from pilotwave_protocol.states import Reason


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
    folder = Path(spec["folder"])
    file = folder / spec["entrypoint"]
    cases = folder / spec["cases"] if spec["cases"] else None
    if spec["runtime"] == runtimes.COMMAND:
        from pilotwave_agent.runtimes import command

        line.enter("run")
        return {**command.run(file, folder, cases), "peak_mb": peak_mb()}
    runtimes.adapter(spec["runtime"])  # what it takes to import the runtime is not the model's
    line.enter("format")
    _check_format(file, spec["runtime"])
    base = peak_mb()
    line.enter("load")
    model = runtimes.load(
        folder, entrypoint=spec["entrypoint"], runtime=spec["runtime"], options=_options(spec)
    )
    line.say(info=asdict(model.info), shared=list(getattr(model, "shared", ())))
    figures = {**_compared(model, spec, cases, line), "base_mb": round(base, 1)}
    line.enter("close")  # a model that failed is not closed: this process ends with it
    model.close()
    return figures


def _options(spec: dict[str, Any]) -> Options:
    inputs, outputs = (
        tuple(Tensor(t["name"], t["dtype"], tuple(t["shape"])) for t in spec[kind])
        for kind in ("inputs", "outputs")
    )
    return Options(
        threads=spec["threads"],
        devices=tuple(spec["devices"]),
        inputs=inputs,
        outputs=outputs,
        cache=Path(spec["cache"]) if spec["cache"] else None,
        precision=spec["precision"],
        timeout_s=spec["timeout_s"],
    )


def _check_format(file: Path, runtime: str) -> None:
    """The content decides what a file is; its name and the manifest are only words."""
    try:
        found = sniff.sniff_file(file)
    except sniff.BadModel as e:
        raise RefusedError(Reason.SELFTEST_FORMAT, str(e)) from e
    known = OPENS[runtime]
    if found.format not in known:
        words = " or ".join(known)
        sentence = f"{file.name} is {found.format} by its content; {runtime} opens {words}"
        raise RefusedError(Reason.SELFTEST_FORMAT, sentence)


def _compared(
    model: Runner, spec: dict[str, Any], path: Path | None, line: _Line
) -> dict[str, Any]:
    from pilotwave_agent.runtimes import golden

    line.enter("io")
    golden.check_schema("input", spec["inputs"], list(model.inputs))
    golden.check_schema("output", spec["outputs"], list(model.outputs))
    cases = golden.read_cases(path) if path else None
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
    peak = peak_mb() + sum(peak_mb(pid) for pid in getattr(model, "pids", ()))
    return {**asdict(figures), "peak_mb": round(peak, 1)}


def main() -> None:
    """Run one self-test as told on stdin."""
    spec = json.loads(sys.stdin.buffer.read())
    faulthandler.enable()
    die_with_parent(spec["parent"])
    line = _Line(spec["fd"])
    confined = confine(
        memory_mb=spec["memory_mb"],
        cpu_s=spec["cpu_s"],
        hidden=Path(spec["hidden"]) if spec["hidden"] else None,
        shown=[Path(path) for path in (spec["folder"], spec["cache"]) if path],
        writable=[Path.cwd()],
    )
    line.say(stage="start", confined=confined)
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
