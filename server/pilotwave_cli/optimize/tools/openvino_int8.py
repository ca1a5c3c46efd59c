"""8 bits for OpenVINO, by NNCF, of which every processor gives the same answers.

The overflow fix halves the range of weights, so that pairs of products fit into 16 bits: NNCF's
default guards the first layer alone, and processors without VNNI answer otherwise.
"""

from __future__ import annotations

import nncf
import openvino as ov

from pilotwave_cli.optimize.tools.task import Task

_ROWS = 300


def make(task: Task) -> None:
    """Quantise, and write `model.xml` with `model.bin`."""
    calls = list(task.calls(_ROWS))
    quantised = nncf.quantize(
        ov.convert_model(str(task.model)),
        nncf.Dataset(calls),
        subset_size=len(calls),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            overflow_fix=nncf.OverflowFix.ENABLE
        ),
    )
    ov.save_model(quantised, str(task.out), compress_to_fp16=False)
