"""Every sample model of every runtime, and how it is published: rows, each with its story."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class Case:
    """A sample: its files (the first is the entry point), golden cases, names, tolerance."""

    runtime: str
    format: str
    files: tuple[str, ...]
    cases: str
    names: tuple[str, str] = ("x", "logits")
    atol: str = "1e-3"
    declared: bool = False  # the file does not tell its inputs and outputs by name

    @property
    def name(self) -> str:
        return f"{self.runtime}-{self.files[0]}"


_PROBS = ("x", "probs")
_LITERT = ("serving_default_args_0", "serving_default_output_0_output")
_EIM = ("features", "classification")
# a tolerance belongs to the build: these are what each was measured to differ by, and a little
CASES = [
    Case("onnxruntime", "onnx", ("mlp.onnx",), "mlp", _PROBS),
    Case("onnxruntime", "ort", ("mlp.ort",), "mlp", _PROBS),
    Case("onnxruntime", "onnx", ("digits.onnx",), "digits"),
    Case("onnxruntime", "onnx", ("digits_fp16.onnx",), "digits", atol="0.05"),
    Case("onnxruntime", "onnx", ("digits_int8_qdq.onnx",), "digits", atol="4"),
    Case("litert", "tflite", ("mlp_handmade.tflite",), "mlp", _PROBS),
    Case("litert", "tflite", ("digits_litert_torch.tflite",), "digits", _LITERT),
    Case("litert", "tflite", ("digits_dyn_int8.tflite",), "digits", _LITERT, atol="0.5"),
    Case("openvino", "openvino-ir", ("mlp_ir.xml", "mlp_ir.bin"), "mlp", _PROBS),
    Case(
        "openvino",
        "openvino-ir",
        ("digits_ir_fp16.xml", "digits_ir_fp16.bin"),
        "digits",
        atol="0.05",
    ),
    Case(
        "openvino", "openvino-ir", ("digits_ov_int8.xml", "digits_ov_int8.bin"), "digits", atol="6"
    ),
    Case("openvino", "onnx", ("mlp.onnx",), "mlp", _PROBS),
    Case("openvino", "tflite", ("mlp_handmade.tflite",), "mlp", _PROBS),
    Case("edge-impulse", "eim", ("digits_py.eim",), "mlp", _EIM),
    Case("torch", "torchscript", ("digits_torchscript.pt",), "digits", declared=True),
    Case("torch", "torchscript-lite", ("digits_lite.ptl",), "digits", declared=True),
    Case("executorch", "executorch", ("digits_xnnpack.pte",), "digits", declared=True),
    Case("executorch", "executorch", ("digits_portable.pte",), "digits", declared=True),
    Case(
        "executorch",
        "executorch",
        ("digits_xnnpack_int8.pte",),
        "digits",
        atol="3",
        declared=True,
    ),
]


def rows(cases: list[Case] | None = None) -> list[Any]:
    """The cases as pytest parameters, each marked with the runtime that it needs."""
    return [
        pytest.param(case, id=case.name, marks=pytest.mark.needs(case.runtime))
        for case in cases or CASES
    ]
