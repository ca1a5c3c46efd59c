"""A `.tflite` file of the ONNX model, by onnx2tf in an interpreter of its own.

onnx2tf pins all that it needs, and needs Python 3.12. It may leave a broken file and end without an
error, so that what it made counts only once its runtime opened it.
"""

from __future__ import annotations

import ctypes
import shutil
import signal
import subprocess
from pathlib import Path

from pilotwave_cli.optimize.recipes import ONNX2TF
from pilotwave_cli.optimize.tools.task import Task

_TAIL = 200


class NotConverted(Exception):
    """onnx2tf made no file; the sentence says what it said last."""


def make(task: Task) -> None:
    """Convert to a batch of one, with the sizes that the calibration data has."""
    shutil.copyfile(convert(task), task.out)


def convert(task: Task) -> Path:
    """Return the file that was made. Raises `NotConverted`."""
    (first,) = ({n: a.shape for n, a in call.items()} for call in task.calls(1))
    shapes = [f"{name}:{','.join(map(str, shape))}" for name, shape in first.items()]
    words = [task.options[ONNX2TF], "-m", "onnx2tf", "-i", str(task.model), "-o", "converted", "-n"]
    libc = ctypes.CDLL(None)
    done = subprocess.run(
        [*words, "-ois", *shapes],
        capture_output=True,
        preexec_fn=lambda: libc.prctl(1, signal.SIGKILL),  # PR_SET_PDEATHSIG: ends with this one
        check=False,
    )
    made = sorted(Path("converted").glob("*_float32.tflite"))
    if done.returncode or not made:
        said = " ".join((done.stderr or done.stdout).decode(errors="replace").split())
        raise NotConverted(f"onnx2tf ended with status {done.returncode}: {said[-_TAIL:]}")
    return made[0]
