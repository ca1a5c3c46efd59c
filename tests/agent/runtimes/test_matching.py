"""What a file says of itself decides, before a byte goes out, which devices are offered it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from pilotwave_agent.hardware.accelerators import accelerator_facts
from pilotwave_cli.errors import CliError
from pilotwave_cli.publish.build_manifest import build_variant
from pilotwave_cli.publish.variant_options import VariantOptions
from pilotwave_protocol.fields import Scalar
from pilotwave_protocol.manifest import Requires, Variant
from pilotwave_protocol.states import Reason
from pilotwave_protocol.trust import variant_fits
from tests.agent.runtimes.samples import MODELS
from tests.agent.trees import put
from tests.peers import trtexec
from tests.protocol import compiled

X86 = {"arch": "x86_64"}


def onnx_of(opset: int, ir_version: int) -> bytes:
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ports[:1], ports[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = ir_version
    made: bytes = model.SerializeToString()
    return made


def published(folder: Path, name: str, data: bytes, **wishes: object) -> Variant:
    path = folder / name
    path.write_bytes(data)
    return build_variant("v", path, VariantOptions(unsafe_format=True, **wishes)).variant  # type: ignore[arg-type]


EIM = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xb7\x00\x01\x00\x00\x00"
EIM += b"Edge Impulse Linux impulse runner"


@pytest.mark.parametrize(
    ("name", "data", "wishes", "facts", "reason", "words"),
    [
        # measured: ONNX Runtime 1.16 opens opset 19, 1.23 opset 23, 1.32 opset 28
        ("m.onnx", onnx_of(19, 9), {}, {"runtime.onnxruntime": "1.16.3"}, None, ""),
        (
            "m.onnx",
            onnx_of(23, 11),
            {},
            {"runtime.onnxruntime": "1.16.3"},
            Reason.RUNTIME_MISSING,
            "onnxruntime >=1.23; here is 1.16.3",
        ),
        # an old opset in a new IR
        (
            "m.onnx",
            onnx_of(17, 11),
            {},
            {"runtime.onnxruntime": "1.19.2"},
            Reason.RUNTIME_MISSING,
            ">=1.23",
        ),
        (
            "m.eim",
            EIM,
            {},
            {"runtime.edge-impulse": "1", **X86},
            Reason.DOES_NOT_FIT,
            "is for aarch64; this is x86_64",
        ),
        ("m.engine", trtexec.header(), {}, {"runtime.tensorrt": "10.3.0"}, None, ""),
        (
            "m.engine",
            trtexec.header(),
            {},
            {"runtime.tensorrt": "8.6.1"},
            Reason.RUNTIME_MISSING,
            "tensorrt ==10.3.0.*; here is 8.6.1",
        ),
        (
            "m.engine",
            trtexec.header(),
            {"requires": Requires(accelerator="sm_87")},
            {"runtime.tensorrt": "10.3.0", "accelerator.sm_72": True},
            Reason.DOES_NOT_FIT,
            "sm_87, which is not here",
        ),
        # the older package is another runtime, with numbers of its own
        (
            "m.tflite",
            (MODELS / "mlp_handmade.tflite").read_bytes(),
            {},
            {"runtime.tflite-runtime": "2.14.0"},
            Reason.RUNTIME_MISSING,
            "litert, which is not installed",
        ),
    ],
)
def test_a_device_that_cannot_run_it_is_told_why(
    tmp_path: Path,
    name: str,
    data: bytes,
    wishes: dict[str, object],
    facts: dict[str, Scalar],
    reason: Reason | None,
    words: str,
) -> None:
    fit = variant_fits(published(tmp_path, name, data, **wishes), facts)
    assert fit.reason is reason
    assert words in fit.sentence


HAILO_8 = {"sys/bus/pci/devices/0/vendor": "0x1e60", "sys/bus/pci/devices/0/device": "0x2864"}
ROCK_5 = {"dev/rknpu": "", "proc/device-tree/compatible": "radxa,rock-5b\0rockchip,rk3588\0"}
IMX_93 = {"dev/ethosu0": "", "proc/device-tree/compatible": "fsl,imx93"}
CORAL = {"dev/apex_0": ""}
VELA = (MODELS / "digits_ethos_u65_256.tflite").read_bytes()


@pytest.mark.parametrize(
    ("name", "data", "fits"),
    [
        ("m_vela.tflite", VELA, [IMX_93]),
        ("m.hef", compiled.hef(3), [HAILO_8]),
        ("m.hef", compiled.hef(5), []),
        ("m.rknn", compiled.rknn(["rk3588"]), [ROCK_5]),
        ("m.rknn", compiled.rknn(["rk3576"]), []),
        pytest.param(
            "m_edgetpu.tflite",
            compiled.coral,
            [CORAL],
            marks=pytest.mark.needs("litert"),
        ),
    ],
)
def test_a_compiled_model_is_offered_to_boards_with_its_chip_alone(
    tmp_path: Path, name: str, data: bytes | Callable[[bytes], bytes], fits: list[dict[str, str]]
) -> None:
    """From the file's bytes, past what is published, to what a board's own files say."""
    if callable(data):
        data = data((MODELS / "mlp_handmade.tflite").read_bytes())
    # what no library of ours opens goes out with a program
    program = {} if name.endswith(".tflite") else {"runtime": "command", "entrypoint": "run"}
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "run").write_text("#!/bin/sh\n")
    (tmp_path / "v" / name).write_bytes(data)
    options = VariantOptions(unsafe_format=True, **{"entrypoint": name, **program})  # type: ignore[arg-type]
    variant = build_variant("v", tmp_path / "v", options).variant
    for i, tree in enumerate(({}, HAILO_8, ROCK_5, IMX_93, CORAL)):
        put(tmp_path / str(i), tree)
        facts = {"runtime.litert": "2.3.0", **accelerator_facts(tmp_path / str(i))}
        fit = variant_fits(variant, facts, allow_unsafe=True)  # type: ignore[arg-type]
        assert (fit.reason is None) == (tree in fits), tree
        if tree not in fits:
            assert fit.reason is Reason.DOES_NOT_FIT


def test_a_runtime_that_does_not_open_the_format_is_refused_before_signing(tmp_path: Path) -> None:
    data = (MODELS / "mlp_handmade.tflite").read_bytes()
    with pytest.raises(CliError, match="is tflite; onnxruntime opens onnx or ort"):
        published(tmp_path, "m.tflite", data, runtime="onnxruntime")


def test_an_ir_whose_weights_are_cut_off_is_refused_before_signing(tmp_path: Path) -> None:
    for name, end in (("mlp_ir.xml", None), ("mlp_ir.bin", -1)):
        (tmp_path / name).write_bytes((MODELS / name).read_bytes()[:end])
    with pytest.raises(CliError, match=r"needs 9640 bytes of mlp_ir\.bin, which has 9639"):
        build_variant("v", tmp_path, VariantOptions())
