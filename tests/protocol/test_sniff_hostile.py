"""Files made to hurt whoever looks into them: no other error than BadModel, in bounded time."""

from __future__ import annotations

import io
import json
import pickle
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotwave_protocol import sniff
from pilotwave_protocol.sniff import BadModel, Sniffed
from tests.protocol.compiled import (
    coral,
    gguf,
    gguf_key,
    hef,
    npu_blob,
    onnx_context,
    qnn_context,
    rknn,
)

MODELS = Path(__file__).parent.parent / "data" / "models"
FILES = [
    "mlp.onnx",
    "digits_int8_qdq.onnx",
    "faulty_hang.onnx",
    "mlp.ort",
    "mlp_handmade.tflite",
    "digits_dyn_int8.tflite",
    "mlp_ir.xml",
    "digits_torchscript.pt",
    "digits_lite.ptl",
    "digits_xnnpack_int8.pte",
    "digits_portable.pte",
    "digits_py.eim",
    "digits_ethos_u65_256.tflite",
    "tiny_llama.gguf",
]
WHOLE = {name: (MODELS / name).read_bytes() for name in FILES} | {
    "made.hef": hef(3, version=1, weights=bytes(64)),
    "made.rknn": rknn(["rk3588"]),
    "made.blob": npu_blob(),
    "made.bin": qnn_context(),
    "made.onnx": onnx_context(source="QNN", embed_mode=0, ep_cache_context="m.bin"),
}
_HEAD = 4096  # where formats keep what they say of themselves, beside their end


def look(data: bytes, name: str) -> Sniffed | None:
    try:
        return sniff.sniff_bytes(memoryview(data), name)
    except BadModel:
        return None


@settings(max_examples=250, deadline=5000)
@given(
    st.sampled_from(list(WHOLE)),
    st.lists(
        st.tuples(st.booleans(), st.integers(0, _HEAD - 1), st.binary(min_size=1, max_size=8)),
        max_size=12,
    ),
    st.one_of(st.none(), st.floats(0, 1)),
    st.binary(max_size=64),
)
def test_a_mutated_model_raises_nothing_but_bad_model(
    name: str, changes: list[tuple[bool, int, bytes]], cut: float | None, tail: bytes
) -> None:
    data = bytearray(WHOLE[name])
    for from_end, place, found in changes:
        at = len(data) - 1 - place % len(data) if from_end else place % len(data)
        data[at : at + len(found)] = found
    kept = data if cut is None else data[: max(int(len(data) * cut), 1)]
    look(bytes(kept) + tail, name)


@settings(max_examples=250, deadline=5000)
@given(
    st.sampled_from(
        ["onnx", "ort", "tflite", "xml", "pt", "pte", "bin", "hef", "rknn", "gguf", "blob"]
    ),
    st.data(),
)
def test_noise_behind_a_true_mark_raises_nothing_but_bad_model(
    suffix: str, data: st.DataObject
) -> None:
    marks = {
        "onnx": b"\x08\x09",
        "ort": b"\x10\0\0\0ORTM",
        "tflite": b"\x10\0\0\0TFL3",
        "xml": b"<net ",
        "pt": b"PK\x03\x04",
        "pte": b"\x10\0\0\0ET12",
        "bin": b"ftrt",
        "hef": b"\x01HEF\0\0\0",
        "rknn": b"RKNN\0\0\0\0",
        "gguf": b"GGUF\x03\0\0\0",
        "blob": b"OVNPU",
    }
    look(marks[suffix] + data.draw(st.binary(max_size=400)), f"model.{suffix}")


