"""Simulated model servers: they speak the protocols of Triton (as its real 2.51 did when it was
asked), of OpenVINO Model Server and TensorFlow Serving (as their documentation has it), over real
HTTP and real folders. They load nothing: a version whose file holds b"unloadable" fails.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Peer:
    """A server on a free port; a subclass gives the answers."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, Any]] = []
        peer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *words: object) -> None:
                return

            def do_GET(self) -> None:
                self._answer(None)

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self._answer(json.loads(raw) if raw else None)

            def _answer(self, body: Any) -> None:
                peer.requests.append((self.command, self.path, body))
                status, found = peer.answer(self.command, self.path, body)
                raw = b"" if found is None else json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        raise NotImplementedError

    @contextmanager
    def running(self) -> Iterator[Peer]:
        self._thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()


def numbers(folder: Path) -> list[int]:
    """Return the version folders of a model, as servers see them."""
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def loadable(folder: Path) -> bool:
    """Say whether a version can be loaded."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    return bool(files) and not any(b"unloadable" in p.read_bytes() for p in files)


class Triton(Peer):
    """Triton in EXPLICIT mode with its default version policy: the highest number."""

    def __init__(self, repository: Path) -> None:
        super().__init__()
        self.repository = repository
        self.serving: dict[str, int] = {}
        self.failed: dict[tuple[str, int], str] = {}
        self.gives_up = False  # the next load is answered 200 and the version falls over afterwards

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        parts = path.strip("/").split("/")
        match parts:
            case ["v2", "repository", "models", model, "load"] if method == "POST":
                return self._load(model)
            case ["v2", "repository", "index"] if method == "POST":
                return 200, self._index()
            case ["v2", "models", model, "versions", number, "ready"]:
                return (200 if self.serving.get(model) == int(number) else 400), None
            case ["v2", "models", model, "ready"]:
                return (200 if model in self.serving else 400), None
            case ["v2", "health", "live"]:
                return 200, None
        return 404, {"error": "no such endpoint"}

    def _load(self, model: str) -> tuple[int, Any]:
        folder = self.repository / model
        found = numbers(folder) if folder.is_dir() else []
        if not found:
            return 400, {"error": f"failed to poll from model repository: {model}"}
        number = found[-1]
        if not (folder / str(number) / "model.onnx").is_file() or not loadable(
            folder / str(number)
        ):
            self.failed[model, number] = "Internal: cannot parse the model"
            return 400, {"error": f"failed to load '{model}', version {number}: cannot parse it"}
        if self.gives_up:
            self.gives_up = False
            self.failed[model, number] = "it fell over"
            return 200, None
        self.serving[model] = number
        return 200, None

    def _index(self) -> list[dict[str, str]]:
        ready = [{"name": m, "version": str(n), "state": "READY"} for m, n in self.serving.items()]
        bad = [
            {"name": m, "version": str(n), "state": "UNAVAILABLE", "reason": reason}
            for (m, n), reason in self.failed.items()
        ]
        return ready + bad


@dataclass
class _Line:
    number: int
    state: str = "AVAILABLE"
    error: str = ""


@dataclass
class Versions:
    """What a server of numbered folders knows of one model."""

    lines: dict[int, _Line] = field(default_factory=dict)


class ModelServer(Peer):
    """Serves the highest number of `<base>/<model>`. OpenVINO Model Server (`told`) looks when it
    is asked to, TensorFlow Serving looks by itself (here: whenever somebody asks it anything)."""

    def __init__(self, base: Path, *, told: bool) -> None:
        super().__init__()
        self.base, self.told = base, told
        self.models: dict[str, Versions] = {}

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if not self.told:
            self._look()
        match path.strip("/").split("/"):
            case ["v1", "config", "reload"] if method == "POST" and self.told:
                return (201 if self._look() else 200), {}
            case ["v1", "models", model]:
                return self._status(model)
        return 404, {"error": "Malformed request"}

    def serving(self, model: str) -> int | None:
        known = self.models.get(model)
        up = [n for n, line in known.lines.items() if line.state == "AVAILABLE"] if known else []
        return max(up, default=None)

    def _look(self) -> bool:
        changed = False
        for folder in self.base.iterdir():
            known = self.models.setdefault(folder.name, Versions())
            found = numbers(folder)
            top = found[-1:]
            for number in top:
                if number in known.lines and known.lines[number].state != "END":
                    continue
                changed = True
                if loadable(folder / str(number)):
                    known.lines[number] = _Line(number)
                else:
                    known.lines[number] = _Line(number, "END", "cannot read the model")
            well = [n for n in top if known.lines[n].state == "AVAILABLE"]
            for number, line in known.lines.items():
                if well and number not in top and line.state == "AVAILABLE":
                    line.state, changed = "END", True
        return changed

    def _status(self, model: str) -> tuple[int, Any]:
        if model not in self.models:
            return 404, {"error": "Model with requested name is not found"}
        return 200, {
            "model_version_status": [
                {
                    "version": str(line.number),
                    "state": line.state,
                    "status": {
                        "error_code": "UNKNOWN" if line.error else "OK",
                        "error_message": line.error or "OK",
                    },
                }
                for line in self.models[model].lines.values()
            ]
        }


class Hook(Peer):
    """An application's own HTTP endpoint, which says yes or no."""

    def __init__(self) -> None:
        super().__init__()
        self.status = 204

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        return self.status, {"error": "not today"} if self.status >= 400 else None
