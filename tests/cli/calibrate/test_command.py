"""`pilotwave calibrate` on real models: what it writes is what devices read, and what the data do
not show is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from pilotwave_protocol.escalate import parse_escalate
from tests import programs
from tests.cli.conftest import DIGITS
from tests.peers.shelf import write_taking_bytes

BIG = ("--model", "detector-big", "--version", "1.1.0")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DIGITS / "1.0.0", tmp_path / "small"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data.npz")


def write_data(path: Path, *, rows: int | None = None, labelled: bool = True) -> Path:
    """Images on which no version was trained, clean and as a poor camera sees them."""
    held = load_file(DIGITS / "held_out.safetensors")
    x = np.concatenate([held["clean"], held["in_use"]]).astype(np.float32) / 16
    labels = {"labels": np.tile(held["label"].astype(np.int64), 2)[:rows]} if labelled else {}
    np.savez(path, x=x[:rows], **labels)
    return path


def run(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PILOTWAVE_")}
    told = ["calibrate", *words]
    return programs.run(programs.CLI, told, folder=folder, environment=environment, seconds=100)


def test_a_promise_that_the_data_show_is_written_beside_the_model(
    tmp_path: Path, small: Path, data: Path
) -> None:
    big = DIGITS / "1.1.0" / "model.onnx"
    done = run(tmp_path, small, big, "--evaluate", data, *BIG, "--excess", "2%", "--share", "60%")
    assert done.returncode == 0, done.stderr
    said = parse_escalate((small / "escalate.json").read_bytes())
    assert (said.rule, said.output, said.softmax, said.encode) == ("margin", "probs", False, "fp32")
    assert said.promise is not None
    assert (said.promise.excess, said.promise.delta, said.promise.labelled) == ("0.02", "0.1", 1398)
    assert 0.2 < float(said.threshold) < 0.9
    assert (said.budget.share, said.budget.tracked) == ("0.6", False)
    assert (said.to[0].tier, said.to[0].model, said.to[0].version) == (
        "site",
        "detector-big",
        "1.1.0",
    )
    assert "promise: at most 2.0% of inputs are wrong" in done.stdout
    again = run(tmp_path, small, big, "--evaluate", data, *BIG, "--excess", "2%", "--share", "60%")
    assert again.returncode == 0, again.stderr  # its own file does not stand in its way


def test_a_tracked_threshold_promises_nothing_and_says_so(
    tmp_path: Path, small: Path, data: Path
) -> None:
    words = ("--evaluate", data, *BIG, "--tracked", "--share", "5%")
    done = run(tmp_path, small, DIGITS / "1.1.0", *words)
    assert done.returncode == 0, done.stderr
    assert "no promise: the threshold moves to keep to 5.0%" in done.stdout
    said = parse_escalate((small / "escalate.json").read_bytes())
    assert said.promise is None
    assert (said.budget.share, said.budget.tracked) == ("0.05", True)


def test_a_bigger_model_that_takes_bytes_is_judged_on_bytes(
    tmp_path: Path, small: Path, data: Path
) -> None:
    """It is trained on the same images; a promise about floats would be one about other inputs."""
    big = write_taking_bytes(DIGITS / "1.1.0" / "model.onnx", tmp_path / "bytes.onnx")
    done = run(tmp_path, small, big, "--evaluate", data, *BIG, "--excess", "3%")
    assert done.returncode == 0, done.stderr
    assert parse_escalate((small / "escalate.json").read_bytes()).encode == "uint8"
    bright = tmp_path / "bright.npz"
    np.savez(bright, **{n: a * (2 if n == "x" else 1) for n, a in np.load(data).items()})
    done = run(tmp_path, small, big, "--evaluate", bright, *BIG, "--excess", "3%")
    assert (done.returncode, "expected numbers from 0 to 1" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--excess", "1%", "--share", "20%"), 1, "cannot show an excess of at most 1%"),
        ((), 2, "expected --excess, which is promised, or --tracked"),
        (("--tracked",), 2, "--tracked: expected --share"),
        (("--excess", "nothing"), 2, "--excess: expected a share such as 1%"),
        (("--excess", "2%", "--rule", "guess"), 2, "--rule: expected margin or top or entropy"),
        (("--excess", "2%", "--tier", "moon"), 2, "--tier: expected site or cloud"),
        (("--excess", "2%", "--output", "y"), 2, "expected one output of shape"),
    ],
)
def test_what_is_not_shown_or_not_meant_is_refused(
    tmp_path: Path, small: Path, data: Path, words: tuple[str, ...], status: int, said: str
) -> None:
    done = run(tmp_path, small, DIGITS / "1.1.0", "--evaluate", data, *BIG, *words)
    assert (done.returncode, said in done.stderr) == (status, True), done.stderr
    assert not (small / "escalate.json").exists()


def test_a_bigger_model_that_is_worse_is_refused(tmp_path: Path, small: Path, data: Path) -> None:
    words = ("--evaluate", data, *BIG, "--tracked", "--share", "20%")
    done = run(tmp_path, small, DIGITS / "1.3.0", *words)
    assert done.returncode == 1
    assert "the bigger model has to be better on what is escalated" in done.stderr


def test_inputs_without_labels_are_refused(tmp_path: Path, small: Path) -> None:
    data = write_data(tmp_path / "plain.npz", labelled=False)
    done = run(tmp_path, small, DIGITS / "1.1.0", "--evaluate", data, *BIG, "--excess", "2%")
    assert (done.returncode, "expected the classes as `labels`" in done.stderr) == (2, True)
