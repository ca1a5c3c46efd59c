"""A small, honest registry for the agent's tests: real TUF metadata, director and HTTP.

A test publishes versions, orders sets, and may bend single answers through `bend`. It keeps what
devices told it. It stores nothing and knows one device.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Snapshot, Targets, Timestamp

from pilotwave_protocol import dsse, names, signing, strictjson
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.fields import format_time
from pilotwave_protocol.manifest import (
    FileEntry,
    SelfTest,
    TensorSpec,
    Variant,
    VersionManifest,
)
from pilotwave_protocol.messages.check_in import (
    CHECK_IN_TYPE,
    MAX_CHECK_IN_BYTES,
    CheckIn,
    DeviceEvent,
    parse_check_in,
)
from pilotwave_protocol.messages.check_in_reply import NUMBERING, CheckInReply
from pilotwave_protocol.messages.directive import DIRECTIVE_TYPE, Directive, Entry
from pilotwave_protocol.messages.enrol import (
    ENROL_TYPE,
    MAX_ENROL_BYTES,
    Enrol,
    EnrolReply,
    parse_enrol,
)
from pilotwave_protocol.trust import DirectorKeys, VersionTarget

FLEET = "acme"
VARIANT = "onnx-fp32"


@dataclass
class Reply:
    """One answer of the registry. `cut` breaks the body off after so many bytes, `stall` waits
    before each piece of `piece` bytes, `declared` is another length than the body's (-1: none)."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    stall: float = 0.0
    piece: int = 1 << 16
    declared: int | None = None


Bend = Callable[[str, Reply], Reply]


def honest(path: str, reply: Reply) -> Reply:
    """Change nothing."""
    return reply


