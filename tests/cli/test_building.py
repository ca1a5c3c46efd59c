"""From model files to the description that is signed."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pilotwave_cli.errors import CliError
from pilotwave_cli.publish.build_manifest import build_variant
from pilotwave_cli.publish.variant_options import VariantOptions
from pilotwave_protocol.errors import ProtocolError
from pilotwave_protocol.escalate import EscalateBudget, Escalation, Promise, Target
from pilotwave_protocol.manifest import Requires, VersionManifest, parse_manifest
from tests.protocol import compiled

REPO = Path(__file__).parent.parent.parent
MODELS = REPO / "tests" / "data" / "models"
DIGITS = REPO / "examples" / "digits" / "1.0.0"


def test_a_folder_becomes_a_variant_with_schema_and_self_test() -> None:
    built = build_variant("onnx-fp32", DIGITS, VariantOptions(atol="1e-4"))
    variant = built.variant
    assert (variant.entrypoint, variant.runtime, variant.format) == (
        "model.onnx",
        "onnxruntime",
        "onnx",
    )
    assert variant.inputs[0].shape == (-1, 64)
    assert variant.selftest is not None
    assert (variant.selftest.cases, variant.selftest.atol) == ("selftest.safetensors", "1e-4")
    assert set(built.sources) == {f.sha256 for f in variant.files}
    manifest = VersionManifest("detector", "1.0.0", 1, (variant,))
    assert parse_manifest(manifest.to_bytes()) == manifest


def test_a_single_file_is_a_variant_too() -> None:
    variant = build_variant("ort", MODELS / "mlp.ort", VariantOptions()).variant
    assert [f.path for f in variant.files] == ["mlp.ort"]
    assert variant.selftest is None


def test_a_variant_of_several_files_keeps_their_folders(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "labels.txt").write_text("cat\ndog\n")
    for name in ("mlp_ir.xml", "mlp_ir.bin"):
        shutil.copy(MODELS / name, tmp_path)
    variant = build_variant("openvino-fp32", tmp_path, VariantOptions()).variant
    assert variant.entrypoint == "mlp_ir.xml"
    assert {f.path for f in variant.files} == {"mlp_ir.xml", "mlp_ir.bin", "assets/labels.txt"}
    assert not variant.unsafe_format


def test_weights_that_are_missing_are_named(tmp_path: Path) -> None:
    shutil.copy(MODELS / "mlp_ir.xml", tmp_path)
    with pytest.raises(CliError, match=r"needs mlp_ir\.bin"):
        build_variant("v", tmp_path, VariantOptions())


def test_links_and_hidden_files_are_refused(tmp_path: Path) -> None:
    shutil.copy(DIGITS / "model.onnx", tmp_path)
    (tmp_path / "link.txt").symlink_to(tmp_path / "model.onnx")
    with pytest.raises(CliError, match="link"):
        build_variant("v", tmp_path, VariantOptions())
    (tmp_path / "link.txt").unlink()
    (tmp_path / ".hidden").write_text("x")
    with pytest.raises(CliError, match="cannot be shipped"):
        build_variant("v", tmp_path, VariantOptions())


def test_what_desktops_and_git_leave_behind_is_left_out_with_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(DIGITS / "model.onnx", tmp_path)
    for name in (".DS_Store", ".gitattributes"):
        (tmp_path / name).write_text("x")
    assert [f.path for f in build_variant("v", tmp_path, VariantOptions()).variant.files] == [
        "model.onnx"
    ]
    said = capsys.readouterr().err
    assert ".DS_Store: is left out" in said
    assert ".gitattributes: is left out" in said


def test_a_pickle_needs_the_publishers_explicit_word(tmp_path: Path) -> None:
    shutil.copy(DIGITS / "model.onnx", tmp_path)
    (tmp_path / "extra.pkl").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(CliError, match="--unsafe-format"):
        build_variant("v", tmp_path, VariantOptions())
    assert build_variant("v", tmp_path, VariantOptions(unsafe_format=True)).variant.unsafe_format


def test_two_models_in_one_folder_need_an_entrypoint(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        shutil.copy(DIGITS / "model.onnx", tmp_path / name)
    with pytest.raises(CliError, match="--entrypoint"):
        build_variant("v", tmp_path, VariantOptions())
    assert (
        build_variant("v", tmp_path, VariantOptions(entrypoint="b.onnx")).variant.entrypoint
        == "b.onnx"
    )
    with pytest.raises(CliError, match="not among"):
        build_variant("v", tmp_path, VariantOptions(entrypoint="c.onnx"))


def test_what_is_not_there_or_damaged_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="no such file"):
        build_variant("v", tmp_path / "none", VariantOptions())
    with pytest.raises(CliError, match="empty"):
        build_variant("v", tmp_path, VariantOptions())
    with pytest.raises(ProtocolError, match="cut off"):
        build_variant("v", MODELS / "faulty_truncated.tflite", VariantOptions())
    with pytest.raises(ProtocolError, match="variant name"):
        build_variant("../x", DIGITS, VariantOptions())


# --- files that were compiled for a chip


def test_a_compiled_model_requires_its_chip() -> None:
    file = MODELS / "digits_ethos_u65_256.tflite"
    variant = build_variant("v", file, VariantOptions()).variant
    assert (variant.runtime, variant.requires.accelerator) == ("litert", "ethos-u65-256")


@pytest.mark.needs("litert")
def test_a_model_for_coral_requires_coral(tmp_path: Path) -> None:
    file = tmp_path / "mlp_edgetpu.tflite"
    file.write_bytes(compiled.coral((MODELS / "mlp_handmade.tflite").read_bytes()))
    assert build_variant("v", file, VariantOptions()).variant.requires.accelerator == "coral"


def test_the_family_of_a_chip_may_be_required_and_another_chip_may_not() -> None:
    file = MODELS / "digits_ethos_u65_256.tflite"
    family = VariantOptions(requires=Requires(accelerator="ethosu"))
    assert build_variant("v", file, family).variant.requires.accelerator == "ethosu"
    other = VariantOptions(requires=Requires(accelerator="coral"))
    with pytest.raises(CliError, match="compiled for ethos-u65-256"):
        build_variant("v", file, other)


def test_a_compiled_file_that_no_runtime_opens_wants_a_program(tmp_path: Path) -> None:
    (tmp_path / "yolo.hef").write_bytes(compiled.hef(3))
    with pytest.raises(CliError, match="--runtime command"):
        build_variant("v", tmp_path, VariantOptions())


@pytest.mark.parametrize(
    ("models", "required"),
    [
        ({"yolo.hef": compiled.hef(3)}, "hailo8l"),
        ({"yolo.rknn": compiled.rknn(["rk3588"])}, "rk3588"),
        ({"yolo.bin": compiled.qnn_context()}, "hexagon"),
        # the program may choose, so that no chip is needed
        ({"yolo.hef": compiled.hef(3), "yolo.rknn": compiled.rknn(["rk3588"])}, None),
        ({"yolo.hef": compiled.hef(3), "m.onnx": (DIGITS / "model.onnx").read_bytes()}, None),
    ],
)
def test_a_program_requires_the_chip_of_the_models_beside_it(
    tmp_path: Path, models: dict[str, bytes], required: str | None
) -> None:
    (tmp_path / "run.sh").write_text("#!/bin/sh\nexit 0\n")
    for name, data in models.items():
        (tmp_path / name).write_bytes(data)
    wanted = VariantOptions(runtime="command", entrypoint="run.sh", unsafe_format=True)
    variant = build_variant("v", tmp_path, wanted).variant
    assert (variant.format, variant.requires.accelerator) == ("program", required)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"output": "logits"}, "output: the model has probs; got logits"),
        ({"rule": "guess"}, "rule: expected margin or top or entropy"),
    ],
)
def test_an_escalate_file_that_devices_cannot_follow_is_not_shipped(
    tmp_path: Path, changes: dict[str, str], said: str
) -> None:
    folder = shutil.copytree(DIGITS, tmp_path / "v")
    file = folder / "escalate.json"
    file.write_bytes(escalation().to_bytes())
    variant = build_variant("onnx", folder, VariantOptions()).variant
    assert "escalate.json" in {f.path for f in variant.files}
    file.write_bytes(replace(escalation(), **changes).to_bytes())  # type: ignore[arg-type]
    with pytest.raises(CliError, match=said):
        build_variant("onnx", folder, VariantOptions())


def escalation() -> Escalation:
    return Escalation(
        rule="margin",
        output="probs",
        softmax=False,
        threshold="0.6",
        promise=Promise("0.02", "0.1", 500),
        to=(Target("site", "detector-big", "2.1.0"),),
        encode="fp32",
        budget=EscalateBudget("0.3", 20_000_000),
        timeout_ms=150,
    )
