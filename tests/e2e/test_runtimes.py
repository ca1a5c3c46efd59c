"""Each runtime, from the publisher's files to an application on the device and back again.

What passed is written down for the table in docs/runtimes.md where PILOTWAVE_RUNTIMES_FOUND names a
folder (`make runtimes-table`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pilotwave_agent import runtimes
from pilotwave_agent.live import LiveModel
from tests.agent.runtimes.cases import CASES, Case
from tests.agent.runtimes.samples import MODELS, golden, lay_out_case, lay_out_texts
from tests.e2e.fleet_of_one import FleetOfOne, fleet_of_one
from tests.peers import trtexec

# torch says of its own TorchScript that it is old
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300), pytest.mark.long]


@dataclass(frozen=True)
class Way:
    """The two versions of one runtime's story. An application serves it itself if `live`."""

    runtime: str
    first: Case
    second: Case
    live: bool = True


def sample(runtime: str, file: str) -> Case:
    return next(c for c in CASES if (c.runtime, c.files[0]) == (runtime, file))


TENSORRT = Case("tensorrt", "onnx", ("mlp.onnx",), "mlp", ("x", "probs"))
OLD_TFLITE = Case("tflite-runtime", "tflite", ("mlp_handmade.tflite",), "mlp", ("x", "probs"))
TEXTS = Case("llama.cpp", "gguf", ("tiny_llama.gguf",), "texts", ("prompt", "text"))
PROGRAM = Case("command", "program", (), "mlp")
WAYS = [
    Way(
        "onnxruntime",
        sample("onnxruntime", "mlp.onnx"),
        sample("onnxruntime", "mlp.ort"),
    ),
    Way("litert", sample("litert", "mlp_handmade.tflite"), sample("litert", "mlp_handmade.tflite")),
    # two files, then one
    Way("openvino", sample("openvino", "mlp_ir.xml"), sample("openvino", "mlp.onnx")),
    Way(
        "torch",
        sample("torch", "digits_torchscript.pt"),
        sample("torch", "digits_lite.ptl"),
    ),
    Way(
        "executorch",
        sample("executorch", "digits_portable.pte"),
        sample("executorch", "digits_xnnpack.pte"),
    ),
    Way(
        "edge-impulse",
        sample("edge-impulse", "digits_py.eim"),
        sample("edge-impulse", "digits_py.eim"),
    ),
    Way("llama.cpp", TEXTS, TEXTS),
    # by a stand-in for trtexec: there is no GPU here
    Way("tensorrt", TENSORRT, TENSORRT),
    # its interpreter is another than the application's
    Way("tflite-runtime", OLD_TFLITE, OLD_TFLITE, live=False),
    Way("command", PROGRAM, PROGRAM, live=False),
]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetOfOne]:
    root = tmp_path_factory.mktemp("one")
    tools = trtexec.install(root / "tensorrt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
        with fleet_of_one(root) as made:
            yield made


def prepared(folder: Path, case: Case, version: str) -> None:
    if case is TEXTS:
        lay_out_texts(folder, case.files[0], {"a": said_by_itself(case)})
        return
    if case.runtime != "command":
        lay_out_case(folder, case)
        return
    folder.mkdir()
    script = f'#!/bin/sh\n# {version}\n[ "$1" = selftest ] && echo \'{{"cases": 1}}\'\n'
    (folder / "run").write_text(script)


def said_by_itself(case: Case) -> str:
    """Return what the language model says, asked here."""
    model = runtimes.load(MODELS, entrypoint=case.files[0], runtime=case.runtime)
    (found,) = model.run({"prompt": np.array(["a"], object)})["text"]
    model.close()
    return str(found)


def answer(live: LiveModel, case: Case) -> float:
    """Ask the application's side for the first golden case; return how far off its answer is."""
    if case is TEXTS:
        (said,) = live.run({"prompt": np.array(["a"], object)})["text"]
        return float(said != said_by_itself(case))
    found = golden(case.cases)
    batch = found["x"][0] if case.runtime == "edge-impulse" else found["x"][:1]
    (row,) = live.run({live.inputs[0].name: batch}).values()
    return float(np.abs(np.asarray(row).reshape(-1) - found["y"][0]).max())


def marks(way: Way) -> list[pytest.MarkDecorator]:
    """Three of them are told each time; all of them by `make test-runtimes`."""
    told = ("onnxruntime", "openvino", "edge-impulse")
    found = [pytest.mark.needs(way.runtime)]
    return found if way.runtime in told else [*found, pytest.mark.slow]


@pytest.mark.parametrize(
    "way",
    [pytest.param(w, id=w.runtime, marks=marks(w)) for w in WAYS],
)
def test_a_model_goes_out_serves_changes_and_comes_back(
    way: Way, fleet: FleetOfOne, tmp_path: Path
) -> None:
    model = f"model-{way.runtime}"
    words = ("--runtime", way.runtime, "--rtol", "0")
    fleet.stage.pilotwave("models", "create", model, "--publisher", "keys/publisher.pem")
    for version, case in (("1.0.0", way.first), ("1.1.0", way.second)):
        folder = tmp_path / version
        prepared(folder, case, version)
        about = ("--description", version, "--atol", case.atol)
        entry = ("--entrypoint", case.files[0] if case.files else "run")
        fleet.publish(model, version, folder, *words, *about, *entry)

    fleet.assign(model, "1.0.0")
    first = fleet.until(model, "1.0.0", "healthy")
    live = LiveModel(model, data=fleet.data, wait_s=60) if way.live else None
    if live:
        assert live.version.version == "1.0.0"
        assert answer(live, way.first) <= float(way.first.atol)

    fleet.assign(model, "1.1.0")
    fleet.until(model, "1.1.0", "healthy")
    if live:
        assert live.wait_for("1.1.0", 60), live.refused
        assert answer(live, way.second) <= float(way.second.atol)

    fleet.stage.pilotwave("devices", "rollback", "board", "--model", model, "--reason", "a trial")
    fleet.until(model, "1.0.0", "healthy", "rolled_back")
    if live:
        assert live.wait_for("1.0.0", 60), live.refused
        assert answer(live, way.first) <= float(way.first.atol)
        live.close()
    write_down(way, fleet, first)


def write_down(way: Way, fleet: FleetOfOne, said: dict[str, object]) -> None:
    folder = os.environ.get("PILOTWAVE_RUNTIMES_FOUND")
    if not folder:
        return
    found = {
        "runtime": way.runtime,
        "version": fleet.facts().get(f"runtime.{way.runtime}"),
        "live": way.live,
        "files": sorted({f for c in (way.first, way.second) for f in c.files}),
        "formats": sorted({c.format for c in (way.first, way.second)}),
    }
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    (path / f"{way.runtime}.json").write_text(json.dumps(found, indent=1))
