"""`pilotwave optimize`: from one model to a build for each runtime, guarded by data.

It runs at the publisher's desk or in CI: it needs the data, and what it makes is signed. Nothing is
left half done: the folder of results is built aside and renamed when all of it is there.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from pilotwave_cli import output
from pilotwave_cli.durations import pairs
from pilotwave_cli.errors import CliError, Failed
from pilotwave_cli.optimize import guard
from pilotwave_cli.optimize.data import Data, check_fits, read_data, sizes
from pilotwave_cli.optimize.make_variants import (
    Desk,
    Made,
    keep,
    make,
    measure,
    onnx_of,
    run_source,
    try_variant,
)
from pilotwave_cli.optimize.recipes import BY_NAME, ONNX2TF, RECIPES, SOURCE, Recipe
from pilotwave_cli.optimize.report import REPORT, TABLE, Guard, Report, State
from pilotwave_cli.optimize.report import Source as SourceFile
from pilotwave_cli.optimize.run_tool import Limits
from pilotwave_cli.optimize.source import Original, copied, read_source
from pilotwave_cli.optimize.table import as_text, ordered
from pilotwave_cli.options import spread
from pilotwave_cli.output import Json
from pilotwave_cli.publish.ask_agent import AGENT, find_agent
from pilotwave_cli.shares import read_share
from pilotwave_protocol import names

Words = list[str] | None


@dataclass(frozen=True)
class DataOptions:
    """What the variants come from, and what they are judged by."""

    source: Annotated[
        Path, typer.Argument(help="ONNX model with fp32 weights, or a PyTorch export (.pt2).")
    ]
    calibration: Annotated[
        Path, typer.Option(help="Inputs by name (.npz) to find the ranges of 8-bit numbers.")
    ]
    evaluate: Annotated[
        Path, typer.Option(help="Other inputs by name, with their classes as `labels` (.npz).")
    ]
    out: Annotated[Path, typer.Option(help="Folder to make.")]
    max_loss: Annotated[str, typer.Option(help="Share that may get worse, such as 1%.")] = "1%"
    output: Annotated[str | None, typer.Option(help="Output that scores the classes.")] = None


@dataclass(frozen=True)
class ChoiceOptions:
    """Which variants are made, and what each step may take."""

    only: Annotated[Words, typer.Option(help="Make only this variant; repeatable.")] = None
    also: Annotated[
        Words, typer.Option(help="NAME=FILE: judge this one too, such as a pruned one; repeatable.")
    ] = None
    onnx2tf_python: Annotated[
        Path | None, typer.Option(help="Python 3.12 with onnx2tf, for LiteRT variants.")
    ] = None
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for each step at most.")] = 1800
    memory: Annotated[int, typer.Option(min=64, help="MiB for each step at most.")] = 8192

    def told(self) -> dict[str, str]:
        """Return what tools are told beside the data, or raise `CliError`."""
        python = self.onnx2tf_python
        if python is None:
            return {}
        if not os.access(python, os.X_OK):
            raise CliError(f"--onnx2tf-python {python}: expected a Python interpreter")
        return {ONNX2TF: str(python.absolute())}

    def recipes(self) -> list[Recipe]:
        """Return the variants to make, or raise `CliError`."""
        for name in self.only or []:
            if name not in BY_NAME:
                raise CliError(f"--only: expected one of {', '.join(BY_NAME)}; got {name}")
        return [r for r in RECIPES if not self.only or r.name in self.only]

    def further(self, taken: list[Recipe]) -> dict[str, Path]:
        """Return the publisher's own variants by name, or raise `CliError` or `BadName`."""
        found = pairs(self.also or [], "--also", "NAME=FILE, such as pruned=small.onnx")
        if len(found) != len(self.also or []):
            raise CliError("--also: expected each name once")
        for name in found:
            names.check_variant(name)
            if name in {recipe.name for recipe in taken}:
                raise CliError(f"--also: {name} is made here; choose another name")
            if not Path(found[name]).exists():
                raise CliError(f"--also {name}: {found[name]}: no such file or folder")
        return {name: Path(path) for name, path in found.items()}


def add_to(cli: typer.Typer) -> None:
    """Add the command that stands at the top."""
    cli.command("optimize")(optimize)


@spread
def optimize(what: DataOptions, *, choice: ChoiceOptions, as_json: Json = False) -> None:
    """Make int8 and fp16 variants of a model, and keep those that lose little."""
    max_loss = read_share("--max-loss", what.max_loss)
    recipes = choice.recipes()
    also = choice.further(recipes)
    _check_out(what.out)
    agent = find_agent()
    if agent is None:
        raise CliError(f"{AGENT} is not installed here: pip install 'pilotwave[onnxruntime]'")
    with _aside(what.out) as aside:
        calibration, evaluate = read_data(what.calibration), read_data(what.evaluate)
        desk = Desk(
            agent=agent,
            work=aside / "work",
            calibration=calibration,
            evaluate=evaluate,
            limits=Limits(choice.timeout, choice.memory),
            max_loss=max_loss,
            options=choice.told(),
            say=output.warn,
        )
        desk.work.mkdir()
        original = read_source(what.source, partial(onnx_of, desk))
        recipes = possible(recipes, original, choice.only or [])
        _check_data(original, calibration, evaluate, max_loss)
        made = _make_all(desk, original, recipes, also, what.output)
        report = _write(desk, original, made, recipes, aside / "result")
        if not report.accepted:
            raise Failed(f"no variant was accepted, so {what.out} was not made\n{as_text(report)}")
        os.rename(aside / "result", what.out)
    if as_json:
        print((what.out / REPORT).read_text(), end="")
    else:
        output.say(as_text(report))
        count = len(report.accepted)
        output.say(f"wrote {count} {'variant' if count == 1 else 'variants'} to {what.out}")


