"""Small models and data for `pilotwave optimize`: the digits network, made harder to quantise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

from tests.cli.conftest import DIGITS

MODEL = DIGITS / "1.1.0" / "model.onnx"
CALIBRATION_ROWS = 200


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images on which the model was not trained, and what they show."""
    held_out = load_file(DIGITS / "held_out.safetensors")
    images = held_out["clean"].astype(np.float32) / held_out["clean"].max()
    return images, held_out["label"].astype(np.int64)


def write_data(folder: Path, **changes: Any) -> tuple[Path, Path]:
    """Write `cal.npz` and `test.npz`; `changes` stand for arrays of the latter, None for none."""
    images, labels = digits()
    np.savez(folder / "cal.npz", x=images[:CALIBRATION_ROWS])
    told = {"x": images[CALIBRATION_ROWS:], "labels": labels[CALIBRATION_ROWS:], **changes}
    np.savez(folder / "test.npz", **{name: a for name, a in told.items() if a is not None})
    return folder / "cal.npz", folder / "test.npz"


def write_depthwise(path: Path) -> Path:
    """The digits model behind a depthwise convolution, one of whose two filters is 500 times the
    other and sees nothing but zeros, as a channel that died in training does.

    One scale for both filters leaves nothing of the small one; a scale for each loses nothing.
    """
    model = onnx.load(MODEL)
    constants: dict[str, np.ndarray] = {
        "image": np.array([-1, 1, 8, 8]),
        "flat": np.array([-1, 64]),
        "starts": np.array([1]),
        "ends": np.array([2]),
        "axes": np.array([1]),
        "spread": np.array([0, 1], np.float32).reshape(2, 1, 1, 1),
        "filters": np.array([100, 0.2], np.float32).reshape(2, 1, 1, 1),
        "five": np.array(5, np.float32),
    }
    before = [
        helper.make_node("Reshape", ["x", "image"], ["i"]),
        helper.make_node("Conv", ["i", "spread"], ["c"]),
        helper.make_node("Conv", ["c", "filters"], ["d"], group=2),
        helper.make_node("Slice", ["d", "starts", "ends", "axes"], ["s"]),
        helper.make_node("Reshape", ["s", "flat"], ["r"]),
        helper.make_node("Mul", ["r", "five"], ["x2"]),
    ]
    return _behind(model, before, constants, path)


def write_with_import(path: Path, domain: str, version: int) -> Path:
    """The digits model with an opset import that none of its nodes uses."""
    model = onnx.load(MODEL)
    model.opset_import.append(helper.make_opsetid(domain, version))
    onnx.save(model, path)
    return path


def write_custom(path: Path) -> Path:
    """A model with an operator that no runtime has."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])
    node = helper.make_node("Secret", ["x"], ["y"], domain="com.example")
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    graph = helper.make_graph([node], "custom", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=9), path)
    return path


def write_with_sizes_by_floats(path: Path) -> Path:
    """The digits model behind an Expand to a size that is a float on its way, as tf2onnx exports
    it: ONNX's symbolic shape inference raises there. `Identity` is for what comes before
    quantising to take out."""
    nodes = [
        helper.make_node("Shape", ["x"], ["n"]),
        helper.make_node("Cast", ["n"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Ceil", ["f"], ["whole"]),
        helper.make_node("Cast", ["whole"], ["size"], to=TensorProto.INT64),
        helper.make_node("Expand", ["zero", "size"], ["zeros"]),
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("Add", ["same", "zeros"], ["x2"]),
    ]
    return _behind(onnx.load(MODEL), nodes, {"zero": np.array(0, np.float32)}, path)


def write_with_bias(path: Path, shape: list[int]) -> Path:
    """The digits model with the biases of its classes in an array of this shape, one that is
    broadcast; nothing is left of them where it holds one number."""
    model = onnx.load(MODEL)
    at = next(i for i, t in enumerate(model.graph.initializer) if t.name == "b2")
    bias = numpy_helper.to_array(model.graph.initializer[at])
    laid = bias.reshape(shape) if np.prod(shape) == bias.size else np.zeros(shape, np.float32)
    model.graph.initializer[at].CopyFrom(numpy_helper.from_array(laid, "b2"))
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def write_residual(path: Path, blocks: int = 4) -> Path:
    """The digits model behind residual blocks that pass the image on, each twice as bright.

    ONNX Runtime sums signed 8-bit numbers slower than floats, and unsigned ones quicker.
    """
    model = onnx.load(MODEL)
    channels = 64
    constants: dict[str, np.ndarray] = {
        "image": np.array([-1, 1, 8, 8]),
        "flat": np.array([-1, 64]),
        "starts": np.array([0]),
        "ends": np.array([1]),
        "axes": np.array([1]),
        "spread": np.full((channels, 1, 1, 1), 0.5**blocks, np.float32),
        "same": np.eye(channels, dtype=np.float32).reshape(channels, channels, 1, 1),
    }
    before = [
        helper.make_node("Reshape", ["x", "image"], ["i"]),
        helper.make_node("Conv", ["i", "spread"], ["r0"]),
    ]
    for i in range(blocks):
        before += [
            helper.make_node("Conv", [f"r{i}", "same"], [f"c{i}"]),
            helper.make_node("Add", [f"c{i}", f"r{i}"], [f"r{i + 1}"]),
        ]
    before += [
        helper.make_node("Slice", [f"r{blocks}", "starts", "ends", "axes"], ["s"]),
        helper.make_node("Reshape", ["s", "flat"], ["x2"]),
    ]
    return _behind(model, before, constants, path)


def write_any_size(path: Path) -> Path:
    """The digits model as `[N, 1, H, W]`, for images of any height and width."""
    model = onnx.load(MODEL)
    nodes = [
        helper.make_node("Resize", ["image", "", "", "sizes"], ["i"], axes=[2, 3]),
        helper.make_node("Reshape", ["i", "flat"], ["x2"]),
    ]
    constants = {"sizes": np.array([8, 8]), "flat": np.array([-1, 64])}
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, "H", "W"])
    model.graph.input[0].CopyFrom(image)
    model.opset_import[0].version = 18
    return _behind(model, nodes, constants, path)


def write_large_images(path: Path, size: int) -> Path:
    """The digits model for images that are each digit's, made `size` pixels wide and high."""
    model = onnx.load(MODEL)
    step = [size // 8, size // 8]
    nodes = [
        helper.make_node("AveragePool", ["image"], ["i"], kernel_shape=step, strides=step),
        helper.make_node("Reshape", ["i", "flat"], ["x2"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, size, size])
    model.graph.input[0].CopyFrom(image)
    return _behind(model, nodes, {"flat": np.array([-1, 64])}, path)


def _behind(
    model: onnx.ModelProto,
    before: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    path: Path,
) -> Path:
    """Write the model with these nodes before it, which make `x2` of `x`."""
    graph = model.graph
    graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in constants.items())
    graph.node[0].input[0] = "x2"
    nodes = [*before, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
