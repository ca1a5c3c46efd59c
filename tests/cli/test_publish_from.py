"""`pilotwave publish --from`: what optimize accepted becomes one version, with its figures."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pilotwave_cli.optimize.report import (
    REPORT,
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
)
from pilotwave_protocol.digest import hash_file
from tests.cli.conftest import DIGITS
from tests.cli.operator import Operator

FP32 = Row("onnx-fp32", State.ACCEPTED, "onnxruntime", "fp32", "onnx", ">=1.17")
INT8 = replace(
    FP32,
    name="onnx-int8",
    requires=Needs(cpu_any=("cpu.avx512_vnni", "cpu.dotprod")),
    figures=Figures(3658, 1500, 3, "0.9600", "0.9953", "0.0066", "0.285", "19.1", "15.2"),
)
REFUSED = replace(FP32, name="onnx-fp16", state=State.REFUSED, why="it loses too much")


def files_of(folder: Path, **changes: Any) -> Files:
    digests = {p.name: hash_file(p)[0] for p in folder.iterdir()}
    names = (folder.name, "model.onnx", "selftest.safetensors", "1e-3", "1e-3")
    return replace(Files(*names, digests), **changes)


def made(home: Path, *rows: Row) -> Path:
    """A folder as optimize writes it, of one model that stands for all variants."""
    out = home / "variants"
    kept = []
    for row in rows:
        if row.state is State.ACCEPTED:
            shutil.copytree(DIGITS / "1.0.0", out / row.name)
            agreement = "0.97" if row.requires.cpu_any else None
            row = replace(row, files=files_of(out / row.name, min_agreement=agreement))
        kept.append(row)
    report = Report(
        Source("model.onnx", "a" * 64, 8697),
        DataSet("b" * 64, 500),
        DataSet("c" * 64, 1500),
        True,
        Guard("0.01", "0.95"),
        {"onnxruntime": "1.32.0"},
        Machine("x86_64", "A CPU", ("cpu.avx2",)),
        tuple(kept),
    )
    out.mkdir(exist_ok=True)
    (out / REPORT).write_bytes(report.to_bytes())
    return out


def test_all_accepted_variants_are_one_version_with_the_figures_of_the_report(
    pw: Operator, model: str
) -> None:
    made(pw.home, INT8, FP32, REFUSED)
    words = ("--from", "variants", "--key", pw.keys / "publisher.pem", "--metric", "night=0.91")
    pw("publish", model, "1.0.0", *words, "--requires", "fact.app=>=2", "--no-try")
    found = pw.json("versions", "show", model, "1.0.0")
    int8, fp32 = found["variants"]
    assert (int8["name"], fp32["name"]) == ("onnx-int8", "onnx-fp32")
    assert int8["requires"]["cpu_any"] == ["cpu.avx512_vnni", "cpu.dotprod"]
    assert int8["requires"]["facts"] == fp32["requires"]["facts"] == {"app": ">=2"}
    assert int8["selftest"]["min_agreement"] == "0.97"
    assert fp32["selftest"]["min_agreement"] is None
    assert found["metrics"] == {
        "onnx-int8.top1": "0.9600",
        "onnx-int8.agreement": "0.9953",
        "onnx-int8.loss_bound": "0.0066",
        "onnx-int8.p05_ms": "0.285",
        "onnx-int8.peak_mb": "19.1",
        "onnx-int8.bytes": "3658",
        "night": "0.91",
    }
    assert found["source"]["optimize.source"] == "a" * 64
    assert found["source"]["optimize.report"] == hash_file(pw.home / "variants" / REPORT)[0]
    assert found["source"]["tool.onnxruntime"] == "1.32.0"
    shown = " ".join(pw("versions", "show", model, "1.0.0").split())
    assert "requires cpu.avx512_vnni or cpu.dotprod; fact.app >=2" in shown
    assert "requires fact.app >=2" in shown


def test_a_folder_that_is_not_what_was_measured_is_refused(pw: Operator, model: str) -> None:
    publish = ("publish", model, "1.0.0", "--from", "variants", "--no-try")
    (pw.home / "variants").mkdir()
    assert "report.json cannot be read" in pw.fails(*publish, status=2)
    changed = made(pw.home, FP32) / "onnx-fp32" / "model.onnx"
    whole = changed.read_bytes()
    changed.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    said = pw.fails(*publish, status=2)
    assert "model.onnx has changed since it was measured" in said
    changed.write_bytes(whole)
    stray = changed.with_name("notes.txt")
    stray.write_text("x")
    assert "notes.txt is not in the report" in pw.fails(*publish, status=2)
    stray.unlink()
    # `calibrate` writes it afterwards; whether devices can follow it is looked at all the same
    changed.with_name("escalate.json").write_text("{}")
    assert "escalate.json: escalate.json.schema: expected a value" in pw.fails(*publish, status=2)
    changed.with_name("selftest.safetensors").unlink()
    assert "is in the report and not here" in pw.fails(*publish, status=2)


def test_what_was_refused_is_never_published(pw: Operator, model: str) -> None:
    made(pw.home, REFUSED)
    said = pw.fails("publish", model, "1.0.0", "--from", "variants", status=2)
    assert "no variant was accepted" in said
    assert "it loses too much" in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "expected --variant NAME=PATH, or --from"),
        (("--from", "variants", "--variant", "a=variants/onnx-int8"), "expected --variant"),
        (("--from", "variants", "--near", "0.9.0"), "--near changes the weights"),
        (("--from", "variants", "--metric", "onnx-int8.top1=1"), "the report says it: 0.9600"),
    ],
)
def test_what_does_not_go_with_a_report_is_refused(
    pw: Operator, model: str, words: tuple[str, ...], says: str
) -> None:
    made(pw.home, INT8)
    assert says in pw.fails("publish", model, "1.0.0", *words, status=2)
