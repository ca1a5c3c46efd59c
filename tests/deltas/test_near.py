"""Weights whose change is rounded: nearly the trained ones, and far cheaper to send."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save_file

from pilotwave_deltas import tensors
from pilotwave_deltas.generate import generate
from pilotwave_deltas.near import round_change, round_file
from tests.deltas.pairs import tuned, weights


def test_a_quantum_is_a_power_of_two_well_below_the_change() -> None:
    old = weights(10_000, 1, "float32").astype(np.float32)
    new = tuned(old, 2, 1e-3)
    found = round_change(old, new)
    assert found is not None
    moved = np.abs(found.astype(float) - new.astype(float)).max()
    spread = float(np.std(new.astype(float) - old.astype(float)))
    assert spread / 256 < moved <= spread / 64 + 1e-7
    assert round_change(old, old) is None


def test_what_is_no_number_stays() -> None:
    old = np.array([1, np.nan, 2, 3], np.float32)
    new = np.array([1.5, 2, np.inf, 3.1], np.float32)
    found = round_change(old, new, 0.25)
    assert found is not None
    assert found.tolist() == [1.5, 2, np.inf, 3]


@pytest.mark.parametrize("kind", ["safetensors", "onnx"])
def test_a_rounded_file_is_a_model_whose_delta_is_half(tmp_path: Path, kind: str) -> None:
    old = {"a.weight": weights(60_000, 1, "float32"), "b.bias": weights(100, 2, "float32")}
    new = {name: tuned(w, 3, 1e-3) for name, w in old.items()}
    paths = [tmp_path / name for name in ("old", "new", "out", "delta")]
    for path, values in zip(paths, (old, new), strict=False):
        write(path, kind, values)
    done = round_file(*paths[:3])
    assert done.tensors == 2
    found = read(paths[2], kind)
    for name, value in found.items():
        assert np.allclose(value, new[name], atol=1e-3)
    plain = generate(paths[0], paths[1], paths[3]).size
    assert generate(paths[0], paths[2], paths[3]).size < 0.7 * plain


def write(path: Path, kind: str, values: dict[str, np.ndarray]) -> None:  # type: ignore[type-arg]
    if kind == "safetensors":
        save_file(values, path)
        return
    made = [numpy_helper.from_array(a, name) for name, a in values.items()]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([], "g", [], [y], made)
    path.write_bytes(helper.make_model(graph).SerializeToString())


def read(path: Path, kind: str) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    if kind == "safetensors":
        return load_file(path)
    import onnx

    graph = onnx.load(path).graph
    return {t.name: numpy_helper.to_array(t) for t in graph.initializer}


@pytest.mark.parametrize("raw", [b"", b"\x08", b"\xff" * 40, b"\x20" + bytes(7) + b"{" * 40])
def test_what_is_no_model_has_no_tensors(raw: bytes) -> None:
    assert tensors.find(raw) == []
