"""`publish --near`: publish weights that differ from an older version's by whole quanta.

What is published is an ordinary version, exact by its hashes. It is checked before: against the
golden inputs, and by a command that may evaluate it.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from pilotwave_cli import output
from pilotwave_cli.client import Api, connect
from pilotwave_cli.errors import CliError, Failed
from pilotwave_cli.publish.build_manifest import Built
from pilotwave_protocol import names
from pilotwave_protocol.tensortypes import CASES

LARGEST = 4 << 30


@dataclass(frozen=True)
class NearOptions:
    """The older version, the quantum, the command that evaluates what was rounded."""

    near: Annotated[
        str, typer.Option(help="Round the weights towards this version, for smaller deltas.")
    ] = ""
    quantum: Annotated[
        str,
        typer.Option(help="Round to multiples of the power of two below this; auto: per tensor."),
    ] = "auto"
    near_check: Annotated[
        str, typer.Option(help="Command that checks the rounded folder; exit status 0 accepts it.")
    ] = ""

    def step(self) -> float | None:
        """Return the quantum (None: chosen for each tensor), or raise `CliError`."""
        if self.quantum == "auto":
            return None
        try:
            value = float(self.quantum)
        except ValueError:
            value = 0.0
        if not 0 < value < float("inf"):
            raise CliError(
                f"--quantum: expected auto or a number above 0; got {self.quantum!r:.40}"
            )
        return value


@contextmanager
def rounded(model: str, wish: NearOptions, built: list[Built]) -> Iterator[dict[str, Path]]:
    """Give a folder for each variant whose weights are rounded towards the older version's."""
    near = names.check_version(wish.near)
    wish.step()
    with connect() as api, tempfile.TemporaryDirectory(prefix="pilotwave-near-") as temp:
        shown = api.get(f"/models/{model}/versions/{near}")
        before = {v["name"]: {f["path"]: f for f in v["files"]} for v in shown["variants"]}
        folders = {}
        for made in built:
            name = made.variant.name
            if name not in before:
                raise CliError(f"--near: {model} {near} has no variant {name}")
            folder = Path(temp) / name
            folders[name] = folder / "new"
            _round_variant(api, made, before[name], folder, wish)
            _evaluate(made, folders[name], wish.near_check)
        yield folders


def _round_variant(
    api: Api, made: Built, before: Mapping[str, dict[str, object]], folder: Path, wish: NearOptions
) -> None:
    from pilotwave_deltas.generate import generate
    from pilotwave_deltas.near import round_file

    near, step, saved, count = wish.near, wish.step(), 0, 0
    largest = 0.0
    for entry in made.variant.files:
        source, target = made.sources[entry.sha256], folder / "new" / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        old = before.get(entry.path)
        if old is None or old["sha256"] == entry.sha256 or entry.path == CASES:
            shutil.copyfile(source, target)
            continue
        if entry.size > LARGEST:
            raise CliError(f"{entry.path}: files up to {output.size(LARGEST)} can be rounded")
        kept = folder / "old"
        kept.write_bytes(api.send("GET", f"/blobs/{old['sha256']}").content)
        done = round_file(kept, source, target, step)
        plain = generate(kept, source, folder / "delta").size
        saved += plain - generate(kept, target, folder / "delta").size
        count, largest = count + done.tensors, max(largest, done.largest)
    if not count:
        name = made.variant.name
        raise CliError(f"--near: {name} has no float tensor that {near} has too")
    output.say(
        f"{made.variant.name}: {count} tensors rounded, no weight by more than {largest:.3g}; "
        f"the delta from {near} is {output.size(max(saved, 0))} smaller"
    )


def _evaluate(made: Built, folder: Path, near_check: str) -> None:
    """Refuse what fails the golden inputs or the command."""
    from pilotwave_deltas.outputs import compare

    variant = made.variant
    entry = next(f for f in variant.files if f.path == variant.entrypoint)
    test, found = variant.selftest, None
    if test is not None and variant.format == "onnx":
        found = compare(
            made.sources[entry.sha256],
            folder / entry.path,
            folder / CASES,
            atol=float(test.atol),
            rtol=float(test.rtol),
        )
    if found is not None:
        output.say(
            f"{variant.name}: outputs on the golden inputs moved by {found.between:.3g} at most, "
            f"and are {found.from_golden:.3g} from the golden ones"
        )
        if not found.good:
            raise Failed(f"{variant.name}: rounded, it fails its golden inputs: a finer --quantum?")
    elif not near_check:
        output.warn(f"{variant.name}: its outputs were not checked here; say --near-check COMMAND")
    if near_check:
        command = [*shlex.split(near_check), str(folder)]
        if subprocess.run(command, check=False).returncode:
            raise Failed(f"{variant.name}: {near_check} says no; nothing was published")
