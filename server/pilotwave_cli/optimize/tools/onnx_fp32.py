"""The source as it is, but in one file and without opset imports that no node uses."""

from __future__ import annotations

import shutil

import onnx
from onnx.external_data_helper import uses_external_data

from pilotwave_cli.optimize.tools.onnx_files import strip_opsets
from pilotwave_cli.optimize.tools.task import Task


def make(task: Task) -> None:
    """Copy the file byte for byte where it is such a one already."""
    model = onnx.load(str(task.model), load_external_data=False)
    outside = any(uses_external_data(t) for t in model.graph.initializer)
    if not strip_opsets(model) and not outside:
        shutil.copyfile(task.model, task.out)
        return
    if outside:
        onnx.load_external_data_for_model(model, str(task.model.parent))
    onnx.save(model, str(task.out))
