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
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pilotwave_agent import runtimes
from pilotwave_agent.runtimes import confine, faults, namespaces, programs, supervise
from pilotwave_agent.runtimes.base import Options, Runner, Tensor
from pilotwave_agent.runtimes.confine import peak_mb, peak_of_children_mb
from pilotwave_agent.runtimes.seccomp import forbid_processes
from pilotwave_protocol import sniff
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.formats import OPENS
from pilotwave_protocol.states import Reason


class _Line:
    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.stage = "start"
        self.held: list[str] = []

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

        _check_confined(spec, line, "it is a program")
        line.enter("run")
        return {**command.run(file, folder, cases), "peak_mb": peak_mb()}
    if spec["runtime"] == runtimes.WHEELHOUSE:
        from pilotwave_agent.runtimes import wheelhouse

        _check_confined(spec, line, "it is a program")
        line.enter("run")
        return {**wheelhouse.run(Path(spec["cache"]), folder), "peak_mb": peak_mb()}
    runtimes.adapter(spec["runtime"])  # what it takes to import the runtime is not the model's
    line.enter("format")
    unsafe = _check_format(file, spec["runtime"])
    if unsafe:
        _check_confined(spec, line, unsafe)
    if spec["filter_calls"] and not spec["starts"]:
        forbid_processes()  # only now: a runtime that is imported may look for its libraries so
    base = peak_mb()
    line.enter("load")
    begun = time.perf_counter()
    model = _load(spec)
    load_ms = (time.perf_counter() - begun) * 1000
    line.say(info=asdict(model.info), shared=list(getattr(model, "shared", ())))
    if spec["adapt"]:
        figures = _adapted(model, spec, cases, line)
    elif spec["plan"]:
        figures = _learned(model, spec, line)
    elif spec["record"]:
        figures = _recorded(model, Path(spec["record"]), line)
    else:
        figures = _compared(model, spec, cases, line)
        figures |= {"base_mb": round(base, 1), "load_ms": round(load_ms, 3)}
    line.enter("close")  # a model that failed is not closed: this process ends with it
    model.close()
    return figures


def _load(spec: dict[str, Any]) -> Runner:
    folder, runtime = Path(spec["folder"]), spec["runtime"]
    return runtimes.load(
        folder, entrypoint=spec["entrypoint"], runtime=runtime, options=_options(spec)
    )


def _in_turns(spec: dict[str, Any], line: _Line) -> dict[str, Any]:
    """Time models that have passed their tests, in turns; return the figures of each, in order."""
    from pilotwave_agent.runtimes import bench, golden

    for one in spec["turns"]:
        runtimes.adapter(one["runtime"])
    if spec["filter_calls"]:
        forbid_processes()
    line.enter("load")
    pairs = []
    for one in spec["turns"]:
        model = _load(one)
        cases = Path(one["folder"]) / one["cases"] if one["cases"] else None
        pairs.append((model, golden.first_call(model, cases and golden.read_cases(cases))))
    line.enter("run")
    times = bench.in_turns(pairs, within_s=spec["within_s"])
    found: dict[str, Any] = {"turns": [{"p05_ms": t.p05_ms, "cpu_ms": t.cpu_ms} for t in times]}
    stretch_s, rounds = spec["stretch_s"], spec["rounds"]
    takes_s = rounds * (stretch_s + sum(max(stretch_s, max(t.wall)) for t in times))
    if rounds and takes_s < spec["timeout_s"] / 2:
        found |= asdict(bench.in_stretches(pairs, stretch_s=stretch_s, rounds=rounds))
    return found


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


def _check_confined(spec: dict[str, Any], line: _Line, why: str) -> None:
    """What runs code is opened only where the kernel keeps it from all that it should."""
    missing = confine.lacking(line.held)
    if missing and not spec["allow_unconfined"]:
        sentence = f"{why}, and this system cannot keep it from {', '.join(missing)}"
        settled = "allow_unconfined = true under [selftest] in agent.toml has it tried all the same"
        raise RefusedError(Reason.UNSAFE_FORMAT, f"{sentence}; {settled}")


