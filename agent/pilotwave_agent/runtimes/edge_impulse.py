"""Edge Impulse: `.eim` programs, over their socket protocol (hello, classify; JSON and a NUL).

The protocol is that of `source/eim.cpp` in edgeimpulse/example-standalone-inferencing-linux. It has
no answer to bytes that do not balance, so every wait here has an end.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pilotwave_agent.runtimes import programs
from pilotwave_agent.runtimes.base import Array, CannotLoad, Info, Options, Tensor
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.states import Reason

PROTOCOL = "1"
_MAX_ANSWER = 64 << 20
_BUILDS_FIRST = 6  # TensorRT: the first inference compiles, which takes minutes
_WARM_UP_S = 600.0


class Impulse:
    """A running `.eim`: one connection, one request at a time."""

    def __init__(self, file: Path, options: Options) -> None:
        """Start it and say hello. Raises `CannotLoad`, `OSError`, `TimeoutError`, `RefusedError`"""
        self._timeout_s = options.timeout_s
        self._folder = Path(tempfile.mkdtemp(prefix="eim-"))
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._pending = b""
        self._number = 0
        self.shared: tuple[str, ...] = ()
        self._noise = (self._folder / "said").open("w+b")
        try:
            path = self._folder / "s"  # the program copies it into 108 bytes without counting
            program = programs.runnable(file, self._folder)
            self.process = programs.start([program, path], cwd=self._folder, out=self._noise)
        except BaseException:
            self._discard()
            raise
        try:
            self._connect(path)
            self._hello = self.ask({"hello": 1}, self._timeout_s)
            self._describe(file)
        except BaseException:
            self.close()
            raise

    def _connect(self, path: Path) -> None:
        until = time.monotonic() + self._timeout_s
        while True:
            try:
                self._socket.connect(str(path))
                return
            except OSError:
                if self.process.poll() is not None:
                    raise self._gone() from None
            if time.monotonic() > until:
                raise TimeoutError(f"it opened no socket within {self._timeout_s:.0f} s")
            time.sleep(0.01)

    def _describe(self, file: Path) -> None:
        about = self._hello.get("model_parameters")
        project = self._hello.get("project")
        if not isinstance(about, dict) or not isinstance(about.get("input_features_count"), int):
            raise CannotLoad("its hello has no model_parameters with input_features_count")
        self.kind = str(about.get("model_type", "classification"))
        self.labels = [str(label) for label in about.get("labels", [])]
        self.features: int = about["input_features_count"]
        self._has_anomaly = bool(about.get("has_anomaly"))
        memory = self._hello.get("features_shm")
        self._memory = _shared(memory) if isinstance(memory, dict) else None
        others = self._hello.get("freeform_output_shm") or []
        named = [_shared(m) for m in [memory, *others] if isinstance(m, dict)]
        self.shared = tuple(name for name in named if name)
        engine = self._hello.get("inferencing_engine") or {}
        slow = engine.get("engine_type") == _BUILDS_FIRST
        slow = slow or "gpu_delegates" in (engine.get("properties") or [])
        self._first_s = max(self._timeout_s, _WARM_UP_S) if slow else self._timeout_s
        name = (project or {}).get("name", file.name) if isinstance(project, dict) else file.name
        version = str((project or {}).get("deploy_version", "")) if project else ""
        self.info = Info("edge-impulse", PROTOCOL, "cpu", {"project": name, "deploy": version})
        self.inputs = (Tensor("features", "float32", (self.features,)),)
        self.outputs = tuple(self._outputs())

    def _outputs(self) -> list[Tensor]:
        if self.kind == "classification":
            found = [Tensor("classification", "float32", (len(self.labels),))]
        elif self.kind == "freeform":
            found = []  # as many as the answer holds
        else:
            found = [Tensor("boxes", "float32", (-1, 6))]
        return [*found, Tensor("anomaly", "float32", (1,))] if self._has_anomaly else found

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes whose memory is this model's."""
        return (self.process.pid,)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        given = np.ascontiguousarray(feeds["features"], np.float32).ravel()
        words: dict[str, Any]
        if self._memory and given.size == self.features:
            with (programs.SHARED_MEMORY / self._memory).open("r+b") as memory:
                memory.write(given.tobytes())
            words = {"classify_shm": {"elements": int(given.size)}}
        else:
            words = {"classify": [float(v) for v in given]}
        timeout_s, self._first_s = self._first_s, self._timeout_s
        result = self.ask(words, timeout_s).get("result")
        if not isinstance(result, dict):
            raise CannotLoad("its answer to classify has no result")
        return self._named(result)

    def _named(self, result: dict[str, Any]) -> dict[str, Array]:
        found: dict[str, Array] = {}
        if isinstance(chances := result.get("classification"), dict):
            row = [float(chances[label]) for label in self.labels]
            found["classification"] = np.array(row, np.float32)
        if isinstance(boxes := result.get("bounding_boxes"), list):
            rows = [self._box(box) for box in boxes]
            found["boxes"] = np.array(rows, np.float32).reshape(-1, 6)
        if isinstance(free := result.get("freeform"), list):
            found |= {f"freeform{i}": np.array(row, np.float32) for i, row in enumerate(free)}
        if "anomaly" in result:
            found["anomaly"] = np.array([result["anomaly"]], np.float32)
        return found

    def _box(self, box: dict[str, Any]) -> list[float]:
        """x, y, width, height, confidence and the label's number (-1: not among the labels)."""
        label = str(box.get("label"))
        number = self.labels.index(label) if label in self.labels else -1
        return [*(float(box[k]) for k in ("x", "y", "width", "height", "value")), float(number)]

    def ask(self, words: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Send one request and return its answer. What answers otherwise or not at all raises."""
        self._number += 1
        until = time.monotonic() + timeout_s
        self._socket.settimeout(timeout_s)
        try:
            # all of it: a long request does not fit the socket's buffer at once
            self._socket.sendall(json.dumps({**words, "id": self._number}).encode())
            while True:
                answer = self._answer(until)
                if answer.get("id", self._number) == self._number:
                    break
        except TimeoutError:
            raise TimeoutError(f"no answer within {timeout_s:.0f} s") from None
        except ConnectionError:
            raise self._gone() from None
        if not answer.get("success"):
            sentence = f"it answered: {answer.get('error', 'no success')}"
            raise RefusedError(Reason.SELFTEST_ERROR, sentence)
        return answer

    def _answer(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._pending:
            self._socket.settimeout(max(until - time.monotonic(), 0.001))
            chunk = self._socket.recv(1 << 16)
            if not chunk:
                raise self._gone()
            self._pending += chunk
            if len(self._pending) > _MAX_ANSWER:
                raise CannotLoad(f"an answer of more than {_MAX_ANSWER >> 20} MB")
        raw, _, self._pending = self._pending.partition(b"\0")
        try:
            found = json.loads(raw)
        except (ValueError, RecursionError) as e:
            raise CannotLoad("an answer is no JSON") from e
        if not isinstance(found, dict):
            raise CannotLoad("an answer is no JSON object")
        return found

    def _gone(self) -> Exception:
        with contextlib.suppress(Exception):
            self.process.wait(1)
        self._noise.seek(0)
        said = " ".join(self._noise.read(4096).decode(errors="replace").split())[-200:]
        sentence = f"the program {programs.ended(self.process)}: {said}"
        if (self.process.returncode or 0) < 0:
            return RefusedError(Reason.SELFTEST_CRASH, sentence)
        return CannotLoad(sentence)

    def cancel(self) -> None:
        """Break off a call that waits for an answer; may come from another thread."""
        self.process.kill()

    def close(self) -> None:
        """End the program and remove what it may have left: its shared memory, its socket."""
        self._socket.close()
        programs.end(self.process)
        for name in self.shared:
            with contextlib.suppress(OSError):
                (programs.SHARED_MEMORY / name).unlink()
        self._discard()

    def _discard(self) -> None:
        self._socket.close()
        self._noise.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _shared(memory: Mapping[str, Any]) -> str | None:
    """Return the name of a shared memory as it lies in /dev/shm; None for one that lies elsewhere.

    Names look like `/shm-4f2a…`; what could be a path to something else is not touched.
    """
    name = str(memory.get("name", "")).removeprefix("/")
    harmless = name.startswith("shm-") and "/" not in name and len(name) < 200
    return name if harmless else None


def load(file: Path, options: Options) -> Impulse:
    """Start a program."""
    return Impulse(file, options)