def archive(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name, data in members.items():
            made.writestr(name, data)
    return out.getvalue()


def flat(mark: bytes, vector: int) -> bytes:
    """A flatbuffer whose every slot is one vector of `vector` entries that all lead back to the
    root table: what a reader follows, it follows for ever or in squares."""
    slots = 12
    vtable = struct.pack("<HH", 4 + 2 * slots, 4 + 4 * slots)
    vtable += b"".join(struct.pack("<H", 4 + 4 * i) for i in range(slots))
    table = 8 + len(vtable)
    start = table + 4 + 4 * slots
    fields = b"".join(struct.pack("<I", start - (table + 4 + 4 * i)) for i in range(slots))
    items = b"".join(
        struct.pack("<I", (table - (start + 4 + 4 * i)) & 0xFFFFFFFF) for i in range(vector)
    )
    body = struct.pack("<i", len(vtable)) + fields + struct.pack("<I", vector) + items
    return struct.pack("<I", table) + mark + vtable + body


def overlapping() -> bytes:
    """A directory that names the same megabyte a thousand times."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("a/data.pkl", bytes(1 << 20))
        made.filelist += [made.filelist[0]] * 1000
    return out.getvalue()


def deep_onnx() -> bytes:
    """Graphs in attributes of nodes of graphs."""

    def field(tag: int, data: bytes) -> bytes:
        size, out = len(data), bytes([tag << 3 | 2])
        while size > 0x7F:
            out += bytes([size & 0x7F | 0x80])
            size >>= 7
        return out + bytes([size]) + data

    inner = b""
    for _ in range(2000):
        inner = field(1, field(5, field(6, inner)))
    return b"\x08\x09" + field(7, inner)


HOSTILE = {
    "a table that is its own vector, as TensorFlow Lite": (flat(b"TFL3", 200_000), "m.tflite"),
    "the same as ExecuTorch": (flat(b"ET12", 200_000), "m.pte"),
    "the same as ONNX Runtime": (flat(b"ORTM", 200_000), "m.ort"),
    "members over each other": (overlapping(), "m.pt"),
    "a bomb": (archive({"config.json": b"[" * 8_000_000, "metadata.json": b"{}"}), "m.keras"),
    "many members": (archive({f"a/{i}.pkl": b"." for i in range(5_000)}), "m.pt"),
    "a pickle of many calls": (
        archive({"a/data.pkl": b"cos\nsystem\n" * 30_000 + b"."}),
        "m.pt",
    ),
    "graphs in graphs": (deep_onnx(), "m.onnx"),
    "elements in elements": (b"<net><a>" + b"<a>" * 300_000, "m.xml"),
    "an entity that grows": (
        b'<!DOCTYPE n [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><net>&b;</net>',
        "m.xml",
    ),
    "a list of texts that are not there": (
        gguf(keys=gguf_key(b"a", 9, struct.pack("<IQ", 8, 1 << 21)), count=1),
        "m.gguf",
    ),
    "a list of empty texts": (
        gguf(keys=gguf_key(b"a", 9, struct.pack("<IQ", 8, 1 << 21)), count=1, data=bytes(16 << 20)),
        "m.gguf",
    ),
    "a description of brackets": (
        b"RKNN" + bytes(4) + struct.pack("<QQQ", 1, 0, 1 << 22) + b"[" * (1 << 22),
        "m.rknn",
    ),
    "many opcodes": (b"(" * 300_000 + b".", "labels.txt"),
}


@pytest.mark.parametrize("story", HOSTILE)
def test_a_hostile_file_costs_seconds_and_little_memory(story: str) -> None:
    data, name = HOSTILE[story]
    began = time.process_time()
    look(data, name)
    assert time.process_time() - began < 15
    tracemalloc.start()
    try:
        look(data[: 4 << 20], name)
        assert tracemalloc.get_traced_memory()[1] < 256 << 20
    finally:
        tracemalloc.stop()


# --- what is found and named


def test_a_pickle_in_a_pt_file_is_named_with_what_it_calls() -> None:
    class Bomb:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            import os

            return os.system, ("true",)

    found = look(archive({"m/data.pkl": pickle.dumps(Bomb()), "m/version": b"3"}), "m.pt")
    assert found
    assert found.format == "pickle"
    assert found.unsafe
    assert "m/data.pkl" in found.unsafe
    assert "posix.system" in found.unsafe


def test_a_lambda_layer_is_found_and_named() -> None:
    layers = [
        {"class_name": "Dense", "config": {}},
        {"class_name": "Lambda", "config": {"name": "sneak"}},
    ]
    config = json.dumps({"class_name": "Sequential", "config": {"layers": layers}}).encode()
    found = look(archive({"config.json": config, "metadata.json": b"{}"}), "m.keras")
    assert found
    assert found.format == "keras"
    assert found.unsafe
    assert "sneak" in found.unsafe
    harmless = json.dumps({"class_name": "Sequential", "config": {"layers": layers[:1]}}).encode()
    safe = look(archive({"config.json": harmless, "metadata.json": b"{}"}), "m.keras")
    assert safe
    assert safe.unsafe is None


def test_torchscript_tells_what_forward_takes_and_that_inputs_are_kept_in_it() -> None:
    found = look(WHOLE["digits_torchscript.pt"], "m.pt")
    assert found
    assert (found.details["inputs"], "traced_inputs" in found.details) == ("x", True)


def test_a_changed_byte_in_a_torchscript_file_is_found_by_its_checksum() -> None:
    data = bytearray(WHOLE["digits_torchscript.pt"])
    data[len(data) // 2] ^= 1
    with pytest.raises(BadModel, match="damaged"):
        sniff.sniff_bytes(memoryview(bytes(data)), "m.pt")


def test_an_executorch_program_tells_shapes_and_backends() -> None:
    found = look(WHOLE["digits_xnnpack_int8.pte"], "m.pte")
    assert found
    assert found.inputs == (sniff.Tensor("", "float32", (1, 1, 8, 8)),)
    assert found.details["backends"] == "XnnpackBackend"


def test_an_ort_file_tells_its_opset_and_schema() -> None:
    found = look(WHOLE["mlp.ort"], "m.ort")
    assert found
    assert found.runtime_version == ">=1.16"
    assert found.inputs == (sniff.Tensor("x", "float32", (-1, 64)),)


@pytest.mark.parametrize(
    ("file", "quantisation"),
    [
        ("digits_dyn_int8.tflite", "dynamic"),
        ("digits_int8_full_tf.tflite", "full"),
        ("digits_litert_torch.tflite", None),
        ("digits_int8_qdq.onnx", "static (QDQ)"),
        ("digits.onnx", None),
    ],
)
def test_quantisation_is_told(file: str, quantisation: str | None) -> None:
    assert sniff.sniff_file(MODELS / file).details.get("quantisation") == quantisation


def test_external_data_is_named_and_may_not_lie_elsewhere() -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    def model(location: str, **more: str) -> bytes:
        weight = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
        weight.ClearField("float_data")
        weight.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, **more}.items():
            entry = weight.external_data.add()
            entry.key, entry.value = key, value
        ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in ("x", "y")]
        node = helper.make_node("Add", ["x", "w"], ["y"])
        graph = helper.make_graph([node], "g", ports[:1], ports[1:], [weight])
        made: bytes = onnx.helper.make_model(graph).SerializeToString()
        return made

    found = look(model("weights.bin"), "m.onnx")
    assert found
    assert (found.needs, found.details["external_data"]) == ({"weights.bin": 1}, "weights.bin")
    found = look(model("weights.bin", offset="20", length="48"), "m.onnx")
    assert found
    assert found.needs == {"weights.bin": 68}
    said = sniff.missing_companion(found, "m.onnx", {"m.onnx": 9, "weights.bin": 20})
    assert said == "m.onnx needs 68 bytes of weights.bin, which has 20: it is cut off"
    for odd in ("-1", "1e9", "٣", "9" * 40):
        found = look(model("weights.bin", offset=odd, length=odd), "m.onnx")
        assert found
        assert found.needs == {"weights.bin": 1}
    for location in ("../weights.bin", "/etc/passwd", "a/../../b", "..\\b"):
        with pytest.raises(BadModel, match="outside its folder"):
            sniff.sniff_bytes(memoryview(model(location)), "m.onnx")


@pytest.mark.needs("litert")
def test_a_model_compiled_for_an_accelerator_says_which() -> None:
    """Coral's compiler leaves one custom operator, which no CPU has."""
    found = look(coral(WHOLE["mlp_handmade.tflite"]), "m.tflite")
    assert found
    assert (found.accelerator, found.details["custom_ops"]) == ("coral", "edgetpu-custom-op")


def test_an_eim_tells_the_machine_it_is_for() -> None:
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xb7\x00\x01\x00\x00\x00"
    found = look(header + b"Edge Impulse Linux impulse runner", "m.eim")
    assert found
    assert (found.format, found.arch) == ("eim", "aarch64")
