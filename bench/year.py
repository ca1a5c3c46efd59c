"""A year of weekly versions: what a server and a device keep on their disks; a year's absence.

The programs run as they are, on a wall clock that moves a day at a time (`_clock.c`, loaded before
them). Each week every model gets a version, a group is told to run it, one device takes it by
`pilotwave-agent once`, deltas are made, and `pilotwave-server gc` runs; each day it is signed anew
what the server's rounds would sign. In week 40 the director key is rotated, which renews targets.
A second device takes the first versions, is off for the rest, and comes back at the end.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file
from sqlalchemy import func, select
from tuf.api.metadata import Targets

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench._bench import Bench, enrol, main, median
from pilotwave_server.db import Database
from pilotwave_server.deltas.tables import DeltaRow
from pilotwave_server.deltas.worker import LOOK_S, PAYS
from pilotwave_server.registry.documents import MAX_DOCUMENT_BYTES
from pilotwave_server.registry.resealer import keep_fresh
from pilotwave_server.registry.trust import TrustStore
from tests.e2e.stage import ForkedStage
from tests.peers.counting import CountingProxy

SOURCE = Path(__file__).with_name("_clock.c")
DAY_S = 86_400
ROTATED_IN = 40
WIDTH, HIDDEN = 64, 1024
SETTLE_S = 60.0
Weights = tuple[NDArray[np.float32], NDArray[np.float32]]


class Clock:
    """The wall clock of every program started here."""

    def __init__(self, file: Path) -> None:
        self._file, self.days = file, 0

    def advance(self) -> datetime:
        """Move on by a day; returns the time then."""
        self.days += 1
        with self._file.open("r+b") as out:
            out.write(struct.pack("q", self.days * DAY_S))
        return datetime.now(timezone.utc)


def move_clock() -> Clock:
    """Start this program again below the moving clock, once; then return the clock."""
    if "BENCH_CLOCK" not in os.environ:
        folder = Path(tempfile.mkdtemp(prefix="pilotwave-clock-"))
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None or sys.platform != "linux":
            raise SystemExit("this needs Linux and a C compiler for its moving clock: install gcc")
        library, file = folder / "clock.so", folder / "ahead"
        command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
        subprocess.run(command, check=True, timeout=60)
        file.write_bytes(bytes(8))
        moved = {"BENCH_CLOCK": str(file), "LD_PRELOAD": str(library)}
        try:
            words = [sys.executable, *sys.argv]
            raise SystemExit(subprocess.run(words, env={**os.environ, **moved}).returncode)
        finally:
            shutil.rmtree(folder)
    return Clock(Path(os.environ["BENCH_CLOCK"]))


def write_model(folder: Path, weights: Weights) -> None:
    """Write a model of two layers with one golden case."""
    folder.mkdir()
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, WIDTH])  # noqa: E731
    nodes = [
        helper.make_node("MatMul", ["x", "there"], ["h"]),
        helper.make_node("MatMul", ["h", "back"], ["y"]),
    ]
    there, back = weights
    constants = [numpy_helper.from_array(there, "there"), numpy_helper.from_array(back, "back")]
    graph = helper.make_graph(nodes, "g", [value("x")], [value("y")], constants)
    opset = [helper.make_opsetid("", 17)]
    made = helper.make_model(graph, opset_imports=opset, ir_version=8)
    (folder / "model.onnx").write_bytes(made.SerializeToString())
    x = np.ones((1, WIDTH), np.float32)
    save_file(
        {"input.x": x[None], "output.y": (x @ there @ back)[None]}, folder / "selftest.safetensors"
    )


def size(*folders: Path) -> int:
    """The bytes of all files below some folders, as they are now."""
    found: dict[int, int] = {}  # by inode: a file with two names takes its place once
    for path in (path for folder in folders for path in folder.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            of = path.lstat()
            if stat.S_ISREG(of.st_mode):
                found[of.st_ino] = of.st_size
    return sum(found.values())


class Year:
    """The server, its models and two devices."""

    def __init__(self, stage: ForkedStage, clock: Clock, models: int) -> None:
        self.stage, self.clock = stage, clock
        self.data, self.tuf = stage.root / "data", stage.root / "data" / "tuf" / "metadata"
        chance = self.chance = np.random.default_rng(7)
        shapes = (WIDTH, HIDDEN), (HIDDEN, WIDTH)
        self.weights: dict[str, Weights] = {
            f"model-{n}": tuple(chance.normal(0, 0.05, s).astype(np.float32) for s in shapes)  # type: ignore[misc]
            for n in range(models)
        }
        self.db = Database(f"sqlite:///{self.data.absolute() / 'pilotwave.db'}")
        self.trust = TrustStore(self.db, self.data)
        self.gc_s: list[float] = []
        self.removed = 0

    def begin(self) -> None:
        """Make keys, models, a group and the device that follows."""
        run = self.stage.pilotwave
        run("keys", "init", "--dir", "keys", "--plain")
        for model in self.weights:
            run("models", "create", model, "--publisher", "keys/publisher.pem")
        run("groups", "create", "all", "--selector", "site=bench")
        self.trust.start()
        self.join("follower")

    def join(self, device: str, *, through: str | None = None) -> None:
        """Enrol a device that does without probation."""
        enrol(self.stage, device, server_url=through, extra="probation_s = 0\nkeep_free_mb = 0")

    def days(self, count: int) -> None:
        """Let days pass, and sign what is due on each."""
        for _ in range(count):
            keep_fresh(self.db, self.trust, now=self.clock.advance())

    def week(self, number: int) -> None:
        """Publish every model's next version, have it run, and remove what nobody needs."""
        self.days(7)
        if number == ROTATED_IN:
            self.stage.pilotwave("keys", "rotate", "director", "--dir", "keys", "--yes")
        for model in self.weights:
            self.publish(model, f"1.{number}.0")
        self.visit("follower", f"1.{number}.0")
        began = time.monotonic()
        said = self.stage.run("pilotwave-server", "gc", "--data", "data")
        self.gc_s.append(time.monotonic() - began)
        self.removed += said.count("removed model-")

    def publish(self, model: str, version: str) -> None:
        folder = self.stage.root / "build"
        step = self.chance.normal(0, 0.0005, (WIDTH, HIDDEN)).astype(np.float32)
        there, back = self.weights[model]
        self.weights[model] = there + step, back + step.T
        write_model(folder, self.weights[model])
        words = ("--variant", f"onnx-fp32={folder}", "--key", "keys/publisher.pem")
        self.stage.pilotwave("publish", model, version, *words, "--no-try", "--yes")
        shutil.rmtree(folder)
        self.stage.pilotwave("assign", "--yes", model, version, "--group", "all")

    def visit(self, device: str, version: str) -> float:
        """Let a device do all that it has to do; returns the seconds it took."""
        began = time.monotonic()
        self.stage.run("pilotwave-agent", "once", "--data", device)
        took = time.monotonic() - began
        for model in self.weights:
            runs = (self.stage.root / device / "models" / model / "current").readlink().name
            if not runs.startswith(f"{version}-"):
                raise SystemExit(f"{device} runs {model} {runs} and not {version}")
        return took

    def waiting(self) -> int:
        """How many deltas the server has still to make."""
        query = select(func.count()).where(DeltaRow.state == "waiting")
        with self.db.read() as session:
            return session.scalar(query) or 0

    def kept(self) -> dict[str, int]:
        """Bytes and counts on the disks now."""
        roles = [path.stat().st_size for path in self.tuf.glob("*.models-*.json")]
        return {
            "blobs_bytes": size(self.data / "blobs"),
            "database_bytes": (self.data / "pilotwave.db").stat().st_size,
            "tuf_metadata_files": sum(1 for _ in self.tuf.glob("*.json")),
            "tuf_metadata_bytes": size(self.tuf),
            "tuf_manifests_bytes": size(self.data / "tuf" / "targets"),
            "largest_role_bytes": max(roles),
            "device_bytes": size(self.stage.root / "follower"),
            "device_tuf_bytes": size(self.stage.root / "follower" / "tuf"),
        }


