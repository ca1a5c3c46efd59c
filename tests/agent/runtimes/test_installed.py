"""Which runtimes a device says it has, and by which interpreter; that asking for them is cheap."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pilotwave_agent.runtimes.installed import runtime_facts, version_of
from pilotwave_agent.settings import config
from pilotwave_agent.settings.config import BadConfig, RuntimeSettings

BASE = {"server": "http://x", "device": "a", "data_dir": "."}


def environment(prefix: Path, *packages: str) -> Path:
    """An interpreter's folders, as `python -m venv` lays them out."""
    for package in packages:
        (prefix / "lib/python3.9/site-packages" / f"{package}.dist-info").mkdir(parents=True)
    return prefix / "bin/python"


def test_a_runtime_of_another_interpreter_is_found_there(tmp_path: Path) -> None:
    python = environment(tmp_path, "tflite_runtime-2.14.0", "numpy-1.26.4")
    settings = {"tflite-runtime": RuntimeSettings(python=str(python))}
    facts = runtime_facts(settings, tmp_path / "root")
    assert facts["runtime.tflite-runtime"] == "2.14.0"
    assert facts["runtime.onnxruntime"] == version_of(["onnxruntime"])


def test_a_runtime_that_the_named_interpreter_lacks_is_not_here(tmp_path: Path) -> None:
    python = environment(tmp_path, "numpy-1.26.4")
    settings = {"onnxruntime": RuntimeSettings(python=str(python))}
    assert runtime_facts(settings, tmp_path / "root")["runtime.onnxruntime"] is None


def test_the_edge_impulse_client_tells_its_protocol_where_numpy_is(tmp_path: Path) -> None:
    facts = runtime_facts({}, tmp_path)
    assert facts["runtime.edge-impulse"] == "1"
    bare = {"edge-impulse": RuntimeSettings(python=str(tmp_path / "bin/python"))}
    assert runtime_facts(bare, tmp_path)["runtime.edge-impulse"] is None


def test_the_settings_of_runtimes_are_read(tmp_path: Path) -> None:
    words = {"python": "/opt/py", "devices": ["cuda"], "threads": 2, "build_timeout_s": 60}
    found = config.parse({**BASE, "runtimes": {"onnxruntime": words}}, base=tmp_path)
    assert found.runtimes == {"onnxruntime": RuntimeSettings("/opt/py", ("cuda",), 2, 60.0)}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"pythn": "/opt/py"}, r"runtimes\.litert: unknown field 'pythn'"),
        ({"threads": 0}, r"runtimes\.litert\.threads: expected a whole number"),
        ({"devices": "cuda"}, r"runtimes\.litert\.devices: expected a list"),
        ([], r"runtimes\.litert: expected an object"),
    ],
)
def test_a_wrong_setting_of_a_runtime_says_what_is_expected(
    tmp_path: Path, words: object, said: str
) -> None:
    with pytest.raises(BadConfig, match=said):
        config.parse({**BASE, "runtimes": {"litert": words}}, base=tmp_path)


def test_importing_the_runtimes_imports_none_of_them() -> None:
    code = (
        "import sys; from pilotwave_agent import runtimes;"
        "from pilotwave_agent.runtimes.installed import runtime_facts; runtime_facts({});"
        "print([m for m in ('numpy', 'onnxruntime', 'openvino', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
