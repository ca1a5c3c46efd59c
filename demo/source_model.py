"""Make the one source model of the demo of variants, and the data to judge its variants by.

Two convolutions with weights drawn at random, then one layer fitted to the example's digits: large
enough that 8 bits pay where the processor has the instructions for them, made in a second. A model
with an eighth of the filters stands for a pruned one, as ONNX and in OpenVINO's files.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

DIGITS = Path(__file__).resolve().parent.parent / "examples" / "digits" / "held_out.safetensors"
CHANNELS, FEWER, CLASSES, SIDE, CALIBRATE = 96, 12, 10, 16, 100


def build(readout: np.ndarray, bias: np.ndarray, filters: int) -> onnx.ModelProto:
    """Return the network of so many filters with this last layer."""
    rng = np.random.default_rng(7)

    def drawn(out: int, of: int) -> np.ndarray:
        scale = np.sqrt(2 / (of * 9))
        return (rng.standard_normal((out, of, 3, 3)) * scale).astype(np.float32)

    weights = {
        "w1": drawn(filters, 1),
        "w2": drawn(filters, filters),
        "w3": readout.astype(np.float32),
        "b3": bias.astype(np.float32),
    }
    same = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], **same),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], **same),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("MaxPool", ["r2"], ["p2"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Flatten", ["p2"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["logits"]),
    ]
    shapes = {"x": ["N", 1, SIDE, SIDE], "logits": ["N", readout.shape[1]]}
    x, logits = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items())
    stored = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "digits", [x], [logits], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def answers(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found: np.ndarray = session.run(None, {"x": images})[0]
    return found


def fitted(images: np.ndarray, labels: np.ndarray, filters: int = CHANNELS) -> onnx.ModelProto:
    """Fit the last layer by ridge regression on what the convolutions make of the images."""
    width = filters * (SIDE // 4) ** 2
    features = answers(build(np.eye(width), np.zeros(width), filters), images).astype(np.float64)
    mean = features.mean(0)
    centred, wanted = features - mean, np.eye(CLASSES)[labels] * 2 - 1
    readout = np.linalg.solve(centred.T @ centred + 30 * np.eye(width), centred.T @ wanted)
    return build(readout, wanted.mean(0) - mean @ readout, filters)


def main(folder: Path) -> None:
    """Write model.onnx, pruned.onnx, the folder pruned-openvino, cal.npz and test.npz."""
    data = load_file(DIGITS)
    drawn = data["clean"].reshape(-1, 1, 8, 8).astype(np.float32) / 16
    images, labels = drawn.repeat(2, 2).repeat(2, 3), data["label"].astype(np.int64)
    onnx.save(fitted(images, labels), folder / "model.onnx")
    onnx.save(fitted(images, labels, FEWER), folder / "pruned.onnx")
    small = openvino.convert_model(folder / "pruned.onnx")
    openvino.save_model(small, folder / "pruned-openvino" / "model.xml", compress_to_fp16=False)
    np.savez(folder / "cal.npz", x=images[:CALIBRATE])
    np.savez(folder / "test.npz", x=images[CALIBRATE:], labels=labels[CALIBRATE:])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
