"""`pilotwave reference`: run a model on inputs, and write down what its answers look like."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pilotwave_cli import output as screen
from pilotwave_cli.errors import CliError
from pilotwave_cli.optimize.answers import answers_of, class_output, fitted
from pilotwave_cli.optimize.data import read_data
from pilotwave_cli.optimize.layout import Array
from pilotwave_cli.publish.ask_agent import AGENT, TIMEOUT_S, find_agent
from pilotwave_cli.publish.build_manifest import build_variant
from pilotwave_cli.publish.lay_out import laid_out
from pilotwave_cli.publish.variant_options import VariantOptions
from pilotwave_cli.reference.make_reference import make_reference
from pilotwave_protocol.reference import LOW_CONFIDENCE, REFERENCE, Reference, outside_of


def add_to(cli: typer.Typer) -> None:
    """Add the command that stands at the top."""
    cli.command("reference")(reference)


def reference(
    source: Annotated[Path, typer.Argument(help="Model file, or folder of a variant.")],
    inputs: Annotated[
        Path, typer.Option("--inputs", help="Inputs as devices meet them, by name (.npz).")
    ],
    observed: Annotated[
        Path | None,
        typer.Option(help="What the application observes of them, by name (.npz), or `score`."),
    ] = None,
    output: Annotated[str | None, typer.Option(help="Output that scores the classes.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write to. [default: the model's]")
    ] = None,
    entrypoint: Annotated[str | None, typer.Option(help="File that the runtime opens.")] = None,
    runtime: Annotated[str | None, typer.Option(help="Runtime to use. [default: detected]")] = None,
    unsafe_format: Annotated[
        bool, typer.Option("--unsafe-format", help="Allow formats that can run code.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=1, max=3600, help="Seconds at most.")] = TIMEOUT_S,
) -> None:
    """Write a model's reference: devices notice by it that their inputs drift."""
    folder = out or (source if source.is_dir() else source.parent)
    if not folder.is_dir():
        raise CliError(f"{folder}: no such folder")
    wanted = VariantOptions(runtime=runtime, entrypoint=entrypoint, unsafe_format=unsafe_format)
    name, answers = _answers(source, inputs, wanted, output, timeout)
    numbers = read_data(observed).inputs if observed else {}
    made = make_reference(name, answers, numbers)
    if made.confidence is None and not made.numbers:
        raise CliError(
            f"{source}: has no output of shape [rows, classes] in floats, and nothing was observed:"
            " there is nothing to watch. Give the application's numbers with --observed"
        )
    (folder / REFERENCE).write_bytes(made.to_bytes())
    screen.say(f"wrote {folder / REFERENCE} of {made.inputs} inputs: {_described(made)}")


def _answers(
    source: Path, inputs: Path, wanted: VariantOptions, output: str | None, timeout: float
) -> tuple[str | None, Array | None]:
    """Return the output that scores classes and what it answered; nothing where there is none."""
    agent = find_agent()
    if agent is None:
        raise CliError(f"{AGENT} is not installed here: pip install 'pilotwave[onnxruntime]'")
    data = read_data(inputs)
    with laid_out({"reference": source}) as paths:
        built = build_variant("reference", paths["reference"], wanted, with_cases=False)
        given = fitted(data.inputs, built.variant.inputs) if built.variant.inputs else data.inputs
        found = answers_of(agent, built, given, timeout).outputs
    name = class_output(found, output)
    return name, found[name] if name else None


def _described(made: Reference) -> str:
    parts = []
    if made.confidence is not None:
        bound = made.bound(LOW_CONFIDENCE) or 0.0
        parts.append(f"at most {bound:.1%} may have a confidence below {made.confidence.below:.4g}")
    for name, edges in made.numbers.items():
        bound = made.bound(outside_of(name)) or 0.0
        parts.append(f"{bound:.1%} a {name} outside {edges.low:.4g} to {edges.high:.4g}")
    return ", ".join(parts)
