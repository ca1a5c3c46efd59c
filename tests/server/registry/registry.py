"""A whole registry without HTTP, for tests: database, blobs, trust store, its offline people."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tuf.api.exceptions import DownloadHTTPError
from tuf.api.metadata import Metadata, Root, Targets
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from pilotwave_protocol import names, signing
from pilotwave_protocol.manifest import VersionManifest
from pilotwave_server.blobs.filesystem import FileBlobs
from pilotwave_server.blobs.port import BlobStore
from pilotwave_server.db import Database
from pilotwave_server.keystore.folder import FolderKeys
from pilotwave_server.registry import accept_documents, documents
from pilotwave_server.registry.keys import ensure_server_keys
from pilotwave_server.registry.publish import Published, publish
from pilotwave_server.registry.trust import TrustStore
from tests.server.registry.offline import Offline, manifest_for


def onnx(name: str, *, weights: bytes = b"") -> bytes:
    """The least that can be read as an ONNX model (`y`, a float), unlike others by its producer's
    name and by bytes that stand for weights."""
    tensor = _field(1, _field(2, b"") + b"\x08\x01")
    output = _field(1, b"y") + _field(2, tensor)
    graph = _field(5, _field(9, weights)) + _field(12, output)
    return b"\x08\x08" + _field(2, name.encode()) + _field(7, graph) + _field(8, b"\x10\x11")


def _field(number: int, data: bytes) -> bytes:
    """A protobuf field that holds bytes."""
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


class FileFetcher(FetcherInterface):
    """Serves a repository from a folder and counts what was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.rpartition("/")[2]
        self.asked.append(name)
        try:
            return iter([(self.folder / name).read_bytes()])
        except FileNotFoundError:
            raise DownloadHTTPError(name, 404) from None


@dataclass
class Device:
    """A TUF client with a cache of its own, as a device has one. `root` is its root 1."""

    cache: Path
    repository: Path
    root: bytes
    clock: Callable[[], datetime]

    def refresh(self) -> Updater:
        self.cache.mkdir(parents=True, exist_ok=True)
        updater = Updater(
            str(self.cache),
            "files://metadata/",
            fetcher=FileFetcher(self.repository),
            bootstrap=self.root,
        )
        updater._trusted_set.reference_time = self.clock()
        updater.refresh()
        return updater

    def sees(self, model: str, version: str) -> bool:
        """Whether it resolves a version to a target."""
        return self.refresh().get_targetinfo(names.target_path(model, version)) is not None


class Registry:
    """One server process's registry."""

    def __init__(
        self,
        db: Database,
        data_dir: Path,
        clock: Any,
        *,
        fleet: str = "test-fleet",
        offline: Offline | None = None,
        blobs: BlobStore | None = None,
    ) -> None:
        ensure_server_keys(FolderKeys(data_dir / "keys"))
        self.db = db
        self.data_dir = data_dir
        self.clock = clock
        self.blobs = blobs or FileBlobs(data_dir / "blobs", reserve=0)
        self.trust = TrustStore(db, data_dir)
        self.trust.start()
        self.offline = offline or Offline(fleet, clock)

    def bootstrap(self) -> Registry:
        root = self.offline.first_root([self.trust.keys("online")[-1].public])
        targets = self.offline.first_targets([self.trust.keys("director")[-1].raw.hex()])
        accept_documents.bootstrap(
            db=self.db,
            trust=self.trust,
            submission=accept_documents.Submission(root, targets, {}),
            actor="token/admin",
            now=self.clock(),
        )
        return self

    def create_model(self, model: str) -> Registry:
        targets, role = self.offline.delegated(self.targets(), model)
        self.submit(targets=targets, roles={model: role})
        return self

    def submit(
        self,
        *,
        root: Metadata[Root] | None = None,
        targets: Metadata[Targets] | None = None,
        roles: Mapping[str, Metadata[Targets]] | None = None,
    ) -> accept_documents.Accepted:
        return accept_documents.submit(
            db=self.db,
            trust=self.trust,
            submission=accept_documents.Submission(root, targets, roles or {}),
            actor="token/admin",
            now=self.clock(),
        )

    def root(self) -> Metadata[Root]:
        with self.db.read() as session:
            return documents.need(session, "root", Root)

    def targets(self) -> Metadata[Targets]:
        with self.db.read() as session:
            return documents.need(session, "targets", Targets)

    def role(self, model: str) -> Metadata[Targets]:
        with self.db.read() as session:
            return documents.need(session, names.role_for_model(model), Targets)

    def next_counter(self, model: str) -> int:
        return signing.next_counter(self.role(model).signed)

    def manifest(
        self, model: str, version: str, files: Mapping[str, bytes] | None = None, **given: Any
    ) -> VersionManifest:
        """A manifest of files that are in the blob store now."""
        files = files or {"model.onnx": onnx(f"{model} {version}")}
        for data in files.values():
            self.blobs.put(data)
        counter = given.pop("counter", None) or self.next_counter(model)
        return manifest_for(model, version, counter, files, **given)

    def signed_with_version(self, manifest: VersionManifest) -> Metadata[Targets]:
        role = self.offline.with_version(self.role(manifest.model), manifest)
        return signing.sign(role, [self.offline.publishers[manifest.model]])

    def publish(self, model: str, version: str, **given: Any) -> Published:
        manifest = self.manifest(model, version, **given)
        return self.hand_in(model, self.signed_with_version(manifest), manifest)

    def hand_in(
        self, model: str, role: Metadata[Targets], manifest: VersionManifest | None = None
    ) -> Published:
        return publish(
            db=self.db,
            trust=self.trust,
            blobs=self.blobs,
            model=model,
            document=role.to_dict(),
            manifests=[] if manifest is None else [manifest.to_bytes()],
            actor="token/ci",
            now=self.clock(),
        )

    def yank(self, model: str, version: str, *, reason: str = "wrong labels") -> Published:
        role = self.offline.next_role(self.role(model))
        signing.yank(role.signed, model, version, reason=reason, now=self.clock())
        return self.hand_in(model, signing.sign(role, [self.offline.publishers[model]]))

    def device(self, folder: Path) -> Device:
        first = (self.data_dir / "tuf/metadata/1.root.json").read_bytes()
        return Device(folder, self.data_dir / "tuf/metadata", first, self.clock)
