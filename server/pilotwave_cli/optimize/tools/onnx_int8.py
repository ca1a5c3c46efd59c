"""8 bits for ONNX Runtime: static QDQ, weights signed per channel, what flows unsigned.

U8S8, as S8S8 (ONNX Runtime's default) is often slower than fp32 on x86, and dynamic quantisation of
convolutions much slower. Per channel, as one scale for all filters ruins depthwise convolutions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from pilotwave_cli.optimize.tools.onnx_files import save
from pilotwave_cli.optimize.tools.task import Task


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # it ships no types
    def __init__(self, calls: Iterator[dict[str, Any]]) -> None:
        self._calls = calls

    def get_next(self) -> dict[str, Any] | None:
        return next(self._calls, None)


def make(task: Task) -> None:
    """Prepare, then quantise."""
    model = onnx.load(str(_prepared(task.model)))
    _widen_biases(model.graph)
    save(model, Path("wide.onnx"))
    _quantise(task, Path("wide.onnx"), Path("int8.onnx"))
    save(onnx.load("int8.onnx"), task.out)


def _prepared(model: Path) -> Path:
    """Return the model with batch norms folded and shapes inferred, or as it is where that fails.

    Symbolic shapes are left out: they need sympy, and real models break them ("Incomplete symbolic
    shape inference").
    """
    out = Path("prepared.onnx")
    try:
        quant_pre_process(str(model), str(out), skip_symbolic_shape=True)
    except Exception:
        return model
    return out


def _widen_biases(graph: onnx.GraphProto) -> None:
    """Give each Gemm one bias for each channel, where it has them in another shape that is
    broadcast: quantising by channels dies of those ("truth value of an array", "index 1")."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for number, node in enumerate(graph.node):
        if node.op_type != "Gemm" or len(node.input) < 3:
            continue
        weights, bias = (constants.get(name) for name in node.input[1:3])
        if weights is None or bias is None:
            continue
        across = any(a.name == "transB" and a.i for a in node.attribute)
        channels = weights.dims[0 if across else 1]
        found = numpy_helper.to_array(bias)
        if found.shape != (channels,) and (found.size == 1 or found.shape == (1, channels)):
            wide = np.broadcast_to(found.reshape(-1), channels)
            node.input[2] = f"{bias.name}.{number}"
            graph.initializer.append(numpy_helper.from_array(wide.copy(), node.input[2]))


def _quantise(task: Task, model: Path, out: Path) -> None:
    quantize_static(
        str(model),
        str(out),
        _Reader(task.calls()),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
