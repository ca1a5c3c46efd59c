"""Which variants can be made, by which tool, and what a device must have for each.

A tool is a module of `tools`, run in a child process; the extra brings its packages.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

# `cpu.*` facts of processors that sum products of 8 bits in 32: on others U8S8 saturates in 16
# bits, which gives other answers without an error
SUMS_IN_32_BITS = ("cpu.avx512_vnni", "cpu.avx_vnni", "cpu.dotprod")

ONNX2TF = "onnx2tf_python"
OPTIONS = {ONNX2TF: "the path of a Python 3.12 or later that has onnx2tf"}


@dataclass(frozen=True)
class Recipe:
    """How one variant is made: `tool` writes `entrypoint`, needs these modules of `extra` and these
    options of the command. It reads ONNX, or with `of_export` a PyTorch export."""

    name: str
    tool: str
    entrypoint: str
    extra: str
    modules: tuple[str, ...]
    runtime: str
    precision: str
    cpu_any: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    of_export: bool = False


SOURCE = Recipe(
    name="onnx-fp32",
    tool="onnx_fp32",
    entrypoint="model.onnx",
    extra="optimize",
    modules=("onnx",),
    runtime="onnxruntime",
    precision="fp32",
)
_INT8 = replace(
    SOURCE,
    name="onnx-int8",
    tool="onnx_int8",
    modules=("onnx", "onnxruntime"),
    precision="int8",
    cpu_any=SUMS_IN_32_BITS,
)
_FP16 = replace(_INT8, name="onnx-fp16", tool="onnx_fp16", precision="fp16", cpu_any=())
_OPENVINO = Recipe(
    name="openvino-int8",
    tool="openvino_int8",
    entrypoint="model.xml",
    extra="optimize-openvino",
    modules=("nncf", "openvino"),
    runtime="openvino",
    precision="int8",
)
FROM_EXPORT = replace(
    SOURCE,
    tool="onnx_of_export",
    extra="optimize-torch",
    modules=("torch", "onnxscript", "onnx", "onnxruntime"),
)
"""What makes the ONNX source of a PyTorch export; no variant of its own."""
_LITERT = Recipe(
    name="litert-int8",
    tool="litert_int8",
    entrypoint="model.tflite",
    extra="optimize-litert",
    modules=("litert_quantizer", "ai_edge_litert"),
    runtime="litert",
    precision="int8",
    options=(ONNX2TF,),
)
_EXECUTORCH = Recipe(
    name="executorch-int8",
    tool="executorch_int8",
    entrypoint="model.pte",
    extra="executorch",
    modules=("torch", "torchao", "executorch"),
    runtime="executorch",
    precision="int8",
    of_export=True,
)
RECIPES = (
    SOURCE,
    _INT8,
    _FP16,
    _OPENVINO,
    replace(
        _OPENVINO,
        name="openvino-fp16",
        tool="openvino_fp16",
        modules=("openvino",),
        precision="fp16",
    ),
    _LITERT,
    replace(
        _LITERT,
        name="litert-fp32",
        tool="litert_fp32",
        modules=("ai_edge_litert",),
        precision="fp32",
    ),
    _EXECUTORCH,
    replace(_EXECUTORCH, name="executorch-fp32", tool="executorch_fp32", precision="fp32"),
)
BY_NAME = {recipe.name: recipe for recipe in RECIPES}
