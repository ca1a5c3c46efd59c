"""OpenVINO's own files with weights of 16 bits, which CPUs widen as they load them."""

from __future__ import annotations

import openvino as ov

from pilotwave_cli.optimize.tools.task import Task


def make(task: Task) -> None:
    """Convert and write `model.xml` with `model.bin`."""
    ov.save_model(ov.convert_model(str(task.model)), str(task.out), compress_to_fp16=True)
