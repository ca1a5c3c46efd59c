"""A tool is a process with limits: what it does ends in a sentence, and it leaves nothing."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pilotwave_cli.optimize.recipes import BY_NAME, ONNX2TF, Recipe
from pilotwave_cli.optimize.run_tool import Limits, ToolFailed, run_tool
from tests.cli.optimize import nets

INT8 = BY_NAME["onnx-int8"]
USUAL = Limits()


@pytest.fixture
def task(tmp_path: Path) -> dict[str, object]:
    calibration, _ = nets.write_data(tmp_path)
    return {
        "model": str(nets.MODEL),
        "calibration": str(calibration),
        "out": str(tmp_path / "model.onnx"),
        "shapes": {"x": [-1, 64]},
        "options": {},
    }


def failure(recipe: Recipe, task: dict[str, object], limits: Limits = USUAL) -> str:
    with pytest.raises(ToolFailed) as found:
        run_tool(recipe, task, limits)
    return str(found.value)


def test_tool_that_takes_too_long(task: dict[str, object], tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 60\n")
    python.chmod(0o755)
    told = {**task, "options": {ONNX2TF: str(python)}}
    said = failure(BY_NAME["litert-fp32"], told, Limits(timeout_s=1.5))
    assert said == "no end within 1.5 s (--timeout)"


def test_tool_that_needs_too_much_memory(task: dict[str, object]) -> None:
    """OpenBLAS, of numpy, asks for more as it is imported."""
    said = failure(INT8, task, Limits(memory_mb=16))
    assert "--memory" in said or "memory" in said.lower()


def test_what_a_tool_starts_counts_as_its_own(task: dict[str, object], tmp_path: Path) -> None:
    """Each of the three stays below the limit that it has by itself."""
    mark = f"{tmp_path.name}-{os.getpid()}"
    hold = f"{sys.executable} -c 'import time; x = b\"x\" * (180 << 20); time.sleep(60)' {mark}"
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{hold} &\nsetsid {hold} &\n{hold} &\nwait\n")
    python.chmod(0o755)
    begun = time.monotonic()
    told = {**task, "options": {ONNX2TF: str(python)}}
    said = failure(BY_NAME["litert-fp32"], told, Limits(timeout_s=50, memory_mb=400))
    assert said == "it needs more than 400 MiB of memory (--memory)"
    assert time.monotonic() - begun < 40
    assert [
        p.pid for p in psutil.process_iter(["cmdline"]) if mark in (p.info["cmdline"] or [])
    ] == []


def test_tool_that_is_not_installed(task: dict[str, object]) -> None:
    recipe = Recipe("x", "x", "x", "optimize-openvino", ("no_such_module",), "openvino", "int8")
    assert failure(recipe, task) == (
        "no_such_module is not installed: pip install 'pilotwave[optimize-openvino]'"
    )


def test_tool_that_raises(task: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    said = failure(INT8, {**task, "model": str(tmp_path / "bad.onnx")})
    assert "Error" in said
    assert "Traceback" not in said


def test_tool_is_not_given_secrets(task: dict[str, object]) -> None:
    """What lies in the environment of a desk or of CI is not for a tool."""
    done = subprocess.run(
        [sys.executable, "-c", _SHOW_ENVIRONMENT],
        env={**os.environ, "AWS_SECRET_ACCESS_KEY": "s3cret", "PILOTWAVE_TOKEN": "s3cret"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "s3cret" not in done.stdout
    assert "PATH" in done.stdout


_SHOW_ENVIRONMENT = """
from pilotwave_cli.optimize.run_tool import _environment
print(_environment("/nowhere"))
"""


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_tool_has_no_network(listener: int) -> None:
    program = f"""
import os, socket
from pilotwave_cli.optimize.tools.start import confine
socket.create_connection(("127.0.0.1", {listener}), 5).close()
confine(8192, os.getppid())
try:
    socket.create_connection(("127.0.0.1", {listener}), 5)
except OSError as e:
    print(e)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if "unreachable" not in done.stdout.lower():
        pytest.fail(f"expected no network; got {done.stdout!r}")


@pytest.mark.parametrize(("refused", "said"), [("", 0), ("unshare", 1)])
def test_network_that_cannot_be_taken_is_told_once(tmp_path: Path, refused: str, said: int) -> None:
    nets.write_data(tmp_path)
    words = ["--calibration", "cal.npz", "--evaluate", "test.npz", "--out", "variants"]
    words += ["--max-loss", "2%", "--only", "onnx-fp32", "--only", "onnx-fp16"]
    peer = Path(__file__).parents[2] / "peers" / "old_kernel.py"
    done = subprocess.run(
        [sys.executable, peer, refused, "-m", "pilotwave_cli.main", "optimize", nets.MODEL, *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.count("tools keep the network") == said


def test_full_disk_is_the_end_and_no_row(task: dict[str, object]) -> None:
    """A limit on the size of a file stands in for a disk with no room."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, old[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            run_tool(BY_NAME["onnx-fp16"], task, USUAL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_tools_and_leaves_nothing(tmp_path: Path, how: signal.Signals) -> None:
    nets.write_data(tmp_path)
    before = set(tmp_path.iterdir())
    words = ["--calibration", "cal.npz", "--evaluate", "test.npz", "--out", "variants"]
    with (tmp_path.parent / f"{tmp_path.name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pilotwave_cli.main", "optimize", nets.MODEL, *words],
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            # a shell makes what it starts in the background ignore Ctrl-C
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started = _children(process)
        process.send_signal(how)
        status = process.wait(30)
    assert status not in (0, 2)
    assert set(tmp_path.iterdir()) == before
    _, left = psutil.wait_procs(started, timeout=10)
    assert left == []


def _children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Wait until it has started a tool, then return all that it started."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if found := psutil.Process(process.pid).children(recursive=True):
            return found
        time.sleep(0.05)
    pytest.fail("it started nothing")
