"""An ExecuTorch program for XNNPACK, which computes on every processor; of a fixed batch."""

from __future__ import annotations

from typing import Any

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower

from pilotwave_cli.optimize.tools.task import Task
from pilotwave_cli.optimize.tools.torch_export import calls, module_of


def make(task: Task) -> None:
    """Compile the program as it is."""
    write(task, module_of(task))


def write(task: Task, module: Any) -> None:
    """Compile a module for calls like those of the calibration data."""
    (example,) = calls(task, 1)
    edge = to_edge_transform_and_lower(
        torch.export.export(module, example), partitioner=[XnnpackPartitioner()]
    )
    with task.out.open("wb") as file:
        edge.to_executorch().write_to_file(file)
