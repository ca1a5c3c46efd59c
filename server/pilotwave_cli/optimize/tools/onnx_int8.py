"""8 bits for ONNX Runtime: static QDQ, weights signed per channel, what flows unsigned.

U8S8, as S8S8 (ONNX Runtime's default) is slower than fp32 on x86, and dynamic quantisation of
convolutions much slower. Per channel, as one scale for all filters ruins depthwise convolutions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
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
    """Quantise; where a step fails in a way that is known, it is done again without the part that
    fails."""
    prepared = _prepared(task.model)
    made = Path("int8.onnx")
    for extra in ({}, {"QDQDisableWeightAdjustForInt32Bias": True}):
        try:
            _quantise(task, prepared, made, extra)
            break
        except (ValueError, TypeError):  # "truth value of an array…", on per-channel biases
            if extra:
                raise
    save(onnx.load(str(made)), task.out)


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


def _quantise(task: Task, model: Path, out: Path, extra: dict[str, Any]) -> None:
    quantize_static(
        str(model),
        str(out),
        _Reader(task.calls()),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options=extra,
    )
