"""`pilotwave golden`: run a model on inputs, and write its answers as golden cases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pilotwave_cli import output
from pilotwave_cli.errors import CliError
from pilotwave_cli.publish.ask_agent import AGENT, TIMEOUT_S, ask_golden, find_agent
from pilotwave_cli.publish.build_manifest import build_variant
from pilotwave_cli.publish.lay_out import laid_out
from pilotwave_cli.publish.variant_options import VariantOptions
from pilotwave_protocol.tensortypes import CASES, CASES_JSON

_TOLERANCE = 1e-3


def add_to(cli: typer.Typer) -> None:
    """Add the command that stands at the top."""
    cli.command("golden")(golden)


def golden(
    source: Annotated[Path, typer.Argument(help="Model file, or folder of a variant.")],
    inputs: Annotated[
        Path, typer.Option("--inputs", help="Inputs: .npz, .npy or .safetensors, by name.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write to. [default: the model's]")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Use at most this many.")] = 64,
    entrypoint: Annotated[str | None, typer.Option(help="File that the runtime opens.")] = None,
    runtime: Annotated[str | None, typer.Option(help="Runtime to use. [default: detected]")] = None,
    unsafe_format: Annotated[
        bool, typer.Option("--unsafe-format", help="Allow formats that can run code.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=1, max=3600, help="Seconds at most.")] = TIMEOUT_S,
) -> None:
    """Run a model on inputs and write its answers as golden cases."""
    agent = find_agent()
    if agent is None:
        raise CliError(f"{AGENT} is not installed here: pip install 'pilotwave[onnxruntime]'")
    if not inputs.is_file():
        raise CliError(f"{inputs}: no such file")
    folder = out or (source if source.is_dir() else source.parent)
    if not folder.is_dir():
        raise CliError(f"{folder}: no such folder")
    wanted = VariantOptions(runtime=runtime, entrypoint=entrypoint, unsafe_format=unsafe_format)
    with laid_out({"golden": source}) as paths:
        built = build_variant("golden", paths["golden"], wanted, with_cases=False)
        found = ask_golden(agent, built, inputs, folder, limit, timeout)
    if found.get("ok") is not True:
        sentence = found.get("sentence") or f"{AGENT} gave no answer; is it an older one?"
        raise CliError(f"{source}: {output.plain(sentence)}")
    written = [name for name in (CASES, CASES_JSON) if (folder / name).exists()]
    cases = int(found["cases"])
    output.say(f"wrote {cases} {'case' if cases == 1 else 'cases'} to {folder / written[0]}")
    if found["nonfinite"]:
        output.warn(
            f"the answers to {found['nonfinite']} of them hold NaN or infinity: leave these inputs "
            "out, unless that is the right answer"
        )
    if found["worst"] > _TOLERANCE:
        output.warn(
            f"two runs of one input differ by up to {found['worst']:.3g}: publish with a wider "
            f"tolerance, such as --atol {2 * found['worst']:.1g}"
        )
