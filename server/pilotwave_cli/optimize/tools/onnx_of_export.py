"""The ONNX model of a PyTorch export (`torch.export.save`), which all other tools read.

It counts only where it answers the inputs that lie in the export as PyTorch does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch.utils._pytree import tree_leaves

from pilotwave_cli.optimize.tools.task import Task

_APART = 1e-3


class OtherAnswers(Exception):
    """The ONNX model does not answer as the export does."""


def make(task: Task) -> None:
    """Convert, and compare both."""
    program = torch.export.load(str(task.model))
    torch.onnx.export(program, dynamo=True).save("converted.onnx", external_data=False)
    model = onnx.load("converted.onnx")
    _forget_where_it_was_made(model)
    onnx.save(model, str(task.out))
    if program.example_inputs is not None:
        _compare(program.module(), model.SerializeToString(), *program.example_inputs)


def _forget_where_it_was_made(model: onnx.ModelProto) -> None:
    """Take out the lines of source code, with their paths, that the exporter notes at each node."""
    graph = model.graph
    for one in (*graph.node, *graph.input, *graph.output, *graph.value_info, graph, model):
        del one.metadata_props[:]
    for one in (*graph.node, graph, model):
        one.doc_string = ""


def _compare(module: Any, model: bytes, given: tuple[Any, ...], named: dict[str, Any]) -> None:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = module(*given, **named)
    names = [i.name for i in session.get_inputs()]
    arrays = [value.numpy() for value in (*given, *named.values())]
    found = session.run(None, dict(zip(names, arrays, strict=True)))
    for theirs, ours in zip(map(np.asarray, tree_leaves(expected)), found, strict=True):
        scale = max(float(np.abs(theirs).max(initial=0.0)), 1e-6)
        apart = float(np.abs(ours.astype(np.float64) - theirs).max(initial=0.0))
        if not apart <= _APART * scale:
            raise OtherAnswers(
                f"the ONNX model made of the export answers otherwise than PyTorch: by {apart:.3g} "
                f"where the largest number is {scale:.3g}"
            )
