"""Each way in which a model can be bad has a reason of its own, and none harms the agent.

Every test runs a real self-test in its child process.
"""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pilotwave_agent.runtimes.programs import SHARED_MEMORY
from pilotwave_agent.selftest import SelfTestFigures, SelfTestFolders, TestLimits, run_selftest
from pilotwave_agent.settings.config import RuntimeSettings
from pilotwave_cli.publish.variant_options import VariantOptions
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.manifest import FileEntry, SelfTest, TensorSpec, Variant
from pilotwave_protocol.states import Reason
from tests.agent.runtimes.samples import MODELS, golden, lay_out, write_cases
from tests.runtimes import TFLITE_PYTHON

LIMITS = TestLimits(timeout_s=100, memory_mb=512)
EIM = {"names": ("features", "classification"), "wishes": VariantOptions(atol="1e-3")}


def refused(folder: Path, variant: Variant, limits: TestLimits = LIMITS) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        run_selftest(folder, variant, limits, place=SelfTestFolders(own=folder.parent))
    return caught.value


def test_cases_of_another_model_are_a_mismatch_of_schema(tmp_path: Path) -> None:
    variant = lay_out(tmp_path, "mlp.onnx")
    found = golden("mlp")
    write_cases(tmp_path, {"input.y": found["x"], "output.probs": found["y"]})
    assert refused(tmp_path, variant).reason is Reason.SELFTEST_SCHEMA


def test_outputs_of_another_shape_are_told(tmp_path: Path) -> None:
    variant = lay_out(tmp_path, "mlp.onnx")
    found = golden("mlp")
    write_cases(tmp_path, {"input.x": found["x"], "output.probs": found["y"][:, :7]})
    no = refused(tmp_path, variant)
    assert (no.reason, "expected shape [1, 7]; got [1, 10]" in no.sentence) == (
        Reason.SELFTEST_SCHEMA,
        True,
    ), no.sentence


def test_a_manifest_that_declares_another_input_is_held_against_the_model(tmp_path: Path) -> None:
    good = lay_out(tmp_path, "mlp.onnx")
    wrong = TensorSpec("x", "float32", (-1, 32))
    variant = Variant("v", "onnxruntime", good.entrypoint, good.files, inputs=(wrong,))
    no = refused(tmp_path, variant)
    assert no.reason is Reason.SELFTEST_SCHEMA
    assert "expected [-1, 32]; the model has [-1, 64]" in no.sentence


def test_a_file_of_another_format_is_told_by_its_content(tmp_path: Path) -> None:
    good = lay_out(tmp_path, "mlp_handmade.tflite")
    variant = Variant("v", "onnxruntime", good.entrypoint, good.files)
    no = refused(tmp_path, variant)
    assert no.reason is Reason.SELFTEST_FORMAT
    assert "is tflite by its content; onnxruntime opens onnx or ort" in no.sentence


def test_a_damaged_file_is_told_before_a_runtime_sees_it(tmp_path: Path) -> None:
    entry = FileEntry("m.tflite", 5374, "0" * 64)
    (tmp_path / "m.tflite").write_bytes((MODELS / "faulty_truncated.tflite").read_bytes())
    no = refused(tmp_path, Variant("v", "litert", "m.tflite", (entry,)))
    assert (no.reason, "cut off" in no.sentence) == (Reason.SELFTEST_FORMAT, True)


def test_a_model_that_is_too_slow_is_told_by_its_p95(tmp_path: Path) -> None:
    wishes = VariantOptions(atol="1e-3", max_latency_ms=20)
    variant = lay_out(tmp_path, "digits_py.eim", names=EIM["names"], wishes=wishes)
    path = tmp_path / "digits_py.eim"
    path.write_text(path.read_text().replace("c = infer(x)", "time.sleep(0.03); c = infer(x)"))
    no = refused(tmp_path, variant)
    assert (no.reason, "at most 20 ms" in no.sentence) == (Reason.SELFTEST_SLOW, True)


def test_the_limit_on_cpu_time_ends_a_model_that_spins(tmp_path: Path) -> None:
    variant = lay_out(tmp_path, "faulty_hang.onnx")
    no = refused(tmp_path, variant, TestLimits(timeout_s=100, memory_mb=512, cpu_s=3))
    assert (no.reason, "3 s of CPU" in no.sentence) == (Reason.SELFTEST_TIMEOUT, True)


def test_a_runtime_that_is_not_here_is_missing(tmp_path: Path) -> None:
    variant = lay_out(tmp_path, "mlp.onnx")
    settings = RuntimeSettings(python="/nowhere/python")
    with pytest.raises(RefusedError, match="/nowhere/python") as caught:
        run_selftest(tmp_path, variant, LIMITS, settings)
    assert caught.value.reason is Reason.RUNTIME_MISSING
    unknown = Variant("v", "abacus", variant.entrypoint, variant.files)
    assert refused(tmp_path, unknown).reason is Reason.RUNTIME_MISSING
    wrong = Variant("v", "tflite-runtime", variant.entrypoint, variant.files)
    assert refused(tmp_path, wrong).reason is Reason.RUNTIME_MISSING


