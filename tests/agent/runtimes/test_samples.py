"""Each runtime opens each of its formats and answers the golden cases, in the self-test's child."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilotwave_agent.selftest import SelfTestFolders, TestLimits, run_selftest
from tests.agent.runtimes.cases import Case, rows
from tests.agent.runtimes.samples import lay_out_case

LIMITS = TestLimits(timeout_s=100, memory_mb=2048)


@pytest.mark.parametrize("case", rows())
def test_each_sample_passes_its_golden_cases(tmp_path: Path, case: Case) -> None:
    variant = lay_out_case(tmp_path / "data" / "v", case)
    assert variant.format == case.format
    figures = run_selftest(
        tmp_path / "data" / "v", variant, LIMITS, place=SelfTestFolders(own=tmp_path / "data")
    )
    assert figures.cases == 8
    assert figures.agreement == 1
    assert figures.where.startswith(f"{case.runtime} ")
    assert figures.peak_mb > figures.base_mb > 5
