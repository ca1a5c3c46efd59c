"""What a quantised model answers depends on the processor: no error tells, its agreement does.

The sample is examples/digits 1.0.0, quantised by ONNX Runtime to U8S8: where pairs of such products
are summed in 16 bits, as processors without VNNI do, they overflow.
"""

from __future__ import annotations

import stat
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import load_file

from pilotwave_agent.hardware.board import cpu_flags
from pilotwave_agent.selftest import TestLimits, run_selftest
from pilotwave_agent.settings.config import RuntimeSettings
from pilotwave_cli.publish.variant_options import VariantOptions
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.manifest import SelfTest, Variant
from pilotwave_protocol.states import Reason
from pilotwave_protocol.tensortypes import CASES
from tests.agent.runtimes.samples import lay_out, write_cases

DIGITS = Path(__file__).parents[3] / "examples" / "digits"
LIMITS = TestLimits(timeout_s=60, memory_mb=1024)
VNNI = ("cpu.avx512_vnni", "cpu.avx_vnni")


def lay_out_digits(folder: Path, file: str, runtime: str, asked: str | None) -> Variant:
    """The quantised model with 200 images, and what the one that it was made of answers."""
    images = load_file(DIGITS / "held_out.safetensors")["clean"][:200].astype(np.float32)
    parent = onnxruntime.InferenceSession(DIGITS / "1.0.0" / "model.onnx")
    (answers,) = parent.run(None, {"x": images})
    variant = lay_out(folder, file, cases=None, wishes=VariantOptions(runtime=runtime))
    write_cases(folder, {"input.x": images, "output.probs": answers})
    return replace(variant, selftest=SelfTest(CASES, min_agreement=asked))


def without_vnni(folder: Path) -> RuntimeSettings:
    """An interpreter whose oneDNN takes the processor for one of before 2019."""
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nONEDNN_MAX_CPU_ISA=AVX2 exec {sys.executable} "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return RuntimeSettings(python=str(python))


@pytest.mark.parametrize("attempt", range(3))
def test_a_processor_that_computes_otherwise_is_caught_in_every_try(
    tmp_path: Path, attempt: int
) -> None:
    variant = lay_out_digits(tmp_path / "v", "digits_mlp_u8s8.onnx", "openvino", "0.97")
    with pytest.raises(RefusedError) as caught:
        run_selftest(tmp_path / "v", variant, LIMITS, without_vnni(tmp_path))
    assert caught.value.reason is Reason.SELFTEST_AGREEMENT
    said = str(caught.value)
    assert "of 200 golden cases, at least 97 % are asked: this CPU is " in said


def test_where_the_processor_computes_it_right_it_passes(tmp_path: Path) -> None:
    """Differences of single numbers, which are beyond any tolerance, judge nothing then."""
    flags = cpu_flags(Path("/"))
    variant = lay_out_digits(tmp_path / "v", "digits_mlp_u8s8.onnx", "openvino", "0.97")
    if not any(flags.get(name) for name in VNNI):
        with pytest.raises(RefusedError):
            run_selftest(tmp_path / "v", variant, LIMITS)
        return
    figures = run_selftest(tmp_path / "v", variant, LIMITS)
    assert figures.agreement is not None
    assert figures.agreement >= 0.97
    assert figures.worst > 0.1
