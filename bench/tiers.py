"""A small model on the device and a bigger one behind it: promises kept, share of inputs, time.

- Promise: the labelled inputs are drawn with replacement from 1,398 images (the example detector's
  held-out ones, clean and as a poor camera sees them), which stand for all inputs; 300 draws each.
- Share: a stream of 4,000 clean images and 4,000 of the poor camera, at a budget of 5 %.
- Accuracy: the example detector 1.1.0 with a CNN of 151 k weights behind it (`--big FILE.onnx`, or
  `--python` of an environment with torch, scikit-learn, onnx and safetensors, which trains it).
- Time: `Tiered` against a simulated server in this process's own machine, over loopback.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from _bench import DIGITS, Bench, main, median
from safetensors.numpy import load_file

from pilotwave_agent.live import LiveModel
from pilotwave_agent.live.escalator import Escalator, Way
from pilotwave_agent.live.tiers import Tiered
from pilotwave_cli.calibrate.threshold import STEPS, Labelled, at_share, learn_then_test
from pilotwave_protocol.escalate import EscalateBudget, confidence
from tests.peers.inference import InferenceServer
from tests.peers.shelf import Shelf
from tests.peers.tiers import SAID, allow, serve

DRAWS, DELTA = 300, 0.1
PROMISES = ((0.01, 500), (0.01, 1000), (0.02, 200), (0.02, 500), (0.03, 200), (0.03, 500))
SHARE, HALF = 0.05, 4000


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--big", type=Path, help="the bigger model, trained before")
    parser.add_argument("--python", type=Path, help="interpreter with torch, to train it")


def measure(bench: Bench) -> None:
    promises(bench)
    shares(bench)
    times(bench)
    if bench.options.big is not None:
        accuracies(bench, bench.options.big)
    elif bench.options.python is not None:
        with tempfile.TemporaryDirectory(prefix="pilotwave-bench-") as folder:
            big = Path(folder) / "big.onnx"
            script = Path(__file__).with_name("_tiers_big.py")
            subprocess.run([bench.options.python, script, big], check=True)
            accuracies(bench, big)
    else:
        bench.say("accuracy: left out; name --big or --python")


def images(*parts: str) -> tuple[np.ndarray, np.ndarray]:
    held = load_file(DIGITS / "held_out.safetensors")
    x = np.concatenate([held[part] for part in parts]).astype(np.float32) / 16
    return x, np.tile(held["label"].astype(int), len(parts))


def scores(model: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def judged(small: str, big: Path, *parts: str) -> Labelled:
    x, labels = images(*parts)
    own, theirs = scores(DIGITS / small / "model.onnx", x), scores(big, x)
    sure = [confidence(row, "margin", softmax=False) for row in own.tolist()]
    return Labelled(np.array(sure, float), own.argmax(1) == labels, theirs.argmax(1) == labels)


# --- promises


def promises(bench: Bench) -> None:
    whole = judged("1.0.0", DIGITS / "1.1.0" / "model.onnx", "clean", "in_use")
    for excess, rows in PROMISES:
        draws = [drawn(whole, rows, seed) for seed in range(DRAWS)]
        shown = [learn_then_test(data, excess, DELTA) for data in draws]
        broken = sum(t is not None and breaks(whole, t, excess) for t in shown) / DRAWS
        up = sum(1.0 if t is None else whole.share(t) for t in shown) / DRAWS
        naive = [best(data, excess) for data in draws]
        lost = sum(breaks(whole, t, excess) for t in naive) / DRAWS
        name = f"at most {excess:.0%}, {rows} labels"
        bench.figure(f"{name}: broken", broken, f"<= {DELTA:g}", met=broken <= DELTA)
        bench.figure(f"{name}: escalated", up)
        bench.figure(f"{name}: broken by the best on data", lost)


def drawn(whole: Labelled, rows: int, seed: int) -> Labelled:
    chosen = np.random.RandomState(seed).randint(0, whole.rows, rows)
    return Labelled(whole.confidence[chosen], whole.small[chosen], whole.big[chosen])


def breaks(whole: Labelled, threshold: float, excess: float) -> bool:
    return whole.harmed(threshold) / whole.rows > excess


def best(data: Labelled, excess: float) -> float:
    """The loosest threshold that keeps the promise on the data alone."""
    steps = (s / STEPS for s in range(STEPS + 1))
    return next((t for t in steps if data.harmed(t) / data.rows <= excess), 1.0)


# --- the share as inputs change


def shares(bench: Bench) -> None:
    big = DIGITS / "1.1.0" / "model.onnx"
    clean, poor = judged("1.0.0", big, "clean"), judged("1.0.0", big, "in_use")
    chance = np.random.RandomState(1)
    stream = np.concatenate([chance.choice(d.confidence, HALF) for d in (clean, poor)])
    begin = replace(SAID, promise=None, threshold=f"{at_share(clean, SHARE):.6f}")
    for name, budget in (
        ("fixed, without a cap", EscalateBudget("1", 1)),
        ("fixed, share 5 %", EscalateBudget(str(SHARE), 1)),
        ("tracked, share 5 %", EscalateBudget(str(SHARE), 1, tracked=True)),
    ):
        escalator = Escalator(replace(begin, budget=budget), chance=lambda: 1.0)
        sent = np.array([escalator.decide(float(sure)) is Way.SEND for sure in stream])
        worst = float(np.convolve(sent, np.ones(200) / 200, "valid").max())
        first, second = float(sent[:HALF].mean()), float(sent[HALF:].mean())
        bench.figure(f"{name}: clean", first)
        goal = "0.045 to 0.055" if budget.tracked else ""
        bench.figure(f"{name}: poor camera", second, goal, met=0.045 <= second <= 0.055)
        bench.figure(f"{name}: worst 200 in a row", worst)


# --- the time of one call


def times(bench: Bench) -> None:
    calls = 200 if bench.quick else 2000
    x = images("in_use")[0][:1]
    with tempfile.TemporaryDirectory(prefix="pilotwave-bench-") as folder:
        shelf = Shelf(Path(folder))
        (shelf.data / "live").mkdir()
        serve(shelf, replace(SAID, threshold="1"))
        with LiveModel("detector", data=shelf.data, wait_s=30.0) as live:
            timed(bench, "LiveModel.run", calls, lambda: live.run({"x": x}))
        for binary in (True, False):
            model = DIGITS / "1.1.0" / "model.onnx"
            server = InferenceServer(model, "detector-big", "1.1.0", binary=binary)
            with server.running():
                allow(shelf, server.url)
                with Tiered("detector", data=shelf.data, wait_s=30.0) as tiered:
                    assert tiered.predict(x).tier == "site", tiered.trouble
                    form = "binary" if binary else "JSON"
                    timed(bench, f"escalated, {form}", calls, lambda: tiered.predict(x))
                    bench.figure(f"escalated, {form}: bytes", server.asked[-1]["bytes"])
        serve(shelf, replace(SAID, threshold="0"), number=1)
        with Tiered("detector", data=shelf.data, wait_s=30.0) as tiered:
            timed(bench, "confident", calls, lambda: tiered.predict(x))


def timed(bench: Bench, name: str, calls: int, call: Any) -> None:
    taken = []
    for _ in range(calls):
        begun = time.perf_counter()
        call()
        taken.append((time.perf_counter() - begun) * 1000)
    bench.figure(f"{name}: ms, median", median(taken))
    bench.figure(f"{name}: ms, 99 of 100", sorted(taken)[calls * 99 // 100])


# --- accuracy


def accuracies(bench: Bench, big: Path) -> None:
    for small in ("1.0.0", "1.1.0"):
        for part in ("clean", "in_use"):
            data = judged(small, big, part)
            order = np.argsort(data.confidence, kind="stable")
            right = np.concatenate(
                [[0], np.cumsum(data.big[order].astype(int) - data.small[order])]
            )
            both = (data.small.sum() + right) / data.rows
            goal = float(data.big.mean())
            need = float(np.flatnonzero(both >= goal)[0] / data.rows)
            name = f"{small}, {part}"
            bench.figure(f"{name}: small right", float(data.small.mean()))
            bench.figure(f"{name}: big right", goal)
            asked = (small, part) == ("1.1.0", "clean")
            words = "<= 0.14" if asked else ""
            bench.figure(f"{name}: as good as big from", need, words, met=need <= 0.14)


if __name__ == "__main__":
    main("tiers", measure, add=add)
