"""Another last layer in an ONNX file: by whichever nodes it is made, or not at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from pilotwave_cli.learn.base_version import Judged
from pilotwave_cli.learn.head_file import scaled
from pilotwave_cli.optimize.data import Data
from pilotwave_cli.optimize.tools.onnx_head import head_of, replace_head
from pilotwave_protocol.learning.statistics import scores

W = np.arange(6, dtype=np.float32).reshape(3, 2)
B = np.array([1, 2], np.float32)
HEAD = np.array([[9, 8], [7, 6], [5, 4], [3, 2]], np.float32)
node = helper.make_node


def graph(nodes: Sequence[NodeProto], w: np.ndarray = W) -> onnx.GraphProto:
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", None]) for n in "xy"]
    weights = [numpy_helper.from_array(v, n) for n, v in (("w", w), ("b", B))]
    return helper.make_graph(list(nodes), "head", outputs[:1], outputs[1:], weights)


def weights_of(found: onnx.GraphProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in found.initializer}


@pytest.mark.parametrize(
    ("nodes", "w"),
    [
        ([node("Gemm", ["x", "w", "b"], ["y"])], W),
        # as PyTorch exports a linear layer
        ([node("Gemm", ["x", "w", "b"], ["y"], transB=1)], W.T.copy()),
        ([node("MatMul", ["x", "w"], ["z"]), node("Add", ["z", "b"], ["y"])], W),
        ([node("MatMul", ["x", "w"], ["z"]), node("Add", ["b", "z"], ["y"])], W),
    ],
    ids=["Gemm", "Gemm turned", "MatMul and Add", "MatMul and Add the other way round"],
)
def test_the_layer_that_reads_the_embedding_is_replaced(
    nodes: Sequence[NodeProto], w: np.ndarray
) -> None:
    found = graph(nodes, w)
    np.testing.assert_array_equal(head_of(found, "x"), np.vstack([W, B]))
    replace_head(found, "x", HEAD)
    np.testing.assert_array_equal(head_of(found, "x"), HEAD)
    after = weights_of(found)
    turned = after["w"].T if w.shape != W.shape else after["w"]
    np.testing.assert_array_equal(turned, HEAD[:-1])
    np.testing.assert_array_equal(after["b"], HEAD[-1])


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([node("Relu", ["x"], ["y"])], "is read by Relu"),
        ([node("Identity", ["q"], ["y"])], "is read by nothing"),
        ([node("Gemm", ["x", "w", "b"], ["y"]), node("Relu", ["x"], ["z"])], "Gemm, Relu"),
        ([node("Gemm", ["x", "w", "b"], ["y"], alpha=2.0)], "scales or turns"),
        ([node("Gemm", ["x", "w"], ["y"])], "with a bias"),
        ([node("MatMul", ["x", "w"], ["y"])], "expected an Add"),
        ([node("Gemm", ["x", "v", "b"], ["y"])], "expected v among the file's weights"),
    ],
)
def test_what_is_no_last_layer_is_refused(nodes: Sequence[NodeProto], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace_head(graph(nodes), "x", HEAD)
    with pytest.raises(ValueError, match=words):
        head_of(graph(nodes), "x")


def test_a_head_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="has \\[3, 2\\] weights"):
        replace_head(graph([node("Gemm", ["x", "w", "b"], ["y"])]), "x", HEAD[1:])


def test_a_heads_scores_become_probabilities_and_keep_their_order(tmp_path) -> None:
    random = np.random.default_rng(0)
    classes = random.integers(0, 2, 400)
    x = np.eye(3)[classes] + random.normal(0, 0.2, (400, 3))
    head = np.array([[1.0, 0], [0, 1], [0, 0], [0, 0]]) / 10  # as ridge gives them: close together
    judged = Judged(Data(tmp_path / "own.npz", "", {"x": x}), classes, x, x, "probs")
    after = scaled(head, judged)
    before = scores(head, x)
    np.testing.assert_array_equal(scores(after, x).argmax(axis=1), before.argmax(axis=1))
    z = np.exp(scores(after, x))
    sure = (z / z.sum(axis=1, keepdims=True)).max(axis=1)
    right = (before.argmax(axis=1) == classes).mean()
    assert abs(sure.mean() - right) < 0.03
