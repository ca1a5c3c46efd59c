"""The self-test: what each kind of bad model is told apart by, in a real child process."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilotwave_agent.selftest import TestLimits, run_in_turns, run_selftest
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.states import Reason
from tests.agent.runtimes.samples import lay_out

LIMITS = TestLimits(timeout_s=60, memory_mb=512)
NAMES = ("x", "logits")


def test_a_good_model_passes_with_its_figures(tmp_path: Path) -> None:
    figures = run_selftest(tmp_path, lay_out(tmp_path, "mlp.onnx"), LIMITS)
    assert figures.cases == 8
    assert figures.agreement == 1
    assert 0 < figures.p05_ms <= figures.p50_ms <= figures.p95_ms
    assert figures.load_ms > 0
    assert 0 <= figures.cpu_ms < 100  # some kernels count CPU time in steps of 10 ms
    assert 10 < figures.peak_mb < 512


@pytest.mark.parametrize(
    ("file", "limits", "reason", "words"),
    [
        ("faulty_hang.onnx", TestLimits(4, 512), Reason.SELFTEST_TIMEOUT, "while it ran"),
        # it asks for 1.6 GB when it runs
        ("faulty_hog.onnx", LIMITS, Reason.SELFTEST_MEMORY, "512 MB"),
        ("faulty_nan.onnx", LIMITS, Reason.SELFTEST_NONFINITE, "NaN"),
        # the classes in reverse
        ("faulty_wrong.onnx", LIMITS, Reason.SELFTEST_MISMATCH, "8 of 8"),
        # two layers that do not meet
        ("faulty_shape.onnx", LIMITS, Reason.SELFTEST_SCHEMA, "32 and 64|K: 64 N:32"),
        ("faulty_customop.onnx", LIMITS, Reason.SELFTEST_OPERATOR, "com.acme"),
        ("faulty_opset.onnx", LIMITS, Reason.SELFTEST_UNSUPPORTED, "opset"),
    ],
)
def test_each_fault_has_its_own_reason(
    tmp_path: Path, file: str, limits: TestLimits, reason: Reason, words: str
) -> None:
    variant = lay_out(tmp_path, file)
    with pytest.raises(RefusedError, match=words) as caught:
        run_selftest(tmp_path, variant, limits)
    assert caught.value.reason is reason


def test_variants_are_timed_in_turns_in_one_child(tmp_path: Path) -> None:
    tried = [
        (tmp_path / file, lay_out(tmp_path / file, file, cases="digits", names=NAMES))
        for file in ("digits.onnx", "digits_int8_qdq.onnx")
    ]
    found = run_in_turns(tried, LIMITS)
    assert len(found) == 2
    assert all(0 < turns.p05_ms < 100 and 0 <= turns.cpu_ms < 100 for turns in found)
    assert [turns.energy_mj for turns in found] == [None, None]


def test_what_has_no_room_beside_others_is_said(tmp_path: Path) -> None:
    hog = tmp_path / "hog"
    tried = [(hog, lay_out(hog, "faulty_hog.onnx", cases=None))] * 2
    with pytest.raises(RefusedError) as caught:
        run_in_turns(tried, LIMITS)
    assert caught.value.reason is Reason.SELFTEST_MEMORY
