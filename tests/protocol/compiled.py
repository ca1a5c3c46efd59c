"""Files as the compilers of chips write them, by the layouts that their readers document."""

from __future__ import annotations

import hashlib
import json
import struct


def field(tag: int, value: int | bytes) -> bytes:
    """A field of a protocol buffer: a number below 128, or bytes of fewer than 128."""
    if isinstance(value, int):
        return bytes([tag << 3, value])
    return bytes([tag << 3 | 2, len(value)]) + value


def hef(chip: int, *, version: int = 0, compiler: bytes = b"3.28.0", weights: bytes = b"") -> bytes:
    """A Hailo executable with one network, called yolo."""
    header = field(1, chip) + field(3, compiler)
    message = field(1, header) + field(2, field(1, field(1, b"yolo")))
    rest = {
        0: struct.pack(">I16s", 0, hashlib.md5(message, usedforsecurity=False).digest()),
        1: struct.pack(">IQI", 0, len(weights), 0),
        2: struct.pack(">QQQQ", 0, len(weights), 0, 0),
        3: struct.pack(">QQIQQQ", 0, len(weights), 0, 0, 0, 0),
    }[version]
    return struct.pack(">4sII", b"\x01HEF", version, len(message)) + rest + message + weights


def rknn(chips: object, *, version: int = 6, model: bytes = b"RKNN" * 8) -> bytes:
    """A Rockchip model whose description names `chips`."""
    said = json.dumps({"target_platform": chips, "version": "2.3.2"}).encode()
    gap = bytes(40) if model and version not in (0x0001, 0x1001) else b""
    sized = struct.pack("<Q", len(said)) + said
    return b"RKNN" + bytes(4) + struct.pack("<QQ", version, len(model)) + gap + model + sized


def coral(model: bytes) -> bytes:
    """A TensorFlow Lite model with its first operator made the one that Coral's compiler leaves."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    opened = schema.ModelT.InitFromPackedBuf(model, 0)
    code = opened.operatorCodes[0]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = b"edgetpu-custom-op"
    builder = flatbuffers.Builder(1024)
    builder.Finish(opened.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def onnx_context(**attributes: str | int) -> bytes:
    """An ONNX file as ONNX Runtime writes it after a provider compiled all of its graph."""
    from onnx import TensorProto, helper

    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in ("x", "y")]
    node = helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft", **attributes)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph([node], "g", ports[:1], ports[1:])
    made: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return made


def npu_blob(model: bytes = b"\x7fELF" + bytes(200)) -> bytes:
    """What OpenVINO 2025.4.0 exports from an NPU, in the format 2.0 of its plugin."""
    written = struct.pack("<HHHHH", 0, 2, 2025, 4, 0)
    return model + written + struct.pack("<Q", len(model)) + b"OVNPU"


def qnn_context() -> bytes:
    """The beginning of a context binary, and bytes that only Qualcomm can read."""
    return struct.pack(">IIII", 2, 3, 0, 1) + bytes(range(256))


def gguf(*, keys: bytes = b"", count: int = 0, tensors: int = 0, data: bytes = b"") -> bytes:
    """The beginning of a GGUF file: one key, `count` more, and then `data`."""
    named = gguf_key(b"general.architecture", 8, sized(b"llama"))
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, 1 + count) + named + keys + data


def gguf_key(name: bytes, kind: int, value: bytes) -> bytes:
    return sized(name) + struct.pack("<I", kind) + value


def sized(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text
