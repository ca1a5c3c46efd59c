"""A classifier whose embedding is among its outputs, as an ONNX file."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def classifier(hidden: tuple[np.ndarray, np.ndarray], head: np.ndarray) -> bytes:
    """`x` [N, in] to `active` [N, features] and `probs` [N, classes]; `head` is [features + 1,
    classes], its last row the bias."""
    w, b = hidden
    weights = {"w1": w, "b1": b, "w2": head[:-1], "b2": head[-1]}
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w1", "b1"], ["hidden"]),
            helper.make_node("Relu", ["hidden"], ["active"]),
            helper.make_node("Gemm", ["active", "w2", "b2"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probs"], axis=-1),
        ],
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", w.shape[0]])],
        [
            helper.make_tensor_value_info("active", TensorProto.FLOAT, ["N", w.shape[1]]),
            helper.make_tensor_value_info("probs", TensorProto.FLOAT, ["N", head.shape[1]]),
        ],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in weights.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    return bytes(model.SerializeToString(deterministic=True))


def any_classifier(inputs: int = 4, features: int = 6, classes: int = 3) -> bytes:
    random = np.random.default_rng(7)
    hidden = random.normal(size=(inputs, features)), random.normal(size=features)
    return classifier(hidden, random.normal(size=(features + 1, classes)))
