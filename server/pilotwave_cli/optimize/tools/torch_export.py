"""Read what `torch.export.save` wrote, and give it the data to calibrate on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from pilotwave_cli.optimize.tools.task import Task


def module_of(task: Task) -> Any:
    """Return the program as a module, which takes its inputs in the order of `task.shapes`."""
    return torch.export.load(str(task.model)).module()


def calls(task: Task, most: int) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield the inputs of one call after the other."""
    for call in task.calls(most):
        yield tuple(torch.from_numpy(call[name]) for name in task.shapes)
