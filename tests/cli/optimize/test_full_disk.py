"""A disk that is really full, at each step: one sentence, and nothing is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.optimize import nets
from tests.peers.small_disk import SmallDisk, own_mounts

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    if not own_mounts():
        pytest.skip("this kernel lets nobody but root mount a file system here")
    made = SmallDisk(tmp_path / "small", 2)
    yield made
    made.unmount()


def run(folder: Path, scratch: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """In a process that sees the mounts of this one."""
    data = ["--calibration", "cal.npz", "--evaluate", "test.npz", "--out", "variants"]
    return subprocess.run(
        [sys.executable, "-m", "pilotwave_cli.main", "optimize", nets.MODEL, *data, *words],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("leave", [0, 16384, 81920, 212992])
def test_where_the_results_go(tmp_path: Path, disk: SmallDisk, leave: int) -> None:
    """Room for nothing, for half the model, for the model, and for most of its answers."""
    nets.write_data(disk.folder)
    before = {path.name for path in disk.folder.iterdir()} | {"ballast"}
    disk.fill(leave)
    done = run(disk.folder, tmp_path, "--only", "onnx-int8")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "No space left on device" in done.stderr.splitlines()[-1]
    assert {path.name for path in disk.folder.iterdir()} == before


def test_where_the_agents_temporary_files_go(tmp_path: Path, disk: SmallDisk) -> None:
    """What a tool writes lies beside the results; the self-test's folder does not."""
    nets.write_data(tmp_path)
    before = {*tmp_path.iterdir()}
    disk.fill(leave=8192)
    done = run(tmp_path, disk.folder, "--only", "onnx-int8")
    assert done.returncode == 1, done.stderr
    said = f"pilotwave: {disk.folder}: No space left on device"
    assert done.stderr.splitlines()[-1] == said
    assert {*tmp_path.iterdir()} == before
    assert {path.name for path in disk.folder.iterdir()} == {"ballast"}
