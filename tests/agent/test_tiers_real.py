"""Tiers against real model servers that a Pilotwave device feeds: Triton and MLServer.

`make test-all` makes an environment for each; elsewhere PILOTWAVE_TRITON names a `tritonserver`
(tests/peers/triton.py), PILOTWAVE_MLSERVER an `mlserver`. Neither build here opens ONNX files, so
the bigger model carries a program that runs its weights in numpy, beside the file that the device's
self-test runs.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from pilotwave_agent.live.tiers import Tiered
from pilotwave_agent.settings.tell import Tell
from pilotwave_protocol.states import ModelState
from tests.agent.test_tell import switch
from tests.peers.device import Device
from tests.peers.registry import Registry
from tests.peers.shelf import Shelf
from tests.peers.tiers import DIGITS, SAID, allow, images, serve
from tests.peers.triton import PACKAGES, free_port, running, running_triton

_MADE = Path(__file__).parents[2] / ".venv-mlserver" / "bin" / "mlserver"
MLSERVER = os.environ.get("PILOTWAVE_MLSERVER") or (str(_MADE) if _MADE.exists() else "")
BIG = "detector-big"
CONFIG = b"""name: "detector-big"
backend: "python"
max_batch_size: 0
input [{ name: "x" data_type: TYPE_FP32 dims: [-1, 64] }]
output [{ name: "probs" data_type: TYPE_FP32 dims: [-1, 10] }]
version_policy { latest { num_versions: 1 } }
"""
ANSWER = """
import os
import numpy as np
WEIGHTS = np.load(os.path.join(os.path.dirname(os.path.abspath(__file__)), "weights.npz"))
def answer(x):
    w = WEIGHTS
    z = np.maximum(x @ w["w1"] + w["b1"], 0) @ w["w2"] + w["b2"]
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return (e / e.sum(axis=1, keepdims=True)).astype(np.float32)
"""
OF_TRITON = """
import triton_python_backend_utils as pb_utils
class TritonPythonModel:
    def execute(self, requests):
        found = [answer(pb_utils.get_input_tensor_by_name(r, "x").as_numpy()) for r in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("probs", y)]) for y in found]
"""
OF_MLSERVER = """
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse
class Digits(MLModel):
    async def load(self):
        return True
    async def predict(self, payload):
        y = answer(NumpyCodec.decode_input(payload.inputs[0]))
        outputs = [NumpyCodec.encode_output("probs", y)]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)
"""
# how a device tells MLServer: the version's files into its folder, then its own repository API
TELL_MLSERVER = """
import json, os, shutil, sys, urllib.request
folder, url = sys.argv[1:]
shutil.rmtree(folder, ignore_errors=True)
shutil.copytree(os.environ["PILOTWAVE_PATH"], folder)
said = {"name": "detector-big", "implementation": "model.Digits", "parallel_workers": 0,
        "parameters": {"version": os.environ["PILOTWAVE_VERSION"]}}
json.dump(said, open(os.path.join(folder, "model-settings.json"), "w"))
for old in ("unload", "load"):
    ask = urllib.request.Request(f"{url}/v2/repository/models/detector-big/{old}", data=b"{}",
        headers={"Content-Type": "application/json"})
    try:
        urllib.request.urlopen(ask, timeout=30)
    except urllib.error.HTTPError as e:
        if old == "load":
            sys.exit(str(e.read()))
"""

pytestmark = pytest.mark.slow


def files_of(version: str, backend: str) -> dict[str, bytes]:
    """A version of the digits model, and the program that answers with its weights."""
    raw = (DIGITS / version / "model.onnx").read_bytes()
    tensors = onnx.load_from_string(raw).graph.initializer
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"weights-{os.getpid()}.npz"
    np.savez(path, **{t.name: numpy_helper.to_array(t) for t in tensors})
    weights = path.read_bytes()
    path.unlink()
    return {"model.onnx": raw, "model.py": (ANSWER + backend).encode(), "weights.npz": weights}


@contextmanager
def running_mlserver(folder: Path) -> Iterator[tuple[str, Path]]:
    repository = folder / "mlserver"
    repository.mkdir()
    ports = free_port(), free_port(), free_port()
    said = {
        "host": "127.0.0.1",
        "http_port": ports[0],
        "grpc_port": ports[1],
        "metrics_port": ports[2],
        "parallel_workers": 0,
        "load_models_at_startup": False,
    }
    (repository / "settings.json").write_text(json.dumps(said))
    url, log = f"http://127.0.0.1:{ports[0]}", folder / "mlserver.log"
    with running([MLSERVER, "start", str(repository)], f"{url}/v2/health/live", log):
        yield url, repository


def ask_in_hard_cases(data: Path, rows: np.ndarray) -> tuple[list[Any], str]:
    """Return each row's answer, and the first trouble on the way."""
    answers, troubles = [], []
    with Tiered("detector", data=data, app="test", wait_s=30.0) as model:
        for x in rows:
            answers.append(model.predict(x))
            troubles.append(model.trouble)
    return answers, next(filter(None, troubles), "")


