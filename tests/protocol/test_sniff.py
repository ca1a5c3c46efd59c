"""What a model file is, told from its bytes alone."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotwave_protocol import sniff
from pilotwave_protocol.sniff import BadModel

MODELS = Path(__file__).parent.parent / "data" / "models"
ONNX = (MODELS / "mlp.onnx").read_bytes()
TFLITE = (MODELS / "mlp_handmade.tflite").read_bytes()


@pytest.mark.parametrize(
    ("file", "format_", "runtime", "safe"),
    [
        ("mlp.onnx", "onnx", "onnxruntime", True),
        ("mlp.ort", "ort", "onnxruntime", True),
        ("mlp_handmade.tflite", "tflite", "litert", True),
        ("mlp_ir.xml", "openvino-ir", "openvino", True),
        ("digits_py.eim", "eim", "edge-impulse", False),  # a program
        ("mlp_ir.bin", "unknown", None, False),  # nothing tells what it is
    ],
)
def test_a_format_is_told_by_content(file: str, format_: str, runtime: str, safe: bool) -> None:
    found = sniff.sniff_file(MODELS / file)
    assert (found.format, found.runtime, found.unsafe is None) == (format_, runtime, safe)


@pytest.mark.parametrize(
    ("domain", "version", "wanted"),
    [
        ("ai.onnx.ml", 3, ">=1.16"),  # the default domain and IR 9 ask for more
        ("ai.onnx.ml", 4, ">=1.17"),
        ("ai.onnx.ml", 5, ">=1.18"),
        ("ai.onnx.ml", 6, None),
        ("com.microsoft.nchwc", 1, ">=1.16"),
    ],
)
def test_every_opset_of_an_onnx_file_counts(domain: str, version: int, wanted: str | None) -> None:
    """ONNX Runtime refuses a file that names a newer one than it knows, whether it is used or not.

    Its own optimiser leaves such imports behind.
    """
    entry = b"\x0a" + bytes([len(domain)]) + domain.encode() + b"\x10" + bytes([version])
    raw = ONNX + b"\x42" + bytes([len(entry)]) + entry
    assert sniff.sniff_bytes(memoryview(raw), "m.onnx").runtime_version == wanted


def test_an_onnx_file_tells_its_inputs_outputs_and_opset() -> None:
    found = sniff.sniff_file(MODELS / "mlp.onnx")
    assert found.inputs == (sniff.Tensor("x", "float32", (-1, 64)),)
    assert found.outputs == (sniff.Tensor("probs", "float32", (-1, 10)),)
    assert found.precision == "fp32"
    assert found.details["opset"] == 17


def test_an_ir_names_the_weights_that_it_needs() -> None:
    assert sniff.sniff_file(MODELS / "mlp_ir.xml").needs == {"mlp_ir.bin": 9640}


def test_custom_operators_are_named() -> None:
    assert sniff.sniff_file(MODELS / "faulty_customop.onnx").details["custom_domains"] == "com.acme"


@pytest.mark.parametrize("protocol", range(2, 6))
def test_a_pickle_is_unsafe_whatever_it_is_called(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(pickle.dumps({"weights": [1.0]}, protocol))
    assert sniff.sniff_file(path).unsafe


@pytest.mark.parametrize("protocol", range(2))
def test_an_old_pickle_that_calls_something_is_unsafe(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(pickle.dumps(ValueError("called"), protocol))
    assert sniff.sniff_file(path).format == "pickle"


@pytest.mark.parametrize("text", ["cat\ndog\nbird\n", "car\nbus.\n", "(lp0\n."])
def test_a_list_of_labels_is_no_pickle(tmp_path: Path, text: str) -> None:
    path = tmp_path / "labels.txt"
    path.write_text(text)
    assert sniff.sniff_file(path).format == "unknown"


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_called_onnx_is_no_model(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(pickle.dumps({"weights": [1.0]}, protocol))
    try:
        assert sniff.sniff_file(path).unsafe
    except BadModel:
        pass


def test_a_cut_off_file_is_refused(tmp_path: Path) -> None:
    for name in ("faulty_truncated.tflite",):
        with pytest.raises(BadModel, match="cut off"):
            sniff.sniff_file(MODELS / name)
    (tmp_path / "cut.onnx").write_bytes(ONNX[: len(ONNX) // 2])
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name in ("cut.onnx", "empty.onnx"):
        with pytest.raises(BadModel):
            sniff.sniff_file(tmp_path / name)


@settings(max_examples=300)
@given(
    st.sampled_from([ONNX, TFLITE]),
    st.lists(st.tuples(st.integers(0, 12_000), st.integers(0, 255)), max_size=30),
    st.integers(0, 12_000),
)
def test_a_damaged_file_raises_nothing_but_bad_model(
    good: bytes, changes: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(good)
    for place, value in changes:
        data[place % len(data)] = value
    for name in ("model.onnx", "model.tflite"):
        for part in (data, data[:cut]):
            try:
                sniff.sniff_bytes(memoryview(bytes(part) or b"\0"), name)
            except BadModel:
                pass


PIN = f"pilotwave==0.2.0 --hash=sha256:{'a' * 64}"


@pytest.mark.parametrize(
    "text",
    [
        f"{PIN}\n",
        f"# made by pip hash\n{PIN}  # the agent\n\nTUF==7.0.1 \\\n    --hash=sha256:{'b' * 64}\n",
        f"{PIN} --hash=sha256:{'b' * 64}",
    ],
)
def test_a_list_of_wheels_is_told_by_its_lines(text: str) -> None:
    found = sniff.sniff_bytes(memoryview(text.encode()), "requirements.txt")
    assert (found.format, found.runtime) == ("wheelhouse", "wheelhouse")
    assert found.details["pilotwave"] == "0.2.0"
    assert found.unsafe


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://elsewhere.example/simple",
        "--find-links /tmp",
        "-e .",
        "-r other.txt",
        "pilotwave>=0.2.0",
        "pilotwave==0.2.0",
        "pilotwave==0.2.*",
        f"pilotwave @ https://elsewhere.example/x.whl --hash=sha256:{'a' * 64}",
        f"./x.whl --hash=sha256:{'a' * 64}",
        f"pilotwave==0.2.0 --hash=md5:{'a' * 32}",
        f"pilotwave==0.2.0 --hash=sha256:{'a' * 63}",
        f"pilotwave==0.2.0 --config-settings=x --hash=sha256:{'a' * 64}",
        f"pilotw\xe4ve==0.2.0 --hash=sha256:{'a' * 64}",
    ],
)
def test_a_list_that_could_bring_anything_else_is_refused(line: str) -> None:
    """Whatever pip understands beside pins with digests: other places, other files, options."""
    text = f"{PIN}\n{line}\n"
    with pytest.raises(sniff.BadModel):
        sniff.sniff_bytes(memoryview(text.encode()), "requirements.txt")


def test_a_text_without_digests_is_no_list_of_wheels() -> None:
    found = sniff.sniff_bytes(memoryview(b"cat\ndog\n"), "labels.txt")
    assert found.format == "unknown"
