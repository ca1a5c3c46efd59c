"""Make each variant, try it in its own runtime, judge it by data: one row of the report each.

A tool that fails, a file that does not open and a variant that loses too much are rows, not the
end. A variant counts only after the device's own self-test passed on it here.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pilotwave_cli import output
from pilotwave_cli.errors import CliError
from pilotwave_cli.optimize.answers import (
    Answers,
    DoesNotRun,
    answers_of,
    fitted,
    judged_output,
    write_cases,
)
from pilotwave_cli.optimize.data import Data, check_classes
from pilotwave_cli.optimize.guard import Judged, Top, judge, top_of
from pilotwave_cli.optimize.recipes import FROM_EXPORT, SOURCE, SUMS_IN_32_BITS, Recipe
from pilotwave_cli.optimize.report import Figures, Files, Machine, Needs, Row, State
from pilotwave_cli.optimize.run_tool import Limits, check_room, run_tool
from pilotwave_cli.optimize.tolerances import Golden, golden_of
from pilotwave_cli.publish.ask_agent import ask_selftest, folder_of
from pilotwave_cli.publish.build_manifest import NAMELESS, Built, build_variant
from pilotwave_cli.publish.variant_options import VariantOptions
from pilotwave_cli.reference.make_reference import make_reference
from pilotwave_protocol import digest, sniff
from pilotwave_protocol.errors import PilotwaveError
from pilotwave_protocol.manifest import TensorSpec, Variant, VersionManifest
from pilotwave_protocol.reference import MIN_INPUTS, REFERENCE
from pilotwave_protocol.tensortypes import CASES

_ROUNDS = 3


@dataclass(frozen=True)
class Desk:
    """What variants are made with and judged by, the same for all."""

    agent: str
    work: Path
    calibration: Data
    evaluate: Data
    limits: Limits
    max_loss: float
    options: Mapping[str, str]
    say: Callable[[str], None]


@dataclass(frozen=True)
class Source:
    """The source model in its runtime, what it answered, and the output that tells the class."""

    folder: Path
    built: Built
    answers: Answers
    judged: str
    top: Top


@dataclass
class Made:
    """A variant that exists, as far as it has come."""

    row: Row
    built: Built | None = None
    golden: Golden | None = None
    machine: Machine | None = None


def make(
    desk: Desk,
    recipe: Recipe,
    model: Path,
    shapes: Mapping[str, tuple[int, ...]],
    folder: Path | None = None,
) -> Path:
    """Have a tool make a variant of `model`; return its folder. Raises `ToolFailed`."""
    folder = folder or desk.work / recipe.name
    folder.mkdir()
    task = {
        "model": str(model.absolute()),
        "calibration": str(desk.calibration.path.absolute()),
        "out": str(folder / recipe.entrypoint),
        "shapes": {name: list(shape) for name, shape in shapes.items()},
        "options": desk.options,
    }
    has_network = run_tool(recipe, task, desk.limits)
    if has_network and recipe is SOURCE:  # the first of them, so that it is said once
        desk.say("tools keep the network here: the kernel refuses them a namespace of their own")
    return folder


def onnx_of(desk: Desk, export: Path) -> Path:
    """Have the ONNX model of a PyTorch export made. Raises `ToolFailed`."""
    desk.say(f"{export}: converting it to ONNX")
    return make(desk, FROM_EXPORT, export, {}, desk.work / "converted") / SOURCE.entrypoint


def run_source(desk: Desk, folder: Path, chosen: str | None) -> Source:
    """Run the source on the data that judge. Raises `CliError`: without it there is nothing."""
    built = build_variant("source", folder, VariantOptions())
    try:
        answers = answers_of(desk.agent, built, desk.evaluate.inputs, desk.limits.timeout_s)
    except DoesNotRun as e:
        raise CliError(f"the source model cannot be judged: {e}") from e
    if not answers.finite():
        raise CliError("the source model answers some inputs with NaN or infinity: leave them out")
    judged = judged_output(answers, chosen)
    source = Source(folder, built, answers, judged, top_of(answers.outputs[judged]))
    check_classes(desk.evaluate, answers.outputs[judged].shape[1], judged)
    _check_right(desk.evaluate, source)
    return source


def _check_right(data: Data, source: Source) -> None:
    if data.labels is None:
        return
    right = int((source.top == data.labels).sum())
    if right * source.answers.outputs[source.judged].shape[1] <= data.rows:
        raise CliError(
            f"{data.path}: the source model is right on {right} of {data.rows} inputs, no more "
            "than by chance: are the labels in the order of its outputs?"
        )


def try_variant(desk: Desk, source: Source, recipe: Recipe, obtain: Callable[[], Path]) -> Made:
    """Obtain a variant's folder, and carry it as far as it goes."""
    begun = time.monotonic()
    row = Row(
        recipe.name,
        State.FAILED,
        recipe.runtime,
        precision=recipe.precision,
        requires=Needs(cpu_any=recipe.cpu_any),
    )
    try:
        folder = obtain()
        made_s = time.monotonic() - begun
        built = build_variant(recipe.name, folder, VariantOptions(), with_cases=False)
        built = _with_names(built, source.built.variant)
        row = _described(row, built, made_s)
        desk.say(f"{recipe.name}: made in {made_s:.1f} s, {output.size(built.variant.size)}")
        answers = source.answers if folder == source.folder else _run(desk, built)
        return _judge(desk, source, row, built, answers)
    except PilotwaveError as e:
        desk.say(f"{recipe.name}: failed: {e}")
        return Made(replace(row, why=str(e)))