# --- programs


def eim(folder: Path, fault: str) -> Variant:
    """The sample program with a fault built in, as its environment is not the test's to set."""
    variant = lay_out(folder, "digits_py.eim", **EIM)  # type: ignore[arg-type]
    path = folder / "digits_py.eim"
    path.write_text(path.read_text().replace('"EIM_FAULT", ""', f'"EIM_FAULT", "{fault}"'))
    return variant


@pytest.mark.parametrize(
    ("fault", "reason", "words"),
    [
        ("exit", Reason.SELFTEST_LOAD, "status 7"),
        ("crash", Reason.SELFTEST_CRASH, "signal 6"),
        ("hang", Reason.SELFTEST_TIMEOUT, "no answer"),
        ("nosocket", Reason.SELFTEST_TIMEOUT, "no socket"),
        ("classify_error", Reason.SELFTEST_ERROR, "error code was -3"),
    ],
)
def test_each_fault_of_an_eim_program_is_told(
    tmp_path: Path, fault: str, reason: Reason, words: str
) -> None:
    hangs = fault in ("hang", "nosocket")
    no = refused(tmp_path, eim(tmp_path, fault), TestLimits(6 if hangs else 100, 512))
    assert no.reason is reason
    assert words in no.sentence or "no end within 6 s" in no.sentence


def test_an_eim_for_another_machine_cannot_be_loaded(tmp_path: Path) -> None:
    variant = lay_out(tmp_path, "digits_py.eim", **EIM)  # type: ignore[arg-type]
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xb7\x00\x01\x00\x00\x00"
    path = tmp_path / "digits_py.eim"
    path.write_bytes(header + bytes(64) + b"Edge Impulse Linux impulse runner")
    no = refused(tmp_path, variant)
    assert no.reason is Reason.SELFTEST_LOAD
    assert "format" in no.sentence.lower()


def test_a_killed_eim_leaves_no_shared_memory(tmp_path: Path) -> None:
    before = set(os.listdir(SHARED_MEMORY))
    variant = eim(tmp_path, "hang")
    assert refused(tmp_path, variant, TestLimits(5, 512)).reason is Reason.SELFTEST_TIMEOUT
    left = {n for n in set(os.listdir(SHARED_MEMORY)) - before if n.startswith("shm-")}
    assert not left


def command(folder: Path, script: str) -> Variant:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run"
    path.write_text(script)
    return Variant("v", "command", "run", (FileEntry("run", 1, "0" * 64),), unsafe_format=True)


def test_a_program_that_tests_itself_passes_with_the_figures_it_says(tmp_path: Path) -> None:
    said = '{"cases": 3, "worst": 0.25, "agreement": 1, "p50_ms": 2, "p95_ms": 4}'
    variant = command(tmp_path, f"#!/bin/sh\n[ \"$1\" = selftest ] && echo '{said}'\n")
    figures = run_selftest(tmp_path, variant, LIMITS)
    expected = (3, 0.25, 1, 2, 4)
    assert expected == (
        figures.cases,
        figures.worst,
        figures.agreement,
        figures.p50_ms,
        figures.p95_ms,
    )


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ('"agreement": 0.96, "cases": 50', "agreed on 96 % of 50 golden cases, at least 97 %"),
        ('"cases": 3', "no answer has classes, so none of 3 golden cases"),
    ],
)
def test_a_program_is_held_to_the_least_agreement_too(
    tmp_path: Path, said: str, words: str
) -> None:
    variant = command(tmp_path, f"#!/bin/sh\necho '{{{said}}}'\n")
    with pytest.raises(RefusedError, match=words) as caught:
        run_selftest(
            tmp_path, replace(variant, selftest=SelfTest("run", min_agreement="0.97")), LIMITS
        )
    assert caught.value.reason is Reason.SELFTEST_AGREEMENT


@pytest.mark.parametrize(
    ("script", "reason", "words"),
    [
        ("echo the camera is not there; exit 3", Reason.SELFTEST_ERROR, "status 3: the camera"),
        ("kill -SEGV $$", Reason.SELFTEST_SEGFAULT, "signal 11"),
        ("kill -ABRT $$", Reason.SELFTEST_CRASH, "signal 6"),
        ("sleep 60", Reason.SELFTEST_TIMEOUT, "no end within 4 s"),
        # more than 64 MB of a file
        ("head -c 99000000 /dev/zero > big", Reason.SELFTEST_ERROR, "status"),
    ],
)
def test_each_fault_of_a_program_is_told(
    tmp_path: Path, script: str, reason: Reason, words: str
) -> None:
    variant = command(tmp_path, f"#!/bin/sh\n{script}\n")
    limits = TestLimits(4, 512) if script.startswith("sleep") else LIMITS
    no = refused(tmp_path, variant, limits)
    assert (no.reason, words in no.sentence) == (reason, True), no.sentence


