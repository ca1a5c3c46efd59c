"""TensorRT by its tool: engines built on the device, kept, bound, and tried.

No GPU is here: `trtexec` is a stand-in program (tests/peers/trtexec.py) that follows its interface.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pilotwave_agent.facts import read_facts
from pilotwave_agent.runtimes import engines, nvidia
from pilotwave_agent.selftest import SelfTestFolders, TestLimits, prepare, run_selftest
from pilotwave_agent.settings.config import RuntimeSettings
from pilotwave_cli.publish.variant_options import VariantOptions
from pilotwave_protocol import sniff
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.manifest import FileEntry, Variant
from pilotwave_protocol.states import Reason
from tests.agent.runtimes.samples import lay_out
from tests.peers import trtexec

LIMITS = TestLimits(timeout_s=100, memory_mb=1024)
SETTINGS = RuntimeSettings(build_timeout_s=100)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """TensorRT's folder, its `bin` first on the PATH."""
    folder = tmp_path / "tensorrt"
    found = trtexec.install(folder)
    monkeypatch.setenv("PATH", f"{found}{os.pathsep}{os.environ['PATH']}")
    return folder


def builds(tools: Path) -> int:
    log = tools / "builds"
    return len(log.read_text().splitlines()) if log.exists() else 0


def laid_out(own: Path, name: str = "mlp.onnx") -> Variant:
    return lay_out(own / "v", name, wishes=VariantOptions(runtime="tensorrt"))


def test_an_engine_is_built_once_and_passes_its_golden_cases(tmp_path: Path, tools: Path) -> None:
    own = tmp_path / "data"
    variant = laid_out(own)
    place = SelfTestFolders(own=own, cache=own / engines.FOLDER)
    assert prepare(own / "v", variant, SETTINGS, place)
    figures = run_selftest(own / "v", variant, LIMITS, SETTINGS, place)
    assert (figures.cases, figures.agreement) == (8, 1)
    assert figures.where == "tensorrt 10.3.0 on gpu"
    # what trtexec measured, and not the start of a program
    assert figures.p95_ms < 50
    assert not prepare(own / "v", variant, SETTINGS, place)
    assert builds(tools) == 1
    (engine,) = place.cache.glob("*.engine")  # type: ignore[union-attr]
    assert engine.name == f"{variant.files[0].sha256}-10.3.0-any-fp32.engine"


def test_another_tensorrt_builds_anew(tmp_path: Path, tools: Path) -> None:
    own = tmp_path / "data"
    variant = laid_out(own)
    place = SelfTestFolders(own=own, cache=own / engines.FOLDER)
    prepare(own / "v", variant, SETTINGS, place)
    (tools / "lib" / "libnvinfer.so.10.3.0").unlink()
    trtexec.install(tools, (10, 7, 0, 1))
    assert prepare(own / "v", variant, SETTINGS, place)
    assert builds(tools) == 2


def test_what_cannot_be_built_is_told_with_the_builders_words(tmp_path: Path, tools: Path) -> None:
    own = tmp_path / "data"
    variant = laid_out(own, "faulty_customop.onnx")
    place = SelfTestFolders(own=own, cache=own / engines.FOLDER)
    with pytest.raises(RefusedError, match=r"com\.acme") as caught:
        prepare(own / "v", variant, SETTINGS, place)
    assert caught.value.reason is Reason.SELFTEST_OPERATOR
    assert not list((own / engines.FOLDER).iterdir())


def test_without_the_tools_the_runtime_is_missing(tmp_path: Path) -> None:
    own = tmp_path / "data"
    variant = laid_out(own)
    with pytest.raises(RefusedError, match="trtexec is not here") as caught:
        prepare(own / "v", variant, SETTINGS, SelfTestFolders(own=own, cache=own / engines.FOLDER))
    assert caught.value.reason is Reason.RUNTIME_MISSING


def test_an_engine_for_another_tensorrt_is_unsupported(tmp_path: Path, tools: Path) -> None:
    folder = tmp_path / "data" / "v"
    variant = lay_out(folder, "mlp.onnx")
    other = b"ftrt" + bytes(20) + bytes((8, 6, 1, 2)) + b"sm_87   " + b"network"
    (folder / "m.engine").write_bytes(other)
    files = (*variant.files, FileEntry("m.engine", len(other), "0" * 64))
    bound = Variant(
        "v",
        "tensorrt",
        "m.engine",
        files,
        inputs=variant.inputs,
        outputs=variant.outputs,
        selftest=variant.selftest,
    )
    with pytest.raises(RefusedError, match="not compatible") as caught:
        run_selftest(folder, bound, LIMITS, SETTINGS)
    assert caught.value.reason is Reason.SELFTEST_UNSUPPORTED


def test_a_plan_tells_the_tensorrt_that_made_it() -> None:
    plan = trtexec.header() + b"sm_87   "
    found = sniff.sniff_bytes(memoryview(plan), "m.engine")
    assert (found.format, found.runtime_version) == ("tensorrt-plan", "==10.3.0.*")


def test_engines_of_versions_that_are_gone_are_removed(tmp_path: Path) -> None:
    for name in ("a" * 64, "b" * 64):
        (tmp_path / f"{name}-10.3.0-sm_87-fp16.engine").touch()
    engines.clear(tmp_path, {"a" * 64})
    assert [p.name[0] for p in tmp_path.iterdir()] == ["a"]


def test_a_jetson_is_known_by_its_files(tmp_path: Path) -> None:
    for path, said in {
        "proc/device-tree/compatible": "nvidia,p3767-0003\0nvidia,tegra234\0",
        "usr/src/tensorrt/bin/trtexec": "",
        "usr/lib/aarch64-linux-gnu/libnvinfer.so.10.3.0": "",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(said)
    (tmp_path / "usr/src/tensorrt/bin/trtexec").chmod(0o755)
    facts = read_facts(tmp_path, root=tmp_path)
    assert (facts["runtime.tensorrt"], facts["accelerator.sm_87"]) == ("10.3.0", True)
    assert nvidia.gpu(tmp_path) == "sm_87"
