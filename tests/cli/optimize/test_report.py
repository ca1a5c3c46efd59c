"""`report.json`: written and read again, and read strictly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pilotwave_cli.optimize.report import (
    REPORT,
    BadReport,
    DataSet,
    Figures,
    Files,
    Guard,
    Machine,
    Needs,
    Report,
    Row,
    Source,
    State,
    parse_report,
    read_report,
)

DIGESTS = {"model.onnx": "d" * 64, "selftest.safetensors": "e" * 64}
INT8 = Row(
    name="onnx-int8",
    state=State.ACCEPTED,
    runtime="onnxruntime",
    runtime_version=">=1.17",
    precision="int8",
    format="onnx",
    requires=Needs(arch=("x86_64",), cpu_any=("cpu.avx512_vnni", "cpu.dotprod"), memory_mb=64),
    files=Files("onnx-int8", "model.onnx", "selftest.safetensors", "1e-3", "1e-3", DIGESTS, "0.97"),
    figures=Figures(
        bytes=2526,
        rows=1500,
        worse=3,
        top1="0.9600",
        agreement="0.9953",
        loss_bound="0.0066",
        p05_ms="0.285",
        peak_mb="19.1",
        made_s="15.2",
    ),
)
FAILED = Row(
    name="openvino-int8",
    state=State.FAILED,
    runtime="openvino",
    why="nncf is not installed: pip install 'pilotwave[optimize-openvino]'",
)
REPORTED = Report(
    source=Source("model.onnx", "a" * 64, 8697),
    calibration=DataSet("b" * 64, 500),
    evaluate=DataSet("c" * 64, 1500),
    labelled=True,
    guard=Guard("0.01", "0.95"),
    tools={"onnxruntime": "1.32.0"},
    machine=Machine("x86_64", "A CPU", ("cpu.avx2",)),
    rows=(INT8, FAILED),
)


def test_report_is_read_as_it_was_written() -> None:
    assert parse_report(REPORTED.to_bytes()) == REPORTED


def test_report_has_the_shape_that_was_agreed() -> None:
    written = json.loads(REPORTED.to_bytes())
    assert written["schema"] == "pilotwave/optimize/1"
    assert written["data"]["evaluate"] == {"sha256": "c" * 64, "rows": 1500, "labelled": True}
    accepted, failed = written["rows"]
    assert accepted["folder"] == "onnx-int8"
    assert accepted["cases"] == "selftest.safetensors"
    assert accepted["requires"]["cpu_any"] == ["cpu.avx512_vnni", "cpu.dotprod"]
    assert accepted["figures"]["loss_bound"] == "0.0066"
    assert "folder" not in failed
    assert failed["figures"] == {}


def test_accepted_rows_are_those_to_publish() -> None:
    assert REPORTED.accepted == (INT8,)


def _changed(**row: Any) -> bytes:
    written = json.loads(REPORTED.to_bytes())
    written["rows"][0].update(row)
    return json.dumps(written).encode()


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ({"folder": "../elsewhere"}, r"rows\[0\].folder"),
        ({"entrypoint": "/etc/passwd"}, r"rows\[0\].entrypoint"),
        ({"state": "fine"}, r"rows\[0\].state"),
        ({"name": "openvino-int8"}, "each name and folder once"),
        ({"atol": "NaN"}, r"rows\[0\].atol"),
        ({"min_agreement": "1.5"}, r"min_agreement: expected a share"),
        ({"figures": {"loss_bound": "2"}}, "figures.loss_bound"),
        ({"figures": {"speed": "2"}}, "unknown field 'speed'"),
        ({"runtime_version": "new"}, "runtime_version"),
        ({"extra": 1}, "unknown field 'extra'"),
    ],
)
def test_bad_row_is_named(row: dict[str, Any], word: str) -> None:
    with pytest.raises(BadReport, match=word):
        parse_report(_changed(**row))


def test_another_schema_is_refused() -> None:
    written = {**json.loads(REPORTED.to_bytes()), "schema": "pilotwave/optimize/2"}
    with pytest.raises(BadReport, match="pilotwave/optimize/1"):
        parse_report(json.dumps(written).encode())


def test_accepted_rows_stand_first() -> None:
    with pytest.raises(BadReport, match="accepted ones first"):
        parse_report(replace(REPORTED, rows=(FAILED, INT8)).to_bytes())


def test_folder_without_a_report_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(BadReport, match="folder of variants"):
        read_report(tmp_path)


def test_error_names_the_file(tmp_path: Path) -> None:
    (tmp_path / REPORT).write_bytes(b"{}")
    with pytest.raises(BadReport, match=r"report\.json: schema"):
        read_report(tmp_path)