def test_a_file_that_is_no_program_cannot_be_run(tmp_path: Path) -> None:
    variant = command(tmp_path, "neither a script nor a binary\n")
    assert refused(tmp_path, variant).reason is Reason.SELFTEST_ERROR


# --- what a model under test may reach

SPY = """#!/usr/bin/python3
import json, os, socket
def tried(what):
    try:
        what()
    except OSError as e:
        return e.__class__.__name__
    return "done"
def connect():
    socket.create_connection(("127.0.0.1", PORT), 2).close()
print("found", json.dumps({
    "key": tried(lambda: open("OWN/device.key").read()),
    "write": tried(lambda: open("OWN/v/more", "w")),
    "outside": tried(lambda: open("OUTSIDE", "w")),
    "network": tried(connect),
    "kill": tried(lambda: os.kill(AGENT, 0)),
    "scratch": tried(lambda: open(os.environ["TMPDIR"] + "/x", "w")),
    "model": tried(lambda: open("OWN/v/run").read()),
}))
raise SystemExit(1)
"""


def test_a_model_under_test_reaches_neither_keys_nor_network_nor_the_agent(tmp_path: Path) -> None:
    import json
    import socket

    own, outside = tmp_path / "data", tmp_path / "outside"
    own.mkdir()
    (own / "device.key").write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        script = SPY.replace("OWN", str(own)).replace("OUTSIDE", str(outside))
        script = script.replace("PORT", str(listener.getsockname()[1]))
        variant = command(own / "v", script.replace("AGENT", str(os.getpid())))
        no = refused(own / "v", variant)
    found = json.loads(no.sentence.partition("found ")[2])
    assert found.pop("scratch") == found.pop("model") == "done"
    assert "done" not in found.values(), found


def test_the_folder_of_the_version_is_left_as_it_was(tmp_path: Path) -> None:
    variant = lay_out(tmp_path / "v", "mlp.onnx")
    before = sorted((p.name, p.stat().st_mtime_ns) for p in (tmp_path / "v").iterdir())
    figures: SelfTestFigures = run_selftest(
        tmp_path / "v", variant, LIMITS, place=SelfTestFolders(own=tmp_path)
    )
    assert sorted((p.name, p.stat().st_mtime_ns) for p in (tmp_path / "v").iterdir()) == before
    assert set(figures.confined) >= {"offline", "no_files"}


# --- the older TensorFlow Lite


@pytest.mark.slow
@pytest.mark.needs("tflite-runtime")
def test_the_silent_mismatch_of_an_old_runtime_is_caught_by_the_golden_cases(
    tmp_path: Path,
) -> None:
    """tflite-runtime 2.14 answers a newer quantisation wrongly (0.096 of the classes right, as
    against 0.983) and raises nothing; the same file passes on LiteRT."""
    names = ("serving_default_args_0", "serving_default_output_0_output")
    wishes = VariantOptions(runtime="tflite-runtime", atol="0.5", rtol="0")
    variant = lay_out(
        tmp_path, "digits_dyn_int8.tflite", cases="digits", names=names, wishes=wishes
    )
    settings = RuntimeSettings(python=str(TFLITE_PYTHON))
    with pytest.raises(RefusedError, match="8 of 8 golden cases differ") as caught:
        run_selftest(tmp_path, variant, LIMITS, settings)
    assert caught.value.reason is Reason.SELFTEST_MISMATCH


@pytest.mark.slow
@pytest.mark.needs("tflite-runtime")
def test_a_good_model_passes_in_the_old_runtimes_own_interpreter(tmp_path: Path) -> None:
    wishes = VariantOptions(runtime="tflite-runtime")
    variant = lay_out(tmp_path, "mlp_handmade.tflite", wishes=wishes)
    settings = RuntimeSettings(python=str(TFLITE_PYTHON))
    figures = run_selftest(tmp_path, variant, LIMITS, settings)
    assert figures.where == "tflite-runtime 2.14.0 on cpu"


@pytest.mark.slow
@pytest.mark.needs("tflite-runtime")
def test_a_segfault_of_the_old_runtime_is_told_as_one(tmp_path: Path) -> None:
    """A file whose flatbuffer is whole and whose operator points outside its weights."""
    variant = lay_out(
        tmp_path, "mlp_handmade.tflite", wishes=VariantOptions(runtime="tflite-runtime")
    )
    path = tmp_path / "mlp_handmade.tflite"
    path.chmod(path.stat().st_mode | stat.S_IWUSR)
    settings = RuntimeSettings(python=str(TFLITE_PYTHON))
    rng, seen = np.random.default_rng(7), set()
    good = bytearray((MODELS / "mlp_handmade.tflite").read_bytes())
    for _ in range(60):
        bad = bytearray(good)
        for place in rng.integers(0, 1500, 4):
            bad[place] = rng.integers(0, 256)
        path.write_bytes(bad)
        try:
            run_selftest(tmp_path, variant, TestLimits(30, 512), settings)
        except RefusedError as no:
            seen.add(no.reason)
        if Reason.SELFTEST_SEGFAULT in seen:
            return
    raise AssertionError(f"no damaged file crashed it: {seen}")