def _described(row: Row, built: Built, made_s: float) -> Row:
    variant = built.variant
    asked = variant.requires
    precision = row.precision or variant.precision
    sums = variant.runtime == "onnxruntime" and precision == "int8"
    return replace(
        row,
        runtime=variant.runtime,
        runtime_version=variant.runtime_version,
        precision=precision,
        format=variant.format,
        requires=Needs(
            arch=asked.arch,
            cpu_any=SUMS_IN_32_BITS if sums else row.requires.cpu_any,
            accelerator=asked.accelerator,
        ),
        figures=Figures(bytes=variant.size, made_s=f"{made_s:.1f}"),
    )


def _with_names(built: Built, source: Variant) -> Built:
    """Give inputs and outputs that the file does not name the source's names, in its order."""
    variant = built.variant
    if variant.format not in NAMELESS:
        return built
    found = sniff.sniff_file(folder_of(built) / variant.entrypoint)
    inputs = _named("inputs", found.inputs, source.inputs)
    outputs = _named("outputs", found.outputs, source.outputs)
    return replace(built, variant=replace(variant, inputs=inputs, outputs=outputs))


def _named(
    kind: str, found: Sequence[sniff.Tensor], source: Sequence[TensorSpec]
) -> tuple[TensorSpec, ...]:
    if len(found) != len(source):
        raise DoesNotRun(f"it has {len(found)} {kind}, and the source {len(source)}")
    pairs = zip(found, source, strict=True)
    return tuple(TensorSpec(s.name, t.dtype, t.shape or ()) for t, s in pairs)


def _run(desk: Desk, built: Built) -> Answers:
    inputs = fitted(desk.evaluate.inputs, built.variant.inputs)
    answers = answers_of(desk.agent, built, inputs, desk.limits.timeout_s)
    if not answers.finite():
        raise DoesNotRun("it answers some inputs with NaN or infinity, and the source none")
    return answers


def _judge(desk: Desk, source: Source, row: Row, built: Built, answers: Answers) -> Made:
    name = _same_output(source, answers)
    judged = judge(source.top, top_of(answers.outputs[name]), desk.evaluate.labels, desk.max_loss)
    golden = golden_of(answers, source.answers, name, row.precision)
    variant = built.variant
    if variant.format in NAMELESS:  # they count by position, so all of them
        golden = replace(golden, outputs=_names(variant.outputs))
    folder = desk.work / row.name
    write_cases(folder / CASES, answers, golden.rows, golden.outputs)
    _write_reference(folder, name, answers)
    options = VariantOptions(
        atol=golden.atol,
        rtol=golden.rtol,
        min_agreement=golden.min_agreement,
        entrypoint=variant.entrypoint,
        inputs=_names(variant.inputs),
        outputs=_names(variant.outputs),
    )
    row = replace(
        row,
        state=State.ACCEPTED if judged.accepted else State.REFUSED,
        why=judged.why,
        figures=_with_guard(row.figures, judged, desk.evaluate.labels is not None),
    )
    desk.say(f"{row.name}: {row.state.value}{': ' + row.why if row.why else ''}")
    return Made(row, build_variant(row.name, folder, options), golden)