def local(version: str, rows: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(DIGITS / version / "model.onnx"))
    return [session.run(None, {"x": x})[0] for x in rows]


def check_answers(answers: list[Any], rows: np.ndarray, versions: set[str]) -> None:
    """The hard inputs have the bigger model's own answers, to the last bits of a float."""
    sites = [n for n, a in enumerate(answers) if a.tier == "site"]
    assert 10 < len(sites) < len(rows)
    assert {answers[n].version for n in sites} == versions
    for n, own in zip(sites, local("1.1.0", rows[sites]), strict=True):
        np.testing.assert_allclose(answers[n]["probs"], own, atol=1e-5)


@pytest.mark.skipif(not PACKAGES, reason="no Triton here: tests/peers/triton.py")
def test_hard_inputs_are_answered_by_triton_on_a_device(
    device: Device, registry: Registry, tmp_path: Path
) -> None:
    rows = images()[0][:80]
    shelf = Shelf(tmp_path / "small")
    (shelf.data / "live").mkdir(parents=True)
    serve(shelf, replace(SAID, timeout_ms=5000))
    with running_triton(tmp_path) as (url, repository):
        tell = Tell("triton", url=url, folder=repository, name=BIG, timeout_s=60.0)
        device.set(tell=(tell,))
        files = {**files_of("1.1.0", OF_TRITON), "config.pbtxt": CONFIG}
        first = f"import sys; sys.path.insert(0, {PACKAGES!r})\n".encode()
        files["model.py"] = first + files["model.py"]
        found = switch(device, registry, registry.publish("detector", "1.1.0", files))
        assert found == (ModelState.HEALTHY, "1.1.0", None), device.slot().detail
        allow(shelf, url)
        answers, trouble = ask_in_hard_cases(shelf.data, rows)
        assert trouble == ""
        (number,) = {a.version for a in answers if a.tier == "site"}
        assert number.isdecimal()  # Triton counts by itself; which version it is it cannot say
        check_answers(answers, rows, {number})
    answers, trouble = ask_in_hard_cases(shelf.data, rows)
    assert {a.tier for a in answers} == {"device"}
    assert trouble


@pytest.mark.skipif(not MLSERVER, reason="no .venv-mlserver here")
def test_hard_inputs_are_answered_by_mlserver_on_a_device(
    device: Device, registry: Registry, tmp_path: Path
) -> None:
    rows = images()[0][:80]
    shelf = Shelf(tmp_path / "small")
    (shelf.data / "live").mkdir(parents=True)
    serve(shelf, replace(SAID, timeout_ms=5000))
    with running_mlserver(tmp_path) as (url, repository):
        command = (sys.executable, "-c", TELL_MLSERVER, str(repository / BIG), url)
        device.set(tell=(Tell("exec", command=command, timeout_s=60.0),))
        for version, other in (("1.1.0", ""), ("1.3.0", "model_version: expected 1.1.0; got")):
            entry = registry.publish("detector", version, files_of(version, OF_MLSERVER))
            found = switch(device, registry, entry)
            assert found == (ModelState.HEALTHY, version, None), device.slot().detail
            allow(shelf, url)
            answers, trouble = ask_in_hard_cases(shelf.data, rows)
            if other:  # the threshold's promise is about one version of the bigger model
                assert {a.tier for a in answers} == {"device"}
                assert other in trouble
            else:
                assert trouble == ""
                check_answers(answers, rows, {"1.1.0"})
