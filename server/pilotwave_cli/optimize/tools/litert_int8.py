"""8 bits for LiteRT: weights and what flows, with 32-bit floats at the inputs and outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ai_edge_litert.interpreter import Interpreter
from litert_quantizer import quantizer, recipe
from litert_quantizer.algorithm_manager import AlgorithmName
from litert_quantizer.qtyping import TFLOperationName

from pilotwave_cli.optimize.layout import turned
from pilotwave_cli.optimize.tools.litert_fp32 import convert
from pilotwave_cli.optimize.tools.task import Task

_ROWS = 100


def make(task: Task) -> None:
    """Convert, then quantise what was converted."""
    plain = convert(task)
    made = quantizer.Quantizer(str(plain))
    made.load_quantization_recipe(recipe.static_wi8_ai8())
    for port in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):  # an application gives floats
        made.update_quantization_recipe(
            regex=".*", operation_name=port, algorithm_key=AlgorithmName.NO_QUANTIZE
        )
    key, names = _signature(plain)
    calls = [_laid_out(call, names) for call in task.calls(_ROWS)]
    made.quantize(made.calibrate({key: calls})).export_model(str(task.out))


def _signature(file: Path) -> tuple[str | None, dict[str, tuple[int, ...]]]:
    """The signature's name, and its inputs with their shapes."""
    interpreter = Interpreter(model_path=str(file))
    found = interpreter.get_signature_list()
    if not found:
        details = interpreter.get_input_details()
        return None, {d["name"]: tuple(map(int, d["shape"])) for d in details}
    key = next(iter(found))
    details = interpreter.get_signature_runner(key).get_input_details()
    return key, {name: tuple(map(int, d["shape"])) for name, d in details.items()}


def _laid_out(call: dict[str, Any], names: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    if len(call) == len(names) == 1:
        call = dict(zip(names, call.values(), strict=True))
    return {name: turned(call[name], shape) for name, shape in names.items()}