def _write_reference(folder: Path, name: str, answers: Answers) -> None:
    """Write what the answers look like, where there are enough for it and they are in floats."""
    scores = answers.outputs[name]
    if len(scores) >= MIN_INPUTS and scores.dtype.kind == "f":
        found = make_reference(name, scores, {})
        (folder / REFERENCE).write_bytes(found.to_bytes())


def _names(tensors: Sequence[TensorSpec]) -> tuple[str, ...]:
    return tuple(t.name for t in tensors)


def _same_output(source: Source, answers: Answers) -> str:
    """The variant's output that is the source's judged one: of that name, or of that shape."""
    shape = source.answers.outputs[source.judged].shape
    alike = [n for n, a in answers.outputs.items() if a.shape == shape]
    if source.judged in alike:
        return source.judged
    if len(alike) != 1:
        raise DoesNotRun(f"it has no output like the source's {source.judged} {list(shape)}")
    return alike[0]


def _with_guard(figures: Figures, judged: Judged, labelled: bool) -> Figures:
    return replace(
        figures,
        rows=judged.rows,
        worse=judged.worse if labelled else None,
        top1=None if judged.top1 is None else f"{judged.top1:.4f}",
        agreement=f"{judged.agreement:.4f}",
        loss_bound=f"{judged.bound:.4f}",
    )


def measure(desk: Desk, made: list[Made]) -> None:
    """Test each variant as a device does, in turns: what else the machine does then meets all of
    them. The quickest round counts. One that fails its own golden cases is a failed row."""
    for number in range(_ROUNDS):
        for one in made:
            if one.built is None:
                continue
            template = VersionManifest(
                model="optimize", version="1.0.0", counter=1, variants=(one.built.variant,)
            )
            found = ask_selftest(desk.agent, template.to_bytes(), one.built, desk.limits.timeout_s)
            if found.get("ok") is not True:
                check_room(desk.work)
                sentence = output.plain(found.get("sentence") or "the agent gave no answer")
                one.row = replace(one.row, state=State.FAILED, why=f"self-test: {sentence}")
                one.built = None
                continue
            _note(one, found)
        desk.say(f"measured, round {number + 1} of {_ROUNDS}")


def _note(one: Made, found: Mapping[str, Any]) -> None:
    measured, machine = found["measured"], found["machine"]
    ms = float(measured["p05_ms"])
    old = one.row.figures
    one.row = replace(
        one.row,
        figures=replace(
            old,
            p05_ms=f"{min(ms, float(old.p05_ms or ms)):.3f}",
            peak_mb=f"{max(float(measured['peak_mb']), float(old.peak_mb or 0)):.1f}",
        ),
    )
    one.machine = Machine(machine["arch"], machine["cpu"], tuple(machine["flags"]))


def keep(one: Made, out: Path) -> None:
    """Move an accepted variant into the folder of results."""
    if one.built is None or one.golden is None or one.row.state is not State.ACCEPTED:
        return
    folder = one.built.variant.name
    shutil.move(next(iter(one.built.sources.values())).parent, out / folder)
    one.row = replace(
        one.row,
        files=Files(
            folder=folder,
            entrypoint=one.built.variant.entrypoint,
            cases=CASES,
            atol=one.golden.atol,
            rtol=one.golden.rtol,
            digests=_digests(out / folder),
            min_agreement=one.golden.min_agreement,
            inputs=_names(one.built.variant.inputs),
            outputs=_names(one.built.variant.outputs),
        ),
    )


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {p.relative_to(folder).as_posix(): digest.hash_file(p)[0] for p in files}
