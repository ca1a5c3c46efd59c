"""`LiveModel` with other runtimes than ONNX Runtime: real models, under a load of calls."""

from __future__ import annotations

import asyncio
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotwave_agent.live import LiveModel
from pilotwave_agent.live.links import About
from pilotwave_agent.runtimes import load
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.messages.check_in import Installed
from tests.agent.live.test_live_model import until
from tests.agent.runtimes.samples import MODELS, golden
from tests.peers.shelf import Shelf

SOON_S = 60.0
EXACT = 1e-4
ROUNDS = 3


@dataclass(frozen=True)
class Pair:
    """Two builds of one network whose answers differ; the last file of the second may be cut."""

    runtime: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    input: str


PAIRS = [
    Pair(
        "litert",
        ("digits_litert_torch.tflite",),
        ("digits_dyn_int8.tflite",),
        "serving_default_args_0",
    ),
    Pair(
        "openvino",
        ("digits_ir_fp16.xml", "digits_ir_fp16.bin"),
        ("digits_ov_int8.xml", "digits_ov_int8.bin"),
        "x",
    ),
]


class Rack(Shelf):
    """A shelf for sample files of any runtime."""

    def put(self, number: int, pair: Pair, files: tuple[str, ...], *, cut: bool = False) -> str:
        """Make version 1.<number>.0 of these files current; return its number."""
        text = f"1.{number}.0"
        version = Installed(text, sha256_hex(text.encode()), "v", number)
        folder = self.layout.version(self.model, version)
        folder.mkdir(parents=True)
        for file in files:
            shutil.copy(MODELS / file, folder / file)
        if cut:
            bad = folder / files[-1]
            bad.chmod(0o644)
            bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 3])
        about = About(self.model, text, "v", version.sha256, pair.runtime, files[0])
        path = self.layout.about(self.model, version)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(about.to_bytes())
        self.switch(version)
        return text


def answer_of(pair: Pair, files: tuple[str, ...], x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return what a build answers when it is opened by itself."""
    runner = load(MODELS, entrypoint=files[0], runtime=pair.runtime)
    try:
        (answer,) = runner.run({runner.inputs[0].name: x}).values()
        return np.array(answer)
    finally:
        runner.close()


@pytest.mark.parametrize(
    "pair", [pytest.param(p, id=p.runtime, marks=pytest.mark.needs(p.runtime)) for p in PAIRS]
)
def test_no_call_fails_and_each_answer_is_of_the_version_that_it_names(
    pair: Pair, tmp_path: Path
) -> None:
    """Threads and coroutines call while good and bad versions come and go."""
    (tmp_path / "live").mkdir()
    rack, x = Rack(tmp_path), golden("digits")["x"][:1]
    expected = {"1.0.0": answer_of(pair, pair.first, x)}
    other = answer_of(pair, pair.second, x)
    assert np.abs(other - expected["1.0.0"]).max() > 20 * EXACT
    rack.put(0, pair, pair.first)
    live = LiveModel("detector", data=tmp_path, app="test", wait_s=SOON_S, runners=2)
    faults: list[object] = []
    ended, counts = threading.Event(), dict.fromkeys(("thread", "coroutine"), 0)
    name = live.inputs[0].name

    def check(answer: Any, kind: str) -> None:
        counts[kind] += 1
        (row,) = answer.values()
        if np.abs(np.asarray(row) - expected[answer.version.version]).max() > EXACT:
            faults.append((kind, answer.version, row))

    def call() -> None:
        try:
            while not ended.is_set():
                check(live.run({name: x}), "thread")
        except Exception as e:  # whatever it is, the test is to say it
            faults.append(e)

    async def acall() -> None:
        while not ended.is_set():
            for answer in await asyncio.gather(*(live.arun({name: x}) for _ in range(3))):
                check(answer, "coroutine")

    def loop() -> None:
        try:
            asyncio.run(acall())
        except Exception as e:
            faults.append(e)

    threads = [threading.Thread(target=t) for t in (call, call, loop)]
    for thread in threads:
        thread.start()
    try:
        for number in range(1, 3 * ROUNDS, 3):
            for n, files, answer in (
                (number, pair.second, other),
                (number + 1, pair.first, expected["1.0.0"]),
            ):
                expected[f"1.{n}.0"] = answer
                assert live.wait_for(rack.put(n, pair, files), SOON_S), live.refused
            bad = rack.put(number + 2, pair, pair.second, cut=True)
            until(lambda bad=bad: any(f.startswith(f"{bad}-") for f in live.refused))
    finally:
        ended.set()
        for thread in threads:
            thread.join(SOON_S)
        live.close()
    assert faults == []
    assert min(counts.values()) > 10, counts
