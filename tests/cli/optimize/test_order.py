"""The order of preference: quick ones first, and nothing before the source that is not quicker."""

from __future__ import annotations

from pilotwave_cli.optimize.report import Figures, Row, State
from pilotwave_cli.optimize.table import ordered


def row(name: str, ms: str, precision: str = "int8", state: State = State.ACCEPTED) -> Row:
    return Row(name, state, "onnxruntime", precision=precision, figures=Figures(p05_ms=ms))


def order(*rows: Row) -> list[str]:
    return [r.name for r in ordered(rows, 0.488)]


SOURCE = row("onnx-fp32", "0.488", "fp32")


def test_quicker_variants_stand_before_the_source() -> None:
    """The figures of MobileNetV2: U8S8 is quicker than fp32, S8S8 and fp16 are slower."""
    found = order(SOURCE, row("s8s8", "0.651"), row("fp16", "0.598", "fp16"), row("u8s8", "0.285"))
    assert found == ["u8s8", "onnx-fp32", "fp16", "s8s8"]


def test_a_gain_within_the_noise_is_none() -> None:
    assert order(row("u8s8", "0.470"), SOURCE) == ["onnx-fp32", "u8s8"]


def test_refused_and_failed_ones_come_last() -> None:
    found = order(
        row("failed", "0.1", state=State.FAILED), row("refused", "0.1", state=State.REFUSED), SOURCE
    )
    assert found == ["onnx-fp32", "refused", "failed"]
