"""Which variants can be made, by which tool, and what a device must have for each.

A tool is a module of `tools`, run in a child process; the extra brings its packages.
"""

from __future__ import annotations

from dataclasses import dataclass

# `cpu.*` facts of processors that sum products of 8 bits in 32: on others U8S8 saturates in 16
# bits, which gives other answers without an error
SUMS_IN_32_BITS = ("cpu.avx512_vnni", "cpu.avx_vnni", "cpu.dotprod")


@dataclass(frozen=True)
class Recipe:
    """How one variant is made: `tool` writes `entrypoint`, needs these modules of `extra`."""

    name: str
    tool: str
    entrypoint: str
    extra: str
    modules: tuple[str, ...]
    runtime: str
    precision: str
    cpu_any: tuple[str, ...] = ()


_ONNX = ("onnx", "onnxruntime")
SOURCE = Recipe(
    "onnx-fp32", "onnx_fp32", "model.onnx", "optimize", ("onnx",), "onnxruntime", "fp32"
)
RECIPES = (
    SOURCE,
    Recipe(
        "onnx-int8",
        "onnx_int8",
        "model.onnx",
        "optimize",
        _ONNX,
        "onnxruntime",
        "int8",
        SUMS_IN_32_BITS,
    ),
    Recipe("onnx-fp16", "onnx_fp16", "model.onnx", "optimize", _ONNX, "onnxruntime", "fp16"),
)
BY_NAME = {recipe.name: recipe for recipe in RECIPES}
