"""A simulated TUF repository over HTTP, whose every document and answer a test may change."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    SuccinctRoles,
    TargetFile,
    Targets,
    Timestamp,
)

TOP = ("root", "targets", "snapshot", "timestamp")


class Repository:
    """Documents in `signed`, their keys in `keys`, what is served in `served` (path -> bytes)."""

    def __init__(self, *, consistent: bool = True, kind: str = "ed25519") -> None:
        ends = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=30)
        self.ends = ends
        self.consistent = consistent
        self.digests = False
        self.signed: dict[str, Any] = {
            "root": Root(expires=ends, consistent_snapshot=consistent),
            "targets": Targets(expires=ends),
            "snapshot": Snapshot(expires=ends),
            "timestamp": Timestamp(expires=ends),
        }
        self.keys: dict[str, list[CryptoSigner]] = {}
        self.served: dict[str, bytes] = {}
        self.asked: list[str] = []
        for role in TOP:
            self.give_key(role, kind)
        self.publish(*TOP, bump=False)

    def give_key(self, role: str, kind: str = "ed25519") -> CryptoSigner:
        """Add a key of a kind to a top-level role."""
        signer: CryptoSigner = getattr(CryptoSigner, f"generate_{kind}")()
        self.signed["root"].add_key(signer.public_key, role)
        self.keys.setdefault(role, []).append(signer)
        return signer

    def rotate(self, role: str) -> None:
        """Replace a top-level role's keys by one new key."""
        for signer in self.keys.pop(role):
            self.signed["root"].revoke_key(signer.public_key.keyid, role)
        self.give_key(role)

    def publish(self, *roles: str, bump: bool = True, signers: Any = None) -> None:
        """Sign documents and serve them; snapshot and timestamp learn of what is below them."""
        for role in roles:
            signed = self.signed[role]
            if bump:
                signed.version += 1
            md = Metadata(signed)
            for signer in self.keys[role] if signers is None else signers:
                md.sign(signer, append=True)
            data = md.to_bytes()
            plain = role == "timestamp" or not (self.consistent or role == "root")
            self.served[
                f"metadata/{role}.json" if plain else f"metadata/{signed.version}.{role}.json"
            ] = data
            meta = (
                MetaFile.from_data(signed.version, data, ["sha256"])
                if self.digests
                else MetaFile(signed.version)
            )
            if role == "snapshot":
                self.signed["timestamp"].snapshot_meta = meta
            elif role not in ("root", "timestamp"):
                self.signed["snapshot"].meta[f"{role}.json"] = meta

    def publish_all(self) -> None:
        """Publish a new targets, snapshot and timestamp."""
        self.publish("targets", "snapshot", "timestamp")

    def add(self, path: str, data: bytes, role: str = "targets", *, prefix: bool = True) -> None:
        """Add an artifact to a role."""
        target = TargetFile.from_data(path, data, ["sha256"])
        self.signed[role].targets[path] = target
        folder, slash, name = path.rpartition("/")
        if self.consistent and prefix:
            name = f"{target.hashes['sha256']}.{name}"
        self.served[f"targets/{folder}{slash}{name}"] = data

    def delegate(
        self, owner: str, name: str, paths: list[str], *, terminating: bool = False
    ) -> None:
        """Delegate paths from one targets role to another, which gets a key and a document."""
        signer = CryptoSigner.generate_ed25519()
        role = DelegatedRole(name, [], 1, terminating, paths=paths)
        held = self.signed[owner]
        if held.delegations is None:
            held.delegations = Delegations({}, {})
        held.delegations.roles[name] = role
        held.add_key(signer.public_key, name)
        self.keys[name] = [signer]
        if name not in self.signed:
            self.signed[name] = Targets(expires=self.ends)
            self.publish(name, bump=False)

    def hash_bins(self, bits: int) -> list[str]:
        """Delegate to 2**bits hash bins under one key; returns their names."""
        signer = CryptoSigner.generate_ed25519()
        bins = SuccinctRoles([], 1, bits, "bin")
        self.signed["targets"].delegations = Delegations({}, None, bins)
        self.signed["targets"].add_key(signer.public_key)
        found = list(bins.get_roles())
        for name in found:
            self.keys[name] = [signer]
            self.signed[name] = Targets(expires=self.ends)
        return found


class Server(ThreadingHTTPServer):
    """Serves one repository on a free loopback port."""

    daemon_threads = True

    def __init__(self, repository: Repository) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repository = repository
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        repository = self.server.repository
        path = unquote(self.path.lstrip("/"))
        repository.asked.append(path)
        data = repository.served.get(path)
        if data is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output to itself."""
