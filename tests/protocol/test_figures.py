"""What a device says that it measured of a variant."""

from __future__ import annotations

import pytest

from pilotwave_protocol.figures import VariantFigures, figures_detail, read_figures


@pytest.mark.parametrize(
    "figures",
    [
        VariantFigures(p05_ms=0.285, cpu_ms=0.291, load_ms=12.0, peak_mb=19.1),
        VariantFigures(p05_ms=100.0, energy_mj=0.000125),
        VariantFigures(failed="selftest_mismatch"),
    ],
)
def test_what_is_said_is_read_back(figures: VariantFigures) -> None:
    assert read_figures(figures_detail("onnx-int8", figures)) == ("onnx-int8", figures)


@pytest.mark.parametrize(
    "detail",
    [None, "", "onnx-int8", "onnx-int8: ", "../x: p05_ms=1", "onnx: p05_ms=nan", "onnx: p05_ms=-1"],
)
def test_anything_else_says_nothing(detail: str | None) -> None:
    assert read_figures(detail) is None


def test_unknown_figures_are_passed_over_and_large_ones_held_in_bounds() -> None:
    read = read_figures("onnx: p05_ms=9999999999 watts=3")
    assert read == ("onnx", VariantFigures(p05_ms=1e9))