def possible(recipes: list[Recipe], original: Original, asked: list[str]) -> list[Recipe]:
    """Return the variants that can be made of the source, or raise `CliError` where another one was
    asked for by name."""
    if original.is_export:
        return recipes
    for recipe in recipes:
        if recipe.of_export and recipe.name in asked:
            raise CliError(
                f"--only {recipe.name}: is made of a PyTorch export (torch.export.save) alone; "
                f"{original.path} is ONNX"
            )
    return [r for r in recipes if not r.of_export]


def _check_out(out: Path) -> None:
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        raise CliError(f"--out {out}: is there already; name a new folder, or remove it")
    if not out.absolute().parent.is_dir():
        raise CliError(f"--out {out}: {out.absolute().parent} is no folder")


def _check_data(original: Original, calibration: Data, evaluate: Data, max_loss: float) -> None:
    for data in (calibration, evaluate):
        check_fits(data, original.inputs)
    if calibration.sha256 == evaluate.sha256:
        raise CliError(
            "--evaluate is the same data as --calibration: a variant is judged by other inputs "
            "than it was made with"
        )
    least = guard.enough(0, max_loss)
    if least is not None and evaluate.rows < least:
        what = "labelled inputs" if evaluate.labels is not None else "inputs"
        raise CliError(
            f"{evaluate.path}: {evaluate.rows} {what} are too few to show a loss of at most "
            f"{guard.percent(max_loss)}: expected {least} or more"
        )
    if calibration.rows < 100:
        output.warn(
            f"{calibration.path}: {calibration.rows} inputs are few to calibrate on: classes may "
            "hold, scores move; 100 to 500 are usual"
        )
    _warn_of_sizes(original, evaluate)


def _warn_of_sizes(original: Original, evaluate: Data) -> None:
    for tensor in original.inputs:
        array = evaluate.inputs[tensor.name]
        whole = tensor.shape if array.ndim > len(tensor.shape) else tensor.shape[1:]
        if -1 in whole:
            output.warn(
                f"{tensor.name}: the model takes {sizes(whole)}; its variants are judged at "
                f"{sizes(array.shape[1:])} alone, and LiteRT's take nothing else"
            )


@contextmanager
def _aside(out: Path) -> Iterator[Path]:
    """Give a folder beside `out` that is gone at the end, also after Ctrl-C or SIGTERM."""
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.absolute().parent) as name:
            yield Path(name)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _make_all(
    desk: Desk, original: Original, recipes: list[Recipe], also: dict[str, Path], chosen: str | None
) -> list[Made]:
    """Make all variants and measure them; the source stands first, wanted or not."""
    shapes = {t.name: t.shape for t in original.inputs}
    desk.say(f"{original.path}: opening it as {SOURCE.name}")
    folder = make(desk, SOURCE, original.model, shapes)
    source = run_source(desk, folder, chosen)
    made = [try_variant(desk, source, SOURCE, lambda: folder)]
    for recipe in recipes:
        if recipe is not SOURCE:
            model = original.path if recipe.of_export else folder / SOURCE.entrypoint
            obtain = partial(make, desk, recipe, model, shapes)
            made.append(try_variant(desk, source, recipe, obtain))
    for name, path in also.items():
        recipe = replace(SOURCE, name=name, precision="")  # the file says the rest
        made.append(try_variant(desk, source, recipe, partial(copied, path, desk.work / name)))
    measure(desk, made)
    return made


def _write(
    desk: Desk, original: Original, made: list[Made], recipes: list[Recipe], out: Path
) -> Report:
    """Write the folder of results; its report last."""
    out.mkdir()
    first = made[0]
    if first.row.state is not State.ACCEPTED or first.machine is None:
        raise Failed(f"the source model cannot be judged: {first.row.why}")
    wanted = made if SOURCE in recipes else made[1:]
    for one in wanted:
        keep(one, out)
    evaluate = desk.evaluate
    report = Report(
        source=SourceFile(original.path.name, original.sha256, original.size),
        calibration=desk.calibration.described,
        evaluate=evaluate.described,
        labelled=evaluate.labels is not None,
        guard=Guard(f"{desk.max_loss:g}", f"{guard.CONFIDENCE:g}"),
        tools=_versions(recipes),
        machine=first.machine,
        rows=ordered([one.row for one in wanted], float(first.row.figures.p05_ms or 0)),
    )
    (out / TABLE).write_text(as_text(report))
    _sync(out)
    _write_synced(out / REPORT, report.to_bytes())
    return report


def _versions(recipes: list[Recipe]) -> dict[str, str]:
    found = {}
    for package in sorted({name.replace("_", "-") for r in recipes for name in r.modules}):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _sync(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _write_synced(path: Path, raw: bytes) -> None:
    with path.open("wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