def settle(year: Year, seconds: float) -> None:
    """Let the server make and clear deltas, until none is waiting and no file changes any more."""
    ends, since, before = time.monotonic() + seconds, 0.0, -1
    while time.monotonic() < ends:
        now = size(year.data / "blobs")
        if now != before or year.waiting():
            since, before = time.monotonic(), now
        elif time.monotonic() >= since + LOOK_S + 1:
            return
        time.sleep(0.2)


def measure(bench: Bench) -> None:
    clock = move_clock()
    weeks, models, keep = (8, 1, 4) if bench.quick else (52, 3, 10)
    settings = {"PILOTWAVE_KEEP_VERSIONS": str(keep), "PILOTWAVE_LOG_LEVEL": "warning"}
    with tempfile.TemporaryDirectory(prefix="pilotwave-bench-") as folder:
        stage = ForkedStage(Path(folder), settings=settings)
        try:
            init = ("--data", "data", "--fleet", "bench", "--token-file", "admin.token")
            stage.run("pilotwave-server", "init", *init)
            stage.start_server()
            year = Year(stage, clock, models)
            try:
                simulate(bench, year, weeks, keep)
            finally:
                year.db.close()
        finally:
            stage.close()


def simulate(bench: Bench, year: Year, weeks: int, keep: int) -> None:
    proxy, stage = CountingProxy(year.stage.url), year.stage
    with proxy.running():
        year.begin()
        year.join("away", through=proxy.url)
        year.week(1)
        year.visit("away", "1.1.0")
        half: dict[str, int] = {}
        for number in range(2, weeks + 1):
            year.week(number)
            if number == keep + 2:
                half = year.kept()
        bench.say(
            f"{weeks} weeks, {len(year.weights)} models of {size_of_model()} bytes, {keep} kept"
        )
        settle(year, SETTLE_S)
        for name, value in year.kept().items():
            bench.figure(name, value)
            if name in half:
                bench.figure(f"{name}_in_week_{keep + 2}", half[name])
        bounded(bench, year, keep)
        bench.figure("versions_removed", year.removed)
        bench.figure("gc_s_median", median(year.gc_s))
        bench.figure("gc_s_max", max(year.gc_s))
        proxy.came.clear()
        proxy.asked.clear()
        took = year.visit("away", f"1.{weeks}.0")
        bench.figure("away_back_s", took)
        bench.figure("away_metadata_requests", proxy.asked["tuf"])
        bench.figure("away_metadata_bytes", proxy.came["tuf"])
        bench.figure("away_file_bytes", proxy.came["blobs"] + proxy.came["deltas"])
    say = stage.ask("devices", "show", "away")
    healthy = sum(m["state"] == "healthy" for m in say["models"])
    bench.figure(
        "away_models_healthy", healthy, str(len(year.weights)), healthy == len(year.weights)
    )


def size_of_model() -> int:
    return 2 * WIDTH * HIDDEN * 4


def bounded(bench: Bench, year: Year, keep: int) -> None:
    """Judge what was kept by what has to be kept."""
    kept, models = year.kept(), len(year.weights)
    # what is kept and what the absent device runs; deltas stay for a day after they were needed:
    # to the newest from the one before, from the absent device's and from nothing, and to the one
    # before from the last two
    versions, deltas = keep + 1, 5
    most = models * (versions * (size_of_model() + 20_000) + deltas * PAYS * size_of_model())
    bench.figure(
        "blobs_within", kept["blobs_bytes"], f"<= {most:,.0f}", kept["blobs_bytes"] <= most
    )
    cap = MAX_DOCUMENT_BYTES[Targets]
    largest = kept["largest_role_bytes"]
    bench.figure("largest_role_within", largest, f"<= {cap:,}", largest <= cap)
    device = models * 2.5 * size_of_model()
    found = kept["device_bytes"]
    bench.figure("device_within", found, f"<= {device:,.0f}", found <= device)


if __name__ == "__main__":
    main("year", measure)
