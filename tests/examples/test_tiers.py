"""The example with two tiers: its data calibrate, and its application gains by the bigger model."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests import programs
from tests.peers.inference import InferenceServer
from tests.peers.shelf import Shelf
from tests.peers.tiers import DIGITS, allow

APP = DIGITS.parent / "tiers" / "app.py"


def example(*words: object) -> str:
    told = [sys.executable, str(APP), *map(str, words)]
    return subprocess.run(told, capture_output=True, text=True, check=True, timeout=60).stdout


def test_the_example_runs_from_labels_to_answers(tmp_path: Path) -> None:
    small = Path(shutil.copytree(DIGITS / "1.0.0", tmp_path / "small"))
    example("labelled", tmp_path / "labelled.npz")
    told = ["calibrate", small, DIGITS / "1.1.0", "--evaluate", "labelled.npz"]
    told += ["--model", "detector-big", "--excess", "3%"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PILOTWAVE_")}
    done = programs.run(programs.CLI, told, folder=tmp_path, environment=environment, seconds=100)
    assert done.returncode == 0, done.stderr
    shelf = Shelf(tmp_path / "device")
    (shelf.data / "live").mkdir(parents=True)
    shelf.switch(shelf.add_files(0, {p.name: p.read_bytes() for p in small.iterdir()}))
    server = InferenceServer(DIGITS / "1.1.0" / "model.onnx", "detector-big", "1.1.0")
    with server.running():
        allow(shelf, server.url)
        said = example("run", shelf.data)
    shares = re.search(r"both: ([\d.]+)% right; alone: ([\d.]+)%", said)
    assert shares, said
    assert float(shares[1]) > float(shares[2]) + 2
    assert re.search(r"site: \d+ of \d+ right", said), said
