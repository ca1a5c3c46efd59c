"""What the settings hide of the processor, oneDNN does without in self-tests."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from pilotwave_agent.effects.trial import limits_of
from pilotwave_agent.hardware.instructions import without
from pilotwave_agent.selftest import run_selftest
from pilotwave_agent.settings import config as settings
from pilotwave_agent.settings.config import RuntimeSettings
from tests.agent.runtimes.samples import lay_out

OWN = {"server": "http://127.0.0.1", "device": "cam-1", "data_dir": "."}


# what oneDNN may use at most, by which facts are hidden
@pytest.mark.parametrize(
    ("hidden", "most"),
    [
        ((), None),
        (("runtime.openvino", "cpu.neon"), None),  # nothing that oneDNN chooses by
        (("cpu.amx_int8",), "AVX512_CORE_FP16"),
        (("cpu.bf16",), "AVX512_CORE_VNNI"),
        (("cpu.avx512_vnni",), "AVX512_CORE"),
        (("cpu.avx_vnni",), "AVX512_CORE_BF16"),  # of what is below, AVX2_VNNI alone takes it
        (("cpu.avx512", "cpu.avx512_vnni"), "AVX2_VNNI"),
        (("cpu.avx512", "cpu.avx_vnni"), "AVX2"),
        (("cpu.avx2",), "SSE41"),
    ],
)
def test_the_most_that_onednn_may_use(hidden: tuple[str, ...], most: str | None) -> None:
    assert without(hidden) == ({"ONEDNN_MAX_CPU_ISA": most} if most else {})


def test_the_child_of_the_self_test_is_told(tmp_path: Path) -> None:
    hide = ["cpu.avx512_vnni", "cpu.avx512", "cpu.avx_vnni"]
    config = settings.parse({**OWN, "facts": {"hide": hide}}, base=tmp_path)
    python, told = tmp_path / "python", tmp_path / "told"
    python.write_text(f'#!/bin/sh\nenv > {told}\nexec {sys.executable} "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    variant = lay_out(tmp_path / "v", "mlp.onnx")
    how = RuntimeSettings(python=str(python))
    run_selftest(tmp_path / "v", variant, limits_of(config), how)
    assert "ONEDNN_MAX_CPU_ISA=AVX2\n" in told.read_text()
