"""8 bits for ExecuTorch, by the quantizer of XNNPACK: a scale for each channel.

Inputs and outputs stay floats; sums are of 32 bits on every processor.
"""

from __future__ import annotations

import torch
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from pilotwave_cli.optimize.tools.executorch_fp32 import write
from pilotwave_cli.optimize.tools.task import Task
from pilotwave_cli.optimize.tools.torch_export import calls, module_of

_ROWS = 300


def make(task: Task) -> None:
    """Quantise, then compile."""
    given = list(calls(task, _ROWS))
    quantizer = XNNPACKQuantizer().set_global(
        get_symmetric_quantization_config(is_per_channel=True)
    )
    prepared = prepare_pt2e(torch.export.export(module_of(task), given[0]).module(), quantizer)
    with torch.inference_mode():
        for call in given:
            prepared(*call)
    write(task, convert_pt2e(prepared))
