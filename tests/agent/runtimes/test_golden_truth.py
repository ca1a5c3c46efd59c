"""A self-test that passes has tried what was declared: every case, every type, every number."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper, numpy_helper
from safetensors.numpy import save_file

from pilotwave_agent.runtimes.casefile import narrowed, widened
from pilotwave_agent.runtimes.golden import Tolerance, compare_outputs
from pilotwave_agent.selftest import SelfTestFigures, TestLimits, run_selftest
from pilotwave_cli.errors import CliError
from pilotwave_cli.publish.build_manifest import build_variant
from pilotwave_cli.publish.variant_options import VariantOptions
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.states import Reason

LIMITS = TestLimits(60, 512)
node, port = helper.make_node, helper.make_tensor_value_info
ML = helper.make_opsetid("ai.onnx.ml", 3)
W = np.random.default_rng(1).standard_normal((4, 3)).astype("f4")


def make(
    folder: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], **more: Any
) -> None:
    graph = helper.make_graph(
        nodes, "g", inputs, outputs, [numpy_helper.from_array(v, k) for k, v in more.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), ML], ir_version=8)
    onnx.save(model, folder / "model.onnx")


def linear(folder: Path, batch: object) -> None:
    ports = [port("x", T.FLOAT, [batch, 4])], [port("y", T.FLOAT, [batch, 3])]
    make(folder, [node("MatMul", ["x", "w"], ["y"])], *ports, w=W)


def cases(folder: Path, **tensors: np.ndarray) -> None:
    named = {k.replace("_", ".", 1): np.ascontiguousarray(v) for k, v in tensors.items()}
    save_file(named, folder / "selftest.safetensors")


def tried(folder: Path, **wishes: str) -> SelfTestFigures:
    return run_selftest(
        folder, build_variant("v", folder, VariantOptions(**wishes)).variant, LIMITS
    )  # type: ignore[arg-type]


def refused(folder: Path, **wishes: str) -> Reason:
    with pytest.raises(RefusedError) as caught:
        tried(folder, **wishes)
    return caught.value.reason


X = np.random.default_rng(2).standard_normal((7, 4)).astype("f4")


@pytest.mark.parametrize("batch", [1, 4, 7, 8, "N"])
@pytest.mark.parametrize("count", [1, 5, 7])
def test_each_case_is_run_whatever_the_batch(tmp_path: Path, batch: object, count: int) -> None:
    linear(tmp_path, batch)
    cases(tmp_path, input_x=X[:count], output_y=X[:count] @ W)
    assert tried(tmp_path).cases == count


@pytest.mark.parametrize("batch", [1, 4, 8, "N"])
@pytest.mark.parametrize("wrong", [0, 4, 6])
def test_one_wrong_case_fails_wherever_it_is(tmp_path: Path, batch: object, wrong: int) -> None:
    linear(tmp_path, batch)
    expected = X @ W
    expected[wrong] += 100
    cases(tmp_path, input_x=X, output_y=expected)
    assert refused(tmp_path) is Reason.SELFTEST_MISMATCH


def test_a_scalar_input_is_taken_case_by_case_beside_a_batch(tmp_path: Path) -> None:
    ports = [port("x", T.FLOAT, ["N", 4]), port("s", T.FLOAT, [])], [port("y", T.FLOAT, ["N", 4])]
    make(tmp_path, [node("Mul", ["x", "s"], ["y"])], *ports)
    scale = np.array([1, 2, 3], "f4")
    cases(tmp_path, input_x=X[:3], input_s=scale, output_y=X[:3] * scale[:, None])
    assert tried(tmp_path).cases == 3


@pytest.mark.parametrize("off", [1, -1, 30])
def test_whole_numbers_compare_by_equality(tmp_path: Path, off: int) -> None:
    ports = [port("x", T.INT64, ["N", 1])], [port("y", T.INT64, ["N", 1])]
    make(tmp_path, [node("Add", ["x", "one"], ["y"])], *ports, one=np.array(1, "i8"))
    big = np.array([[2**60 + 1]], "i8")
    cases(tmp_path, input_x=big, output_y=big + 1)
    assert tried(tmp_path).cases == 1
    cases(tmp_path, input_x=big, output_y=big + 1 + off)
    assert refused(tmp_path, atol="100") is Reason.SELFTEST_MISMATCH


def test_booleans_compare_by_equality(tmp_path: Path) -> None:
    ports = [port("x", T.FLOAT, ["N", 4])], [port("y", T.BOOL, ["N", 4])]
    make(tmp_path, [node("Greater", ["x", "zero"], ["y"])], *ports, zero=np.array(0, "f4"))
    cases(tmp_path, input_x=X, output_y=X > 0)
    tried(tmp_path)
    cases(tmp_path, input_x=X, output_y=X < 0)
    assert refused(tmp_path, atol="5") is Reason.SELFTEST_MISMATCH


INF, NAN = np.inf, np.nan


@pytest.mark.parametrize(
    ("found", "wanted", "agree"),
    [
        ([INF, 1], [INF, 1], True),
        ([-INF, 1], [-INF, 1], True),
        ([NAN, 1], [NAN, 1], True),
        ([1, 1], [INF, 1], False),
        ([INF, 1], [-INF, 1], False),
        ([NAN, 1], [INF, 1], False),
        ([1, 1], [NAN, 1], False),
    ],
)
def test_nan_and_infinity_agree_with_themselves_alone(
    found: list[float], wanted: list[float], agree: bool
) -> None:
    arrays = (np.array([row], "f4") for row in (found, wanted))
    _, differ = compare_outputs("y", *arrays, Tolerance(1e3, 1e3))
    assert differ.any() != agree


def test_a_quantised_output_may_differ_by_the_absolute_tolerance() -> None:
    found, wanted = np.array([[7], [9]], "i1"), np.array([[8], [2]], "i1")
    _, differ = compare_outputs("y", found, wanted, Tolerance(1, 1), True)
    assert list(differ) == [False, True]


def test_bfloat16_goes_in_and_comes_out(tmp_path: Path) -> None:
    ports = [port("x", T.BFLOAT16, ["N", 4])], [port("y", T.BFLOAT16, ["N", 4])]
    casts = [node("Cast", ["x"], ["f"], to=T.FLOAT), node("Mul", ["f", "two"], ["g"])]
    back = node("Cast", ["g"], ["y"], to=T.BFLOAT16)
    make(tmp_path, [*casts, back], *ports, two=np.array(2, "f4"))

    def write(factor: float) -> None:
        x = widened(narrowed(X))
        parts = [narrowed(a).tobytes() for a in (x, x * factor)]
        header = {
            name: {"dtype": "BF16", "shape": [7, 4], "data_offsets": [n * 56, n * 56 + 56]}
            for n, name in enumerate(("input.x", "output.y"))
        }
        raw = json.dumps(header).encode()
        packed = struct.pack("<Q", len(raw)) + raw + b"".join(parts)
        (tmp_path / "selftest.safetensors").write_bytes(packed)

    write(2)
    assert tried(tmp_path).cases == 7
    write(3)
    assert refused(tmp_path) is Reason.SELFTEST_MISMATCH


def listed(**tensors: tuple[str, list[Any]]) -> str:
    named = {
        name.replace("_", ".", 1): {"dtype": dtype, "shape": [len(data)], "data": data}
        for name, (dtype, data) in tensors.items()
    }
    return json.dumps({"format": "pilotwave-cases/1", "tensors": named})


def encoder(folder: Path) -> None:
    how = {"keys_strings": ["cat", "dog"], "values_floats": [1.0, 2.0], "default_float": 0.0}
    encode = node("LabelEncoder", ["text"], ["y"], domain="ai.onnx.ml", **how)
    make(folder, [encode], [port("text", T.STRING, ["N"])], [port("y", T.FLOAT, ["N"])])


def test_texts_have_their_cases_in_json(tmp_path: Path) -> None:
    encoder(tmp_path)
    file = tmp_path / "selftest.json"
    words = ("string", ["cat", "dog", "bird"])
    file.write_text(listed(input_text=words, output_y=("float32", [1, 2, 0])))
    assert tried(tmp_path).cases == 3
    file.write_text(listed(input_text=words, output_y=("float32", [1, 2, "NaN"])))
    assert refused(tmp_path) is Reason.SELFTEST_MISMATCH


def test_a_json_twin_adds_the_labels_to_the_safetensors(tmp_path: Path) -> None:
    how = {"keys_int64s": [0, 1], "values_strings": ["a", "b"], "default_string": "?"}
    label = node("LabelEncoder", ["i"], ["label"], domain="ai.onnx.ml", **how)
    ports = [port("i", T.INT64, ["N"])], [port("label", T.STRING, ["N"]), port("j", T.INT64, ["N"])]
    make(tmp_path, [label, node("Identity", ["i"], ["j"])], *ports)
    ids = np.array([0, 1, 5])
    cases(tmp_path, input_i=ids, output_j=ids)
    (tmp_path / "selftest.json").write_text(listed(output_label=("string", ["a", "b", "?"])))
    assert (
        build_variant("v", tmp_path, VariantOptions()).variant.selftest.cases
        == "selftest.safetensors"
    )  # type: ignore[union-attr]
    assert tried(tmp_path).cases == 3
    (tmp_path / "selftest.json").write_text(listed(output_label=("string", ["a", "b", "c"])))
    assert refused(tmp_path) is Reason.SELFTEST_MISMATCH
    (tmp_path / "selftest.json").write_text('{"somebody": "else\'s"}')
    assert tried(tmp_path).cases == 3


@pytest.mark.parametrize(
    "text",
    [
        listed(input_text=("string", ["cat"])),
        listed(input_text=("string", ["cat"]), output_y=("float8", [1])),
        listed(input_text=("string", ["cat"]), output_y=("float32", [1, 2])),
        '{"format": "pilotwave-cases/1"}',
    ],
)
def test_json_cases_that_no_device_would_take_are_refused_at_the_desk(
    tmp_path: Path, text: str
) -> None:
    encoder(tmp_path)
    (tmp_path / "selftest.json").write_text(text)
    with pytest.raises(CliError, match=r"selftest\.json"):
        build_variant("v", tmp_path, VariantOptions())


def test_an_input_that_is_made_up_proves_nothing_bad(tmp_path: Path) -> None:
    """Zeros give NaN (a z-score), and a picture of 1 x 1 is too small: both are good models."""
    zscore, picture = tmp_path / "zscore", tmp_path / "picture"
    for folder in (zscore, picture):
        folder.mkdir()
    ports = [port("x", T.FLOAT, ["N", 4])], [port("y", T.FLOAT, ["N", 4])]
    make(zscore, [node("Div", ["x", "x"], ["y"])], *ports)
    conv = node("Conv", ["x", "w"], ["y"])
    ports = [port("x", T.FLOAT, ["N", 3, "H", "W"])], [port("y", T.FLOAT, ["N", 2, "h", "w"])]
    make(picture, [conv], *ports, w=np.ones((2, 3, 7, 7), "f4"))
    for folder in (zscore, picture):
        figures = tried(folder)
        assert not figures.tried
        assert "loaded, not tried" in str(figures)
        assert "p95" not in str(figures)


def test_texts_without_cases_are_tried_on_an_empty_one(tmp_path: Path) -> None:
    encoder(tmp_path)
    assert tried(tmp_path).tried