class Registry:
    """A fleet's registry on a free port."""

    def __init__(self, *, poll_s: int = 1, check_in_s: int = 5) -> None:
        self.poll_s, self.check_in_s = poll_s, check_in_s
        self.now = datetime.now(timezone.utc).replace(microsecond=0)
        self.bend: Bend = honest
        self.requests: list[str] = []
        self.check_ins: list[CheckIn] = []
        self.events: dict[int, DeviceEvent] = {}
        self.last_seq = 0
        self.pending = False
        self.acked_metric = 0
        self.accepts: tuple[str, ...] = (NUMBERING,)  # empty: as registries of 0.1.0 were
        self.link_s = 300
        self.direct_url: object = None  # where an object store has the file, as links say
        self.etag = 0
        self.seq = 0
        self.device = ""
        self.device_key: Ed25519PublicKey | None = None
        self.files: dict[str, bytes] = {}  # what /tuf and /blobs serve, by path
        self.entries: dict[str, Entry] = {}
        self.versions: dict[tuple[str, str], Entry] = {}
        self.directive = b""
        self.lock = threading.Lock()
        self._make_trust()
        self._serve()

    # --- trust

    def _make_trust(self) -> None:
        self.director = Ed25519PrivateKey.generate()
        make = CryptoSigner.generate_ed25519
        self.signers = {"root": [make() for _ in range(3)], "targets": [make() for _ in range(3)]}
        self.signers["online"] = [make()]
        public = self.director.public_key()
        director = DirectorKeys(FLEET, {dsse.keyid(public): public}, 1)
        root = signing.make_root(self.holders(), now=self.now)
        signing.sign(root, self.signers["root"][:2])
        self.root = signing.to_bytes(root)
        self.files["/tuf/metadata/1.root.json"] = self.root
        self.targets = signing.make_targets(director, now=self.now)
        self.roles: dict[str, Metadata[Targets]] = {}
        self.publishers: dict[str, CryptoSigner] = {}
        self.snapshot_version = 0
        self._keep_targets()
        self.seal()

    def holders(self) -> dict[str, signing.RoleKeys]:
        """Return who holds each role: two of three keys for root and targets, one online key."""
        held = {
            role: signing.RoleKeys(tuple(s.public_key for s in signers), min(2, len(signers)))
            for role, signers in self.signers.items()
        }
        online = held.pop("online")
        return {**held, "snapshot": online, "timestamp": online}

    def _keep_targets(self) -> None:
        signing.sign(self.targets, self.signers["targets"][:2])
        version = self.targets.signed.version
        raw = signing.to_bytes(self.targets)
        self.files[f"/tuf/metadata/{version}.targets.json"] = raw

    def seal(self) -> None:
        """Make the next snapshot and timestamp."""
        self.snapshot_version += 1
        version, ends = self.snapshot_version, self.now + timedelta(days=3)
        meta = {"targets.json": MetaFile(self.targets.signed.version)}
        meta |= {f"{name}.json": MetaFile(md.signed.version) for name, md in self.roles.items()}
        snapshot = Metadata(Snapshot(version=version, expires=ends, meta=meta))
        signed_at = {"signed_at": format_time(self.now)}
        timestamp = Metadata(
            Timestamp(
                version=version,
                expires=ends,
                snapshot_meta=MetaFile(version),
                unrecognized_fields=signed_at,
            )
        )
        for md in (snapshot, timestamp):
            md.sign(self.signers["online"][0])
        self.files[f"/tuf/metadata/{version}.snapshot.json"] = signing.to_bytes(snapshot)
        self.files["/tuf/metadata/timestamp.json"] = signing.to_bytes(timestamp)

    def _role(self, model: str) -> Metadata[Targets]:
        name = names.role_for_model(model)
        if name not in self.roles:
            self.publishers[name] = CryptoSigner.generate_ed25519()
            self.roles[name] = signing.make_role(model, now=self.now)
            life = timedelta(days=365)
            self.targets = signing.next_version_of(self.targets, now=self.now, lifetime=life)
            key = self.publishers[name].public_key
            signing.delegate(self.targets.signed, model, signing.RoleKeys((key,), 1))
            self._keep_targets()
        else:
            life = timedelta(days=180)
            self.roles[name] = signing.next_version_of(
                self.roles[name], now=self.now, lifetime=life
            )
        return self.roles[name]

    def _keep_role(self, model: str) -> None:
        name = names.role_for_model(model)
        signing.sign(self.roles[name], [self.publishers[name]])
        version = self.roles[name].signed.version
        self.files[f"/tuf/metadata/{version}.{name}.json"] = signing.to_bytes(self.roles[name])
        self.seal()

    # --- publishing and ordering

    def publish(
        self,
        model: str,
        version: str,
        files: dict[str, bytes],
        *,
        entrypoint: str = "model.onnx",
        cases: str | None = "selftest.safetensors",
        max_latency_ms: int | None = None,
        runtime: str = "onnxruntime",
        inputs: tuple[TensorSpec, ...] = (),
        unsafe_format: bool = False,
        written: Callable[[bytes], bytes] = lambda manifest: manifest,
    ) -> Entry:
        """Publish one version with one variant and return its directive entry.

        `written` may change the manifest's bytes before they are signed.
        """
        role = self._role(model)
        counter = signing.next_counter(role.signed)
        listed = tuple(FileEntry(p, len(b), sha256_hex(b)) for p, b in files.items())
        test = SelfTest(cases, max_latency_ms=max_latency_ms) if cases in files else None
        variant = Variant(
            VARIANT,
            runtime,
            entrypoint,
            listed,
            inputs=inputs,
            selftest=test,
            unsafe_format=unsafe_format,
        )
        manifest = VersionManifest(model, version, counter, (variant,))
        raw = written(manifest.to_bytes())
        digest = sha256_hex(raw)
        target = VersionTarget(model, version, digest, len(raw), counter)
        signing.add_version(role.signed, target)
        self._keep_role(model)
        path = names.target_path(model, version)
        folder, _, name = path.rpartition("/")
        self.files[f"/tuf/targets/{folder}/{digest}.{name}"] = raw
        for data in files.values():
            self.files[f"/blobs/{sha256_hex(data)}"] = data
        entry = Entry(model, version, path, digest, len(raw), counter, VARIANT)
        self.versions[model, version] = entry
        return entry

    def amend(self, model: str, change: Callable[[Targets], None] = lambda role: None) -> None:
        """Publish the next document of a model's role, changed."""
        change(self._role(model).signed)
        self._keep_role(model)

    def yank(self, model: str, version: str) -> None:
        """Take a version back for ever."""
        words = {"reason": "it was bad", "now": self.now}
        self.amend(model, lambda role: signing.yank(role, model, version, **words))

    def order(self, *entries: Entry, attempt: int = 0) -> None:
        """Sign a directive that orders exactly these."""
        self.seq += 1
        self.etag += 1
        self.directive = self.sign_directive(tuple(replace(e, attempt=attempt) for e in entries))

    def sign_directive(self, entries: tuple[Entry, ...], **changes: Any) -> bytes:
        """Return a directive as the director would sign it."""
        directive = Directive(
            fleet=FLEET,
            device=self.device or "cam-1",
            seq=self.seq,
            issued=self.now,
            expires=self.now + timedelta(days=7),
            min_snapshot=1,
            entries=entries,
        )
        payload = replace(directive, **changes).to_bytes()
        return dsse.sign(DIRECTIVE_TYPE, payload, self.director)

    # --- serving

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.http.server_port}"

    def _serve(self, port: int = 0) -> None:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            server_version, sys_version = "R", ""

            def log_message(self, *words: object) -> None:
                return

            def do_GET(self) -> None:
                self._answer(b"")

            def do_POST(self) -> None:
                self._answer(self.rfile.read(int(self.headers["Content-Length"])))

            def _answer(self, body: bytes) -> None:
                with registry.lock:
                    registry.requests.append(f"{self.command} {self.path}")
                    reply = registry.answer(self.command, self.path, dict(self.headers), body)
                    reply = registry.bend(self.path, reply)
                self._send(reply)

            def _send(self, reply: Reply) -> None:
                self.send_response_only(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                size = len(reply.body) if reply.declared is None else reply.declared
                if reply.status != 304 and size >= 0:
                    self.send_header("Content-Length", str(size))
                self.end_headers()
                sent = reply.body[: reply.cut] if reply.cut is not None else reply.body
                try:
                    for start in range(0, len(sent), reply.piece):
                        if reply.stall:
                            time.sleep(reply.stall)
                        self.wfile.write(sent[start : start + reply.piece])
                        self.wfile.flush()
                except OSError:
                    self.close_connection = True
                if reply.cut is not None:
                    self.close_connection = True

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                return  # killed agents break connections off

        self.http = Server(("127.0.0.1", port), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Be gone."""
        self.http.shutdown()
        self.http.server_close()

    def come_back(self) -> None:
        """Serve again on the same port."""
        self._serve(self.http.server_port)

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Reply:
        """Return the honest answer to a request."""
        if path == "/device/v1/enrol":
            return self._enrol(body)
        if path == "/device/v1/check-in":
            return self._check_in(body)
        if path == "/device/v1/directive":
            return self._poll(headers)
        if path.startswith("/device/v1/links/"):
            return self._link(path.removeprefix("/device/v1/links"), headers)
        guarded = path.startswith(("/blobs/", "/deltas/"))
        if guarded and headers.get("Authorization") != "Bearer token":
            return problem(401, "bad_token")
        if path not in self.files:
            return problem(404, "not_found")
        if guarded:
            return self._blob(path, headers)
        return Reply(200, self.files[path])

    def _enrol(self, body: bytes) -> Reply:
        claimed = dsse.peek_unverified(body, payload_type=ENROL_TYPE, max_bytes=MAX_ENROL_BYTES)
        wish: Enrol = parse_enrol(claimed.payload)
        if self.device_key and dsse.raw_public(self.device_key).hex() != wish.public_key:
            return problem(409, "name_taken")
        if wish.code is not None and wish.code != "good":
            return problem(403, "bad_code")
        self.device = wish.name
        self.device_key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(wish.public_key))
        self.pending = wish.code is None and self.pending
        state = "pending" if self.pending else "enrolled"
        reply = EnrolReply(wish.name, state, FLEET, self.poll_s, self.check_in_s)
        return Reply(201, reply.to_bytes())

    def _check_in(self, body: bytes) -> Reply:
        if self.device_key is None:
            return problem(401, "unknown_device")
        payload = dsse.open_envelope(
            body,
            payload_type=CHECK_IN_TYPE,
            keys={dsse.keyid(self.device_key): self.device_key},
            max_bytes=MAX_CHECK_IN_BYTES,
        )
        if self.pending:
            return problem(403, "pending")
        report = parse_check_in(payload)
        if report.seq <= self.last_seq:
            return problem(409, "stale_seq", last_seq=self.last_seq)
        self.last_seq = report.seq
        self.check_ins.append(report)
        self.events.update({e.id: e for e in report.events})
        reply = CheckInReply(
            token="token",
            token_expires_in_s=900,
            poll_interval_s=self.poll_s,
            check_in_interval_s=self.check_in_s,
            acked_event=max(self.events, default=0),
            acked_metric=self.acked_metric,
            accepts=self.accepts,
            tuf={"root": 1, "timestamp": self.snapshot_version, "snapshot": self.snapshot_version},
            now=self.now,
        )
        return Reply(200, reply.to_bytes())

    def _poll(self, headers: dict[str, str]) -> Reply:
        etag = f'"{self.etag:016x}"'
        told = {"ETag": etag, "pilotwave-tuf": f"1.{self.snapshot_version}"}
        if headers.get("Authorization") != "Bearer token":
            return problem(401, "bad_token")
        if headers.get("If-None-Match") == etag or not self.directive:
            return Reply(304, headers=told)
        return Reply(200, self.directive, told)

    def _link(self, path: str, headers: dict[str, str]) -> Reply:
        if headers.get("Authorization") != "Bearer token":
            return problem(401, "bad_token")
        if path not in self.files:
            return problem(404, "delta_missing")
        answer = {"path": f"{path}?link=good", "expires_in_s": self.link_s}
        if self.direct_url is not None:
            answer["url"] = self.direct_url
        return Reply(200, strictjson.dumps(answer), {"Content-Type": "application/json"})

    def _blob(self, path: str, headers: dict[str, str]) -> Reply:
        data = self.files[path]
        etag = f'"{sha256_hex(data)}"'
        told = {"ETag": etag, "Accept-Ranges": "bytes"}
        asked = headers.get("Range", "")
        if not asked or headers.get("If-Range", etag) != etag:
            return Reply(200, data, told)
        start = int(asked.removeprefix("bytes=").partition("-")[0])
        if start >= len(data):
            return Reply(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        told["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return Reply(206, data[start:], told)


def problem(status: int, code: str, **more: Any) -> Reply:
    """Return a problem document."""
    body = {"type": "about:blank", "title": code, "status": status, "code": code, **more}
    return Reply(status, strictjson.dumps(body), {"Content-Type": "application/problem+json"})


def example(version: str) -> dict[str, bytes]:
    """Return the files of one of the example detector's versions."""
    folder = Path(__file__).resolve().parents[2] / "examples" / "digits" / version
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}
