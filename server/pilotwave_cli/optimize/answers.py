"""Have a variant answer data in its own runtime, through the device's own self-test process."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from pilotwave_cli import output
from pilotwave_cli.errors import CliError
from pilotwave_cli.optimize.layout import Array, turned
from pilotwave_cli.optimize.run_tool import check_room
from pilotwave_cli.publish.ask_agent import ask_golden, folder_of
from pilotwave_cli.publish.build_manifest import Built
from pilotwave_protocol.manifest import TensorSpec
from pilotwave_protocol.tensortypes import CASES

_CHUNK_BYTES = 24 << 20  # the self-test's process writes them, with the outputs, to one file


class DoesNotRun(CliError):
    """The variant does not run in its runtime; the sentence is the row's."""


@dataclass(frozen=True)
class Answers:
    """Inputs as the variant took them, its outputs, and by how much two runs of one differed."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    apart: float

    def finite(self) -> bool:
        """Say whether no output holds NaN or infinity."""
        return all(np.isfinite(a).all() for a in self.outputs.values() if a.dtype.kind in "fc")


def answers_of(agent: str, made: Built, inputs: Mapping[str, Array], timeout: float) -> Answers:
    """Run the variant on all inputs. Raises `DoesNotRun`, `OSError` where the disk is full."""
    found: list[Mapping[str, Array]] = []
    apart = 0.0
    for part in _chunks(inputs):
        beside = folder_of(made).parent.absolute()
        with tempfile.TemporaryDirectory(prefix=".answers-", dir=beside) as scratch:
            folder = Path(scratch)
            given = folder / "inputs.safetensors"
            given.write_bytes(save({n: np.ascontiguousarray(a) for n, a in part.items()}))
            rows = len(next(iter(part.values())))
            said = ask_golden(agent, made, given, folder, rows, timeout)
            if said.get("ok") is not True:
                check_room(folder)
                sentence = output.plain(said.get("sentence") or "the agent gave no answer")
                raise DoesNotRun(f"it does not run in {made.variant.runtime}: {sentence}")
            apart = max(apart, float(said["worst"]))
            found.append(_outputs(folder / CASES))
    whole = {n: np.concatenate([part[n] for part in found]) for n in found[0]}
    return Answers(inputs, whole, apart)


def _chunks(inputs: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
    """Yield parts whose answers fit into a file of 64 MiB, the largest that a self-test writes."""
    rows = len(next(iter(inputs.values())))
    row_bytes = max(sum(a.nbytes for a in inputs.values()) // rows, 1)
    step = max(_CHUNK_BYTES // row_bytes, 1)
    for start in range(0, rows, step):
        yield {n: a[start : start + step] for n, a in inputs.items()}


def _outputs(path: Path) -> dict[str, Array]:
    try:
        cases = load_file(path)
    except (FileNotFoundError, SafetensorError, KeyError, TypeError) as e:
        raise DoesNotRun("its answers hold texts or types that cannot be compared here") from e
    return {n.removeprefix("output."): a for n, a in cases.items() if n.startswith("output.")}


def judged_output(answers: Answers, chosen: str | None) -> str:
    """Return the name of the one output that scores classes. Raises `CliError`."""
    found = class_output(answers.outputs, chosen)
    if found is None:
        raise CliError(
            "the guard compares classes: expected one output of shape [rows, classes]; "
            f"the model has {_shapes(answers.outputs)}"
        )
    return found


def class_output(outputs: Mapping[str, Array], chosen: str | None) -> str | None:
    """Return the name of the one output that scores classes; None where there is none. Raises
    `CliError` where there are several, or not the chosen one."""
    fits = [
        n for n, a in outputs.items() if a.ndim == 2 and a.shape[1] > 1 and a.dtype.kind in "fiu"
    ]
    if chosen in fits:
        return chosen
    if chosen is None and len(fits) < 2:
        return fits[0] if fits else None
    raise CliError(
        "expected one output of shape [rows, classes]"
        f"{', or which of them by --output' if len(fits) > 1 else ''}; "
        f"the model has {_shapes(outputs)}"
    )


def _shapes(outputs: Mapping[str, Array]) -> str:
    return ", ".join(f"{name} {list(a.shape)}" for name, a in outputs.items())


def write_cases(path: Path, answers: Answers, rows: Sequence[int], outputs: Sequence[str]) -> None:
    """Write these rows of the answers as golden cases."""
    chosen = np.asarray(rows)
    told = {f"input.{n}": np.ascontiguousarray(a[chosen]) for n, a in answers.inputs.items()}
    told |= {f"output.{n}": np.ascontiguousarray(answers.outputs[n][chosen]) for n in outputs}
    path.write_bytes(save(told))


def fitted(inputs: Mapping[str, Array], wanted: Sequence[TensorSpec]) -> dict[str, Array]:
    """Return the inputs by the variant's names and in its layout: a converter may have renamed
    the only input, or turned channels-first images into channels-last. Raises `DoesNotRun`."""
    if len(wanted) != len(inputs):
        raise DoesNotRun(f"it takes {len(wanted)} inputs, and the source {len(inputs)}")
    single = next(iter(inputs.values())) if len(inputs) == 1 else None
    found = {}
    for tensor in wanted:
        array = inputs.get(tensor.name, single)
        if array is None:
            raise DoesNotRun(f"it takes an input {tensor.name}, which the source has not")
        laid = turned(array, tensor.shape)
        if laid is None:
            sizes = list(tensor.shape)
            raise DoesNotRun(f"its input {tensor.name} is {sizes}; the source's rows do not fit")
        found[tensor.name] = laid
    return found
