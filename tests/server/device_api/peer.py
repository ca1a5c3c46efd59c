"""A device on the other end of the wire: its key, its counters, and no code of the agent's."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilotwave_protocol import dsse
from pilotwave_protocol.fields import Scalar
from pilotwave_protocol.messages.check_in import (
    CHECK_IN_TYPE,
    CheckIn,
    DeviceEvent,
    Installed,
    MetricReport,
    ModelReport,
)
from pilotwave_protocol.messages.directive import (
    DIRECTIVE_TYPE,
    MAX_DIRECTIVE_BYTES,
    Directive,
    parse_directive,
)
from pilotwave_protocol.messages.enrol import ENROL_TYPE, Enrol
from pilotwave_protocol.states import ModelState

FLEET = "test-fleet"
ONNX: dict[str, Scalar] = {
    "arch": "aarch64",
    "memory_mb": 2048,
    "runtime.onnxruntime": "1.23.2",
    "hw": "orin",
}


def installed(version: str, counter: int = 1) -> Installed:
    return Installed(version, "ab" * 32, "onnx-fp32", counter)


def report(
    version: str, state: ModelState = ModelState.HEALTHY, *, model: str = "detector", **given: Any
) -> ModelReport:
    return ModelReport(model, state, current=installed(version), **given)


@dataclass
class SimulatedDevice:
    """Speaks the protocol as docs/protocol.md has it. `token` and `etag` are its last ones."""

    name: str
    http: httpx.Client
    facts: dict[str, Scalar] = field(default_factory=lambda: dict(ONNX))
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    seq: int = 0
    token: str = ""
    etag: str = ""

    @property
    def public_key(self) -> str:
        return dsse.raw_public(self.key.public_key()).hex()

    def enrol(self, code: str | None = None, **changes: Any) -> httpx.Response:
        wish = Enrol(self.name, self.public_key, code, self.facts)
        payload = {**json.loads(wish.to_bytes()), **changes}
        raw = dsse.sign(ENROL_TYPE, json.dumps(payload).encode(), self.key)
        return self.post("/device/v1/enrol", raw)

    def check_in_envelope(
        self,
        *models: ModelReport,
        events: tuple[DeviceEvent, ...] = (),
        facts: dict[str, Scalar] | None = None,
        metrics: tuple[MetricReport, ...] = (),
        **changes: Any,
    ) -> bytes:
        """The next check-in, signed. `changes` overwrite fields of the payload as they are."""
        self.seq += 1
        check_in = CheckIn(
            fleet=FLEET,
            device=self.name,
            seq=self.seq,
            agent="0.1.0",
            directive_seq=0,
            tuf={"root": 1, "timestamp": 1, "snapshot": 1},
            models=models,
            events=events,
            facts=facts,
            metrics=metrics,
        )
        payload = {**json.loads(check_in.to_bytes()), **changes}
        return dsse.sign(CHECK_IN_TYPE, json.dumps(payload).encode(), self.key)

    def check_in(self, *models: ModelReport, **given: Any) -> httpx.Response:
        answer = self.post("/device/v1/check-in", self.check_in_envelope(*models, **given))
        if answer.status_code == 200:
            self.token = answer.json()["token"]
        return answer

    def poll(self, **headers: str) -> httpx.Response:
        given = {"Authorization": f"Bearer {self.token}", "If-None-Match": self.etag, **headers}
        answer = self.http.get("/device/v1/directive", headers=given)
        self.etag = answer.headers.get("etag", self.etag)
        return answer

    def directive(self) -> Directive:
        """Its directive as it is now, unconditionally."""
        self.etag = ""
        answer = self.poll()
        assert answer.status_code == 200, answer.text
        return read_directive(answer)

    def runs(self) -> dict[str, str]:
        """By model, the version that it is told to run."""
        return {entry.model: entry.version for entry in self.directive().entries}

    def post(self, path: str, raw: bytes) -> httpx.Response:
        return self.http.post(path, content=raw, headers={"Content-Type": "application/json"})


def read_directive(answer: httpx.Response) -> Directive:
    """The directive in the answer to a poll; its signature is not looked at."""
    claimed = dsse.peek_unverified(
        answer.content, payload_type=DIRECTIVE_TYPE, max_bytes=MAX_DIRECTIVE_BYTES
    )
    return parse_directive(claimed.payload)


def code_of(answer: httpx.Response) -> tuple[int, str]:
    """Status and machine-readable code of a refusal."""
    return answer.status_code, answer.json()["code"]