def _check_format(file: Path, runtime: str) -> str | None:
    """The content decides what a file is; its name and the manifest are only words. Return why the
    format may run code, if it may."""
    try:
        found = sniff.sniff_file(file)
    except sniff.BadModel as e:
        raise RefusedError(Reason.SELFTEST_FORMAT, str(e)) from e
    known = OPENS[runtime]
    if found.format not in known:
        words = " or ".join(known)
        sentence = f"{file.name} is {found.format} by its content; {runtime} opens {words}"
        raise RefusedError(Reason.SELFTEST_FORMAT, sentence)
    return found.unsafe


def _recorded(model: Runner, inputs: Path, line: _Line) -> dict[str, Any]:
    """Write the answers to these inputs into the folder that this process may write to."""
    from pilotwave_agent.runtimes.record import record

    line.enter("run")
    return record(model, inputs, Path.cwd())


def _learned(model: Runner, spec: dict[str, Any], line: _Line) -> dict[str, Any]:
    """Write an update of a training plan into the folder that this process may write to."""
    from pilotwave_agent.runtimes.learn import learn

    line.enter("run")
    head = Path(spec["head"]) if spec["head"] else None
    return learn(model, Path(spec["record"]), spec["plan"].encode(), head, Path.cwd())


def _adapted(
    model: Runner, spec: dict[str, Any], cases: Path | None, line: _Line
) -> dict[str, Any]:
    """Write a residual head into the folder that this process may write to."""
    from pilotwave_agent.runtimes.adapt import adapt

    line.enter("run")
    return adapt(model, Path(spec["record"]), spec["adapt"], cases, Path.cwd())


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
            by_agreement=spec["by_agreement"],
            compare=lambda: line.enter("compare"),
        )
    peak = peak_mb() + (peak_of_children_mb() if spec["starts"] else 0.0)
    return {**asdict(figures), "peak_mb": round(peak, 1)}


def _confined(spec: dict[str, Any]) -> list[str]:
    """Go on in a process that is kept from all that the model needs not; say from what."""
    wish = confine.Confinement(
        memory_mb=spec["memory_mb"],
        cpu_s=spec["cpu_s"],
        hidden=Path(spec["hidden"]) if spec["hidden"] else None,
        shown=(
            *(Path(spec[key]) for key in ("folder", "cache", "record", "program") if spec[key]),
            *(Path(one["folder"]) for one in spec["turns"]),
        ),
        writable=(Path.cwd(),),
        filtered=spec["filter_calls"],
        starts=spec["starts"],
        talks=spec["talks"],
    )
    world = supervise.Supervised(
        wish.memory_mb,
        Path.cwd(),
        lambda: namespaces.furnish(
            hidden=wish.hidden, shown=(*wish.shown, *wish.writable), memory_mb=wish.memory_mb
        ),
    )
    took = supervise.below(spec["parent"], world)
    own_world = "own_processes" in took
    programs.before_start = lambda: confine.confine_program(wish, own_world=own_world)
    return confine.confine(wish, took)


def main() -> None:
    """Run one self-test as told on stdin."""
    spec = json.loads(sys.stdin.buffer.read())
    faulthandler.enable()
    line = _Line(spec["fd"])
    line.held = _confined(spec)
    line.say(stage="start", confined=line.held)
    try:
        found = _in_turns(spec, line) if spec["turns"] else _try(spec, line)
        line.say(verdict="ok", figures=found)
    except BaseException as e:  # a runtime may raise anything, and the parent must hear of it
        reason = faults.reason_of(e, line.stage)
        sentence = faults.shortened(faults.words(e).replace(spec["folder"] + "/", ""))
        line.say(verdict=str(reason), sentence=sentence, peak_mb=round(peak_mb(), 1))
    # a runtime may crash while it is torn down, when all that matters has been said
    os._exit(0)


if __name__ == "__main__":
    main()
