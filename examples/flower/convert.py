"""Put weights that were trained elsewhere into the model's ONNX file.

    python -m examples.flower.convert BASE.onnx TRAINED.safetensors OUT.onnx

Many machines had a hand in the weights, and none signed them. So the file is safetensors, which
holds numbers and no code (a pickle is a program), and has to have all of the model's weights, by
name, type and shape, and nothing else. Whether they are any good is for `pilotwave optimize`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from safetensors import SafetensorError
from safetensors.numpy import load

Weights = Mapping[str, NDArray[np.float32]]
HEADER_BYTES = 1 << 16


class BadWeights(ValueError):
    """The file does not hold the model's weights."""


def weights_of(model: Path) -> Weights:
    """Return a model's weights by their names in the ONNX file."""
    found = map(_named, onnx.load(model).graph.initializer)
    return {name: array for name, array in found if array.dtype == np.float32}


def read_weights(file: Path, base: Weights) -> Weights:
    """Read weights that fit a base's, or raise `BadWeights`."""
    most = sum(array.nbytes for array in base.values()) + HEADER_BYTES
    if (size := file.stat().st_size) > most:
        raise BadWeights(f"{file}: {size} bytes; the model's weights take at most {most}")
    try:
        found = load(file.read_bytes())
    except (SafetensorError, KeyError, ValueError, TypeError) as e:
        raise BadWeights(f"{file}: expected safetensors: {e}") from e
    if missing := sorted(base.keys() - found.keys()):
        raise BadWeights(f"{file}: weights are missing: {', '.join(missing)}")
    if strange := sorted(found.keys() - base.keys()):
        raise BadWeights(f"{file}: weights that are not the model's: {', '.join(strange)}")
    for name, array in base.items():
        _check(f"{file}: {name}", found[name], array.shape)
    return found


def convert(base: Path, file: Path, out: Path) -> None:
    """Write the base model with the file's weights. Raises `BadWeights`."""
    model = onnx.load(base)
    weights = read_weights(file, weights_of(base))
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    out.write_bytes(model.SerializeToString())


def _named(tensor: onnx.TensorProto) -> tuple[str, NDArray[np.float32]]:
    return tensor.name, numpy_helper.to_array(tensor)


def _check(where: str, array: NDArray[np.float32], shape: tuple[int, ...]) -> None:
    if array.dtype != np.float32 or array.shape != shape:
        got = f"{array.dtype} {list(array.shape)}"
        raise BadWeights(f"{where}: expected float32 {list(shape)}; got {got}")
    if not np.isfinite(array).all():
        raise BadWeights(f"{where}: expected finite numbers; got an infinity or no number")


def main(base: str, file: str, out: str) -> int:
    """Convert, and say what was wrong where that is refused."""
    try:
        convert(Path(base), Path(file), Path(out))
    except (BadWeights, OSError) as e:
        print(e, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
