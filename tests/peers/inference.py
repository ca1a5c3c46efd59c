"""A simulated model server: it speaks the Open Inference Protocol over real HTTP as Triton did when
it was asked (tests/agent/test_tiers_real.py asks the real one), and runs a real model. `twist` lets
it lie, `slow_s` and `drip` take its time."""

from __future__ import annotations

import hashlib
import json
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.certificates import self_signed

HEADER = "Inference-Header-Content-Length"
NAMES = {"FP32": np.float32, "UINT8": np.uint8}
Answer = tuple[int, dict[str, str], bytes]


class InferenceServer:
    """Serves one model. `binary`: it knows the binary extension, and says so."""

    def __init__(self, model: Path, name: str, version: str, *, binary: bool = True) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(model), options, providers=["CPUExecutionProvider"]
        )
        self.name, self.version, self.binary = name, version, binary
        self.asked: list[dict[str, Any]] = []
        self.inputs: list[np.ndarray] = []
        self.connections = 0
        self.slow_s = 0.0
        self.drip = False
        self.twist: Callable[[Answer], Answer] = lambda answer: answer
        self.pin = ""
        peer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                peer.connections += 1

            def log_message(self, *words: object) -> None:
                return

            def do_GET(self) -> None:
                peer.metadata(self)

            def do_POST(self) -> None:
                peer.infer(self)

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                return  # who asks may hang up; that is what some tests do

        self._http = Quiet(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        scheme = "https" if self.pin else "http"
        return f"{scheme}://127.0.0.1:{self._http.server_port}"

    @contextmanager
    def running(self, *, tls: bool = False) -> Iterator[InferenceServer]:
        if tls:
            self._show_certificate()
        self._thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()

    def _show_certificate(self) -> None:
        cert, key = self_signed("gateway.local")
        public = x509.load_pem_x509_certificate(cert).public_key()
        der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.pin = f"sha256:{hashlib.sha256(der).hexdigest()}"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as folder:
            pair = Path(folder) / "pair.pem"
            pair.write_bytes(cert + key)
            context.load_cert_chain(pair)
        # a handshake for each connection's own thread
        self._http.socket = context.wrap_socket(
            self._http.socket, server_side=True, do_handshake_on_connect=False
        )

    def metadata(self, http: BaseHTTPRequestHandler) -> None:
        extensions = ["binary_tensor_data"] if self.binary else []
        _send(http, (200, {}, json.dumps({"name": "peer", "extensions": extensions}).encode()))

    def infer(self, http: BaseHTTPRequestHandler) -> None:
        raw = http.rfile.read(int(http.headers["Content-Length"]))
        length = int(http.headers.get(HEADER, len(raw)))
        said = json.loads(raw[:length])
        said["path"], said["bytes"] = http.path, len(raw)
        self.asked.append(said)
        if self.slow_s:
            time.sleep(self.slow_s)
        answer = self.twist(self._answer(said, raw[length:]))
        if self.drip:
            _drip(http, answer)
        else:
            _send(http, answer)

    def _answer(self, said: dict[str, Any], rest: bytes) -> Answer:
        if said["path"] != f"/v2/models/{self.name}/infer":
            return 404, {}, b'{"error": "unknown model"}'
        entry = said["inputs"][0]
        if "data" in entry:
            x = np.array(entry["data"], NAMES[entry["datatype"]])
        elif not self.binary:
            return 400, {}, b'{"error": "expected data"}'
        else:
            x = np.frombuffer(
                rest[: entry["parameters"]["binary_data_size"]], NAMES[entry["datatype"]]
            )
        x = x.reshape(entry["shape"])
        self.inputs.append(x)
        wanted = said["outputs"][0]
        (y,) = self._session.run([wanted["name"]], {entry["name"]: x})
        output = {"name": wanted["name"], "datatype": "FP32", "shape": list(y.shape)}
        tail = b""
        if wanted["parameters"]["binary_data"]:
            tail = y.tobytes()
            output["parameters"] = {"binary_data_size": len(tail)}
        else:
            output["data"] = y.ravel().tolist()
        words = {"model_name": self.name, "model_version": self.version, "outputs": [output]}
        head = json.dumps(words).encode()
        return 200, {HEADER: str(len(head))} if tail else {}, head + tail


def changed(**fields: Any) -> Callable[[Answer], Answer]:
    """A twist that sets fields of the answer's JSON; those of its output by `output_NAME`."""

    def twist(answer: Answer) -> Answer:
        status, headers, raw = answer
        length = int(headers.get(HEADER, len(raw)))
        said = json.loads(raw[:length])
        for name, value in fields.items():
            if name.startswith("output_"):
                said["outputs"][0][name.removeprefix("output_")] = value
            else:
                said[name] = value
        head = json.dumps(said).encode()
        return status, {HEADER: str(len(head))}, head + raw[length:]

    return twist


def _send(http: BaseHTTPRequestHandler, answer: Answer) -> None:
    status, headers, raw = answer
    http.send_response(status)
    for name, value in headers.items():
        http.send_header(name, value)
    http.send_header("Content-Length", str(len(raw)))
    http.end_headers()
    http.wfile.write(raw)


def _drip(http: BaseHTTPRequestHandler, answer: Answer) -> None:
    """Send one byte now and then, so that no single wait is long."""
    http.send_response(200)
    http.send_header("Content-Length", str(len(answer[2])))
    http.end_headers()
    for byte in answer[2]:
        http.wfile.write(bytes([byte]))
        time.sleep(0.02)
