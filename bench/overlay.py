"""What adapting to one device costs: fitting 1,000 examples, and what a call takes longer; and how
soon later labels take an overlay back.

The costs are for 64 and 1,280 features and ten classes. Fitting is measured in a process of its
own, without running the model; calls are made in turns, with the overlay and without.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
from _bench import Bench, main

from pilotwave_agent import overlays
from pilotwave_agent.live import LiveModel
from pilotwave_agent.overlays import JUDGE_EVERY, JUDGE_NEWEST, Adapting
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.learning.device_plan import DevicePlan, Kind, Scores
from pilotwave_protocol.learning.overlay import Overlay
from pilotwave_protocol.learning.paired import is_worse
from pilotwave_protocol.learning.plan import Base
from pilotwave_protocol.learning.statistics import write_numbers
from tests.peers.shelf import Shelf
from tests.protocol.learning.models import any_classifier

CLASSES, INPUTS = 10, 64
FIT_S, FIT_MB, CALL_US = 5.0, 128.0, 200.0
PLAN = DevicePlan(
    model="detector",
    plan="bench",
    base=Base("1.1.0", "a" * 64, "onnx"),
    embedding="active",
    features=64,
    classes=CLASSES,
    scores=Scores("probs", Kind.PROBABILITIES),
    clip="8",
    distance="20",
    deadline=datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=1),
)
_FIT = """
import re, sys, time
import numpy as np
from pilotwave_agent.learning.residual import fit
from pilotwave_protocol.learning.device_plan import parse_device_plan
plan, random = parse_device_plan(sys.stdin.buffer.read()), np.random.default_rng(0)
y = random.integers(0, plan.classes, 1000)
centres = random.normal(size=(plan.classes, plan.features))
x = np.maximum(centres[y] / 2 + random.normal(size=(1000, plan.features)), 0).astype(np.float32)
p = random.dirichlet(np.ones(plan.classes), 1000).astype(np.float32)
def peak():  # rusage would tell of the process that started this one too
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
before, begun = peak(), time.process_time()
fit(x, p, y, plan)
print(time.process_time() - begun, peak() - before)
"""


def measure(bench: Bench) -> None:
    taking_back(bench, draws=200 if bench.quick else 1000)
    for features in (64, 1280):
        plan = replace(PLAN, features=features)
        fitting(bench, plan)
        with tempfile.TemporaryDirectory() as folder:
            calling(bench, plan, Path(folder), calls=200 if bench.quick else 2000)


def taking_back(bench: Bench, *, draws: int) -> None:
    """How often an overlay is taken back within 1,000 labels, and after how many: of overlays that
    have other shares of inputs right, and wrong, than the version."""
    random = np.random.default_rng(0)
    for better, worse in ((0.1, 0.05), (0.1, 0.1), (0.05, 0.15), (0.1, 0.4)):
        gone = [n for _ in range(draws) if (n := taken_back_at(random, better, worse))]
        what = f"{better:g} better, {worse:g} worse"
        bench.figure(f"{what}: taken back", len(gone) / draws)
        bench.figure(f"{what}: median label", int(np.median(gone)) if gone else 0)


def taken_back_at(random: np.random.Generator, better: float, worse: float) -> int:
    drawn = random.random(1000)
    ups = np.concatenate([[0], (drawn < better).cumsum()])
    downs = np.concatenate([[0], ((drawn >= better) & (drawn < better + worse)).cumsum()])
    for now in range(JUDGE_EVERY, 1001, JUDGE_EVERY):
        begun = max(now - JUDGE_NEWEST, 0)
        if is_worse(int(ups[now] - ups[begun]), int(downs[now] - downs[begun])):
            return now
    return 0


def fitting(bench: Bench, plan: DevicePlan) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FIT], input=plan.to_bytes(), capture_output=True, check=True
    )
    seconds, megabytes = map(float, done.stdout.split())
    what = f"fit, 1,000 examples of {plan.features}"
    bench.figure(f"{what}: CPU s", seconds, f"<= {FIT_S:g}", seconds <= FIT_S)
    bench.figure(f"{what}: MB", megabytes, f"<= {FIT_MB:g}", megabytes <= FIT_MB)


def calling(bench: Bench, plan: DevicePlan, folder: Path, *, calls: int) -> None:
    models = [served(plan, folder / name, with_overlay=name == "with") for name in ("with", "out")]
    x = {"x": np.ones((1, INPUTS), np.float32)}
    assert [bool(model.run(x).overlay) for model in models] == [True, False]
    times: list[list[float]] = [[], []]
    for _ in range(calls):
        for model, taken in zip(models, times, strict=True):
            begun = time.perf_counter()
            model.run(x)
            taken.append(time.perf_counter() - begun)
    for model in models:
        model.close()
    for which in (5, 50):
        both = [float(np.percentile(taken, which)) * 1e6 for taken in times]
        what = f"call, {plan.features} features, p{which}"
        bench.figure(f"{what}: us without", both[1])
        more = both[0] - both[1]
        goal = (f"<= {CALL_US:g}", more <= CALL_US) if which == 50 else ()
        bench.figure(f"{what}: us more with it", more, *goal)


def served(plan: DevicePlan, folder: Path, *, with_overlay: bool) -> LiveModel:
    (folder / "live").mkdir(parents=True)
    shelf = Shelf(folder)
    file = any_classifier(INPUTS, plan.features, plan.classes)
    version = shelf.add_files(1, {"model.onnx": file})
    shelf.switch(version)
    if with_overlay:
        head = np.random.default_rng(1).normal(size=(plan.features + 1, plan.classes)) / 10
        raw = Overlay(
            model="detector",
            version=version.version,
            sha256=version.sha256,
            variant=version.variant,
            plan="b" * 64,
            embedding=plan.embedding,
            scores=plan.scores,
            features=plan.features,
            classes=plan.classes,
            clip=plan.clip,
            distance="1",
            since=plan.deadline,
            examples=667,
            held_out=333,
            better=30,
            worse=0,
            gain="0.05",
            numbers="",
        ).to_file(write_numbers(head))
        digest = sha256_hex(raw)
        state = Adapting("b" * 64, version.sha256, version.variant, overlay=digest)
        overlays.install(shelf.disk, shelf.layout, "detector", raw, state)
    return LiveModel("detector", data=folder, app="bench", wait_s=30)


if __name__ == "__main__":
    main("overlay", measure)
