"""Read what a model is calibrated and judged by: an `.npz` of inputs by name, and `labels`.

The first axis of each array counts the inputs. As in golden cases, it is the model's batch axis
where the array has the model's rank, and stands before all of the model's with a rank more.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pilotwave_cli.errors import CliError
from pilotwave_cli.optimize.layout import Array, row_fits
from pilotwave_cli.optimize.report import DataSet
from pilotwave_protocol.digest import hash_file
from pilotwave_protocol.manifest import TensorSpec

LABELS = "labels"


@dataclass(frozen=True)
class Data:
    """Inputs by name, all with as many rows; labels where the file has them."""

    path: Path
    sha256: str
    inputs: Mapping[str, Array]
    labels: NDArray[np.int64] | None = None

    @property
    def rows(self) -> int:
        """How many inputs there are."""
        return len(next(iter(self.inputs.values())))

    @property
    def described(self) -> DataSet:
        """What the report says of it."""
        return DataSet(self.sha256, self.rows)


def read_data(path: Path) -> Data:
    """Read a file, or raise `CliError` saying what is wrong with it."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise CliError(f"{path}: expected .npz, an array for each input by its name")
            arrays = {key: file[key] for key in file.files}
    except FileNotFoundError as e:
        raise CliError(f"{path}: no such file") from e
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as e:
        raise CliError(f"{path}: expected .npz of numbers: {e}") from e
    except MemoryError as e:
        raise CliError(f"{path}: does not fit into memory; save fewer inputs") from e
    labels = arrays.pop(LABELS, None)
    _check_rows(path, arrays)
    data = Data(path, hash_file(path)[0], arrays)
    if labels is None:
        return data
    return Data(path, data.sha256, arrays, _check_labels(path, labels, data.rows))


def _check_rows(path: Path, inputs: Mapping[str, Array]) -> None:
    if not inputs:
        raise CliError(f"{path}: expected an array for each input, by its name; there is none")
    counts = {len(a) if a.ndim else 0 for a in inputs.values()}
    if len(counts) != 1 or 0 in counts:
        words = ", ".join(f"{name} {list(a.shape)}" for name, a in inputs.items())
        raise CliError(f"{path}: expected as many rows in each array, at least one; got {words}")
    for name, array in inputs.items():
        if array.dtype.kind in "fc" and not np.isfinite(array).all():
            bad = int((~np.isfinite(array.reshape(len(array), -1))).any(axis=1).sum())
            rows = "row holds" if bad == 1 else "rows hold"
            raise CliError(f"{path}: {name}: {bad} {rows} NaN or infinity: leave them out")


def _check_labels(path: Path, labels: Array, rows: int) -> NDArray[np.int64]:
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise CliError(
            f"{path}: labels: expected one class number for each input, "
            f"integers of shape [{rows}]; got {labels.dtype} {list(labels.shape)}"
        )
    if len(labels) != rows:
        raise CliError(f"{path}: labels: expected {rows}, as there are inputs; got {len(labels)}")
    if len(set(labels.tolist())) == 1:
        raise CliError(
            f"{path}: labels: all are {labels[0]}; a variant that always answers so would pass: "
            "take inputs of two or more classes"
        )
    return labels.astype(np.int64)


def check_fits(data: Data, inputs: Iterable[TensorSpec]) -> None:
    """Raise `CliError` unless the model takes these inputs."""
    wanted = {t.name: t for t in inputs}
    if wanted.keys() != data.inputs.keys():
        raise CliError(
            f"{data.path}: the model takes {', '.join(wanted)}; "
            f"the file has {', '.join(data.inputs)}"
        )
    for name, array in data.inputs.items():
        tensor = wanted[name]
        if str(array.dtype) != tensor.dtype:
            raise CliError(
                f"{data.path}: {name}: expected {tensor.dtype}; got {array.dtype}: "
                f'save it with .astype("{tensor.dtype}")'
            )
        if not row_fits(array, tensor.shape):
            raise CliError(
                f"{data.path}: {name}: the model takes {sizes(tensor.shape)}; "
                f"a row of the file has {sizes(array.shape[1:])}"
            )


def check_classes(data: Data, classes: int, output: str) -> None:
    """Raise `CliError` unless the labels are numbers of classes that the output has."""
    if data.labels is None:
        return
    low, high = int(data.labels.min()), int(data.labels.max())
    if low < 0 or high >= classes:
        raise CliError(
            f"{data.path}: labels: expected numbers from 0 to {classes - 1}, as {output} "
            f"has {classes} classes; got {low if low < 0 else high}"
        )


def sizes(shape: Iterable[int]) -> str:
    """Write a shape as people read it, `?` for any size."""
    return "[" + ", ".join("?" if n < 0 else str(n) for n in shape) + "]"
