"""Updates by delta between programs: a real server, a real agent, and a line that counts bytes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pilotwave_protocol.digest import hash_file
from tests.e2e.fleet_of_one import FleetOfOne, fleet_of_one
from tests.peers.proxy import Proxy

pytestmark = [pytest.mark.timeout(400), pytest.mark.needs("onnxruntime")]

Weights = list[NDArray[np.float32]]
SIZES = (64, 512, 512, 10)


class Line:
    """What the device is connected by; `since()` is what came over it since the last call."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack, self._before = stack, 0

    def __call__(self, url: str) -> str:
        self.proxy = Proxy(int(url.rpartition(":")[2]))
        self._stack.callback(self.proxy.close)
        return self.proxy.url

    def since(self) -> int:
        before, self._before = self._before, self.proxy.delivered
        return self._before - before


@pytest.fixture
def line() -> Iterator[Line]:
    with ExitStack() as stack:
        yield Line(stack)


@pytest.fixture
def fleet(tmp_path: Path, line: Line) -> Iterator[FleetOfOne]:
    root = tmp_path / "one"
    root.mkdir()
    with fleet_of_one(root, link=line) as made:
        yield made


def trained() -> Weights:
    chance = np.random.default_rng(1)
    shapes = itertools.pairwise(SIZES)
    return [chance.normal(0, 0.1, shape).astype(np.float32) for shape in shapes]


def tuned(weights: Weights, seed: int) -> Weights:
    """The last layer trained a little more."""
    step = np.random.default_rng(seed).normal(0, 1e-3, weights[-1].shape)
    return [*weights[:-1], weights[-1] + step.astype(np.float32)]


def write(folder: Path, weights: Weights) -> int:
    """Write a real network of three layers; return its file's size."""
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    for i in range(len(weights)):
        last = i == len(weights) - 1
        made = "y" if last else f"h{i}"
        nodes.append(helper.make_node("MatMul", ["x" if i == 0 else f"r{i - 1}", f"w{i}"], [made]))
        if not last:
            nodes.append(helper.make_node("Relu", [made], [f"r{i}"]))
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, size])]
        for name, size in (("x", SIZES[0]), ("y", SIZES[-1]))
    ]
    tensors = [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)]
    graph = helper.make_graph(nodes, "net", ends[0], ends[1], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder.mkdir()
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path.stat().st_size


def test_an_update_goes_by_delta_and_a_damaged_old_file_is_no_word_to_anybody(
    fleet: FleetOfOne, line: Line, tmp_path: Path
) -> None:
    first = trained()
    versions = {"1.0.0": first, "1.1.0": tuned(first, 2), "1.2.0": tuned(first, 3)}
    fleet.stage.pilotwave("models", "create", "net", "--publisher", "keys/publisher.pem")

    def update(version: str) -> tuple[int, int]:
        """Roll a version out; return the file's size and what came over the line."""
        size = write(tmp_path / version, versions[version])
        fleet.publish("net", version, tmp_path / version)
        line.since()
        fleet.assign("net", version)
        fleet.until("net", version, "healthy")
        return size, line.since()

    size, received = update("1.0.0")
    assert received < 0.97 * size, "a first install comes packed"

    size, received = update("1.1.0")
    assert received < 0.2 * size

    ready = fleet.stage.ask("deltas", "list", "--model", "net", "--state", "ready")
    old, new = (hash_file(tmp_path / v / "model.onnx")[0] for v in ("1.0.0", "1.1.0"))
    # the way back may be there already
    (delta,) = (d for d in ready if (d["from_sha256"], d["to_sha256"]) == (old, new))
    assert delta["size"] < 0.2 * size
    assert "of the whole file" in fleet.stage.pilotwave("deltas", "show", old[:12], new[:12])

    damaged = fleet.data / "blobs" / new
    damaged.chmod(0o644)
    with damaged.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"rotten")
    size, received = update("1.2.0")
    assert received > size, "the whole file came"
