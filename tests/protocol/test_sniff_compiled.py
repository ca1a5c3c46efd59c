"""Files that are compiled for a chip: which chip, told from their bytes.

Those for the Ethos-U were compiled by Arm's Vela 5.2 and the GGUF file was written by llama.cpp's
own package; the others are made here after their layouts, as their compilers are not to be had.
"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from pilotwave_protocol import accelerators, sniff
from pilotwave_protocol.sniff import BadModel
from tests.protocol.compiled import (
    gguf,
    gguf_key,
    hef,
    npu_blob,
    onnx_context,
    qnn_context,
    rknn,
    sized,
)

MODELS = Path(__file__).parent.parent / "data" / "models"


def look(data: bytes, name: str = "model.bin") -> sniff.Sniffed:
    return sniff.sniff_bytes(memoryview(data), name)


@pytest.mark.parametrize(
    ("data", "format_", "accelerator"),
    [
        (hef(0), "hailo-hef", "hailo8"),
        (hef(2), "hailo-hef", "hailo8"),  # Hailo-8R
        (hef(3, version=1, weights=b"w" * 9), "hailo-hef", "hailo8l"),
        (hef(5, version=2, weights=b"w" * 9), "hailo-hef", "hailo10h"),
        (hef(103, version=3, weights=b"w" * 9), "hailo-hef", "hailo15h"),
        (hef(77), "hailo-hef", "hailo"),  # a chip to come: some Hailo
        (rknn(["rk3588"]), "rknn", "rk3588"),
        (rknn(["RK3566"], version=1), "rknn", "rk3566"),
        (rknn(["rk3566", "rk3568"]), "rknn", "rk3566"),  # twins
        (rknn(["rk3588", "rk3576"]), "rknn", "rknpu"),  # it says both, and no one fact does
        (rknn("rk3576"), "rknn", "rk3576"),
        (rknn(None), "rknn", "rknpu"),
        (rknn(["rk3588"], version=99), "rknn", "rknpu"),  # a later layout is not guessed at
        (b"CYPTRKNN" + bytes(64), "rknn", "rknpu"),
        (npu_blob(), "openvino-npu-blob", "intel_npu"),
        (b"OVNPU" + struct.pack("<HHQ", 3, 0, 9), "openvino-npu-blob", "intel_npu"),
        (qnn_context(), "qnn-context", "hexagon"),
    ],
)
def test_a_compiled_file_says_its_chip(data: bytes, format_: str, accelerator: str) -> None:
    found = look(data)
    assert (found.format, found.accelerator, found.unsafe) == (format_, accelerator, None)


@pytest.mark.parametrize("chip", ["ethos-u55-128", "ethos-u65-256"])
def test_a_file_that_vela_compiled_says_which_ethos_u(chip: str) -> None:
    found = sniff.sniff_file(MODELS / f"digits_{chip.replace('-', '_')}.tflite")
    assert (found.format, found.runtime, found.accelerator) == ("tflite", "litert", chip)
    assert found.inputs == (sniff.Tensor("serving_default_x:0", "int8", (-1, 8, 8, 1)),)


def test_an_ethos_u_stream_that_does_not_say_its_chip_is_for_the_family() -> None:
    data = (MODELS / "digits_ethos_u65_256.tflite").read_bytes()
    found = look(data.replace(b"COP1", b"COP9"), "m.tflite")
    assert found.accelerator == "ethosu"


def test_a_hailo_executable_tells_its_compiler_and_networks() -> None:
    details = look(hef(3)).details
    assert (details["compiler"], details["networks"]) == ("3.28.0", "yolo")


def test_an_npu_blob_is_for_the_openvino_that_wrote_it() -> None:
    assert look(npu_blob()).runtime_version == "==2025.4.0"


def test_a_program_that_no_npu_plugin_wrote_stays_a_program() -> None:
    assert look(b"\x7fELF" + bytes(200)).unsafe


def test_a_gguf_file_tells_its_model() -> None:
    found = sniff.sniff_file(MODELS / "tiny_llama.gguf")
    assert (found.format, found.runtime, found.precision) == ("gguf", "llama.cpp", "fp32")
    told = {"architecture": "llama", "context": 128, "tokenizer": "llama", "tensors": 12}
    assert told.items() <= found.details.items()


@pytest.mark.parametrize(
    ("source", "accelerator"),
    [
        ("QNN", "hexagon"),
        ("QNNExecutionProvider", "hexagon"),
        ("VitisAIExecutionProvider", "amd_npu"),
        ("TensorrtExecutionProvider", "cuda"),
        ("OpenVINOExecutionProvider", None),  # for a CPU or GPU as well
    ],
)
def test_an_onnx_file_with_a_compiled_part_is_for_its_chip(
    source: str, accelerator: str | None
) -> None:
    found = look(onnx_context(source=source, ep_cache_context="x" * 5000), "m.onnx")
    assert (found.runtime, found.accelerator, found.needs) == ("onnxruntime", accelerator, {})


def test_a_compiled_part_in_a_file_of_its_own_has_to_be_there() -> None:
    about = {"source": "QNN", "embed_mode": 0}
    found = look(onnx_context(ep_cache_context="m_qnn.bin", **about), "m.onnx")
    assert found.needs == {"m_qnn.bin": 1}
    with pytest.raises(BadModel, match="outside its folder"):
        look(onnx_context(ep_cache_context="../m_qnn.bin", **about), "m.onnx")


DAMAGED = {
    "a Hailo executable that is cut off": (hef(0)[:-1], "cut off"),
    "one with more than it says": (hef(0) + b"x", "cut off"),
    "one with a byte changed": (hef(0).replace(b"yolo", b"yoga"), "checksum"),
    "one whose header is cut off": (hef(0)[:20], "cut off"),
    "one of a version to come": (struct.pack(">4sII", b"\x01HEF", 9, 0) + bytes(64), "version 9"),
    "a Rockchip model that is cut off": (rknn(["rk3588"])[:-1], "cut off"),
    "one without its description": (rknn(["rk3588"])[:60], "cut off"),
    "one whose description is no JSON": (rknn(["rk3588"]).replace(b"{", b"["), "JSON"),
    "an NPU blob that is shorter than it says": (npu_blob()[100:], "more than there are"),
    "a GGUF file of another version": (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
    "a big-endian one": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "little-endian"),
    "one without an architecture": (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "architecture"),
    "one that counts more than it has": (gguf(count=1), "cut off"),
    "one with a value of no type": (gguf(keys=gguf_key(b"a", 99, b""), count=1), "type 99"),
    "one with lists in lists": (
        gguf(keys=gguf_key(b"a", 9, struct.pack("<IQ", 9, 1)), count=1),
        "type 9",
    ),
    "one with a list that is longer than the file": (
        gguf(keys=gguf_key(b"a", 9, struct.pack("<IQ", 0, 1 << 60)), count=1),
        "cut off",
    ),
    "one with a name that is no text": (gguf(keys=sized(b"\xff") + bytes(5), count=1), "UTF-8"),
}


@pytest.mark.parametrize("story", DAMAGED)
def test_a_damaged_file_is_refused_with_its_fault(story: str) -> None:
    data, words = DAMAGED[story]
    with pytest.raises(BadModel, match=words):
        look(data)


@pytest.mark.parametrize("name", ["m.hef", "m.rknn", "m.gguf"])
@pytest.mark.parametrize("data", [npu_blob(), qnn_context(), b"nothing that is known"])
def test_a_name_that_promises_another_format_is_refused(name: str, data: bytes) -> None:
    with pytest.raises(BadModel, match="its name says"):
        look(data, name)


def test_a_file_called_after_the_edge_tpu_was_compiled_for_one() -> None:
    data = (MODELS / "mlp_handmade.tflite").read_bytes()
    with pytest.raises(BadModel, match="Edge TPU"):
        look(data, "model_edgetpu.tflite")


def test_a_gguf_file_whose_tensors_are_cut_off_is_refused() -> None:
    data = (MODELS / "tiny_llama.gguf").read_bytes()
    with pytest.raises(BadModel, match="cut off"):
        look(data[:-64])


@pytest.mark.parametrize(
    ("required", "compiled_for", "kept"),
    [
        (None, "coral", False),
        ("cuda", "coral", False),
        ("coral", "coral", True),
        ("hailo8", "hailo8l", False),
        ("hailo", "hailo8l", True),  # the publisher says any of the family
        ("rknpu", "rk3588", True),
        ("rk3588", "rknpu", True),  # the file does not say which; the publisher does
        ("rk3588", "rk3576", False),
        ("ethosu", "ethos-u65-256", True),
        ("ethos-u65-256", "ethos-u55-128", False),
    ],
)
def test_what_a_variant_requires_keeps_a_file_to_its_chip(
    required: str | None, compiled_for: str, kept: bool
) -> None:
    assert accelerators.keeps_to(required, compiled_for) is kept
