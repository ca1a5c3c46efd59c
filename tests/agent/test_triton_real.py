"""Triton itself, where it is installed: the same steps as with the simulated peer.

tests/peers/triton.py says where it comes from. Its build there has the `python` backend only, so
versions carry a model.py beside the file that the self-test runs.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotwave_agent.settings.config import ProbeSettings
from pilotwave_protocol.states import ModelState
from tests.agent.test_tell import publish, switch, tell
from tests.peers.device import Device
from tests.peers.registry import Registry
from tests.peers.serving import numbers
from tests.peers.triton import PROGRAM, running_triton

S = ModelState
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PROGRAM, reason="no Triton here: tests/peers/triton.py"),
]
CONFIG = b"""name: "detector"
backend: "python"
max_batch_size: 0
input [{ name: "x" data_type: TYPE_FP32 dims: [1, 4] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [1, 4] }]
version_policy { latest { num_versions: 1 } }
"""
BACKEND = """
import numpy as np
import triton_python_backend_utils as pb_utils
class TritonPythonModel:
    def initialize(self, args):
        if {broken}:
            raise RuntimeError("it does not fit this board")
    def execute(self, requests):
        y = np.full((1, 4), {number}, np.float32)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", y)]) for _ in requests]
"""


@pytest.fixture
def triton(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    with running_triton(tmp_path) as found:
        yield found


def files(number: int, *, broken: bool = False) -> dict[str, bytes]:
    backend = BACKEND.format(number=number, broken=broken)
    return {"model_py": backend.encode(), "config_pbtxt": CONFIG}


def test_the_real_triton_loads_refuses_and_goes_back(
    device: Device, registry: Registry, triton: tuple[str, Path]
) -> None:
    url, repository = triton
    tell(device, "triton", url=url, folder=repository, timeout_s=60.0)
    probe = ProbeSettings("kserve", url=url, interval_s=0.1)
    device.set(probe=probe)
    assert switch(device, registry, publish(registry, 1, **files(1))) == (S.HEALTHY, "1.1.0", None)
    (first,) = numbers(repository / "detector")
    assert ready(url, first)
    found = switch(device, registry, publish(registry, 2, **files(2, broken=True)))
    assert found == (S.ROLLED_BACK, "1.1.0", "app_refused")
    assert "it does not fit this board" in (device.slot().detail or "")
    assert ready(url, first)
    device.set(probe=ProbeSettings("exec", ("false",), interval_s=0.1, failures=1))
    found = switch(device, registry, publish(registry, 3, **files(3)))
    assert found == (S.ROLLED_BACK, "1.1.0", "probe_failed")
    assert ready(url, first)
    assert numbers(repository / "detector") == [first]
    device.set(probe=probe)
    found = switch(device, registry, publish(registry, 4, **files(4)))
    assert found == (S.HEALTHY, "1.4.0", None), device.slot().detail
    assert ready(url, numbers(repository / "detector")[-1])


def ready(url: str, number: int) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/v2/models/detector/versions/{number}/ready") as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError:
        return False
