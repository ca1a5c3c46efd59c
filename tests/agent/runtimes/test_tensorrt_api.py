"""The adapter that serves by TensorRT's Python API.

No GPU is here: TensorRT and CUDA are stand-ins (tests/peers/tensorrt_api.py) that follow their
interfaces.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pilotwave_agent.runtimes import load
from pilotwave_agent.runtimes.base import CannotLoad
from tests.agent.runtimes.samples import MODELS, golden
from tests.peers import tensorrt_api, trtexec
from tests.peers.tensorrt_api import Gpu


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    return tensorrt_api.install(monkeypatch)


def engine(folder: Path, name: str = "mlp.onnx", *, tensorrt: bytes = b"") -> Path:
    """Write an engine, of another TensorRT if one is given."""
    head = trtexec.header()
    head = head[: len(head) - len(tensorrt)] + tensorrt
    path = folder / "model.engine"
    path.write_bytes(head + trtexec.SM.encode().ljust(8) + (MODELS / name).read_bytes())
    return path


def test_it_describes_itself_and_answers_as_its_golden_cases_say(gpu: Gpu, tmp_path: Path) -> None:
    engine(tmp_path)
    runner = load(tmp_path, entrypoint="model.engine", runtime="tensorrt")
    assert [(t.name, t.dtype, t.shape) for t in runner.inputs] == [("x", "float32", (-1, 64))]
    assert [(t.name, t.dtype, t.shape) for t in runner.outputs] == [("probs", "float32", (-1, 10))]
    assert (runner.info.version, runner.info.details["through"]) == ("10.3.0", "api")
    found = golden("mlp")
    for count in (1, 8, 3):  # sizes that change from call to call
        answer = runner.run({"x": found["x"][:count]})["probs"]
        assert answer.shape == (count, 10)
        assert np.abs(answer - found["y"][:count]).max() < 1e-4
    # strided, and of another type: what goes to the device is what the engine wants
    backwards = found["x"][::-1].astype(np.float64)
    answer = runner.run({"x": backwards})["probs"]
    assert np.abs(answer - found["y"][::-1]).max() < 1e-4
    runner.close()
    runner.close()


def test_it_gives_back_all_that_it_took(gpu: Gpu, tmp_path: Path) -> None:
    engine(tmp_path)
    runner = load(tmp_path, entrypoint="model.engine", runtime="tensorrt")
    for _ in range(3):
        runner.run({"x": golden("mlp")["x"]})
        assert gpu.memory == {}
    runner.close()
    assert gpu.launched == {}


def test_an_input_that_does_not_fit_is_an_error_and_no_answer(gpu: Gpu, tmp_path: Path) -> None:
    engine(tmp_path)
    runner = load(tmp_path, entrypoint="model.engine", runtime="tensorrt")
    runner.run({"x": golden("mlp")["x"][:2]})
    with pytest.raises(ValueError, match=r"x: expected \[-1, 64\]; got \[2, 32\]"):
        runner.run({"x": np.zeros((2, 32), np.float32)})
    with pytest.raises(KeyError):
        runner.run({"y": np.zeros((2, 64), np.float32)})
    assert gpu.memory == {}


def test_an_engine_of_another_tensorrt_is_refused(gpu: Gpu, tmp_path: Path) -> None:
    engine(tmp_path, tensorrt=bytes((8, 6, 1, 6)))
    with pytest.raises(CannotLoad, match="engine plan file is not compatible"):
        load(tmp_path, entrypoint="model.engine", runtime="tensorrt")
