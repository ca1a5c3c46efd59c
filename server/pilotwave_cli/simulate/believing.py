"""What the virtual devices believe: the fleet's TUF metadata, and directives under it.

One view serves all of them, since they would all hold the same. A directive is judged in the steps
of docs/protocol.md, per device; files are fetched and hashed once and then taken for known.
"""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx
from tuf.api.exceptions import DownloadError, RepositoryError
from tuf.api.metadata import TargetFile
from tuf.ngclient.updater import Updater

from pilotwave_cli.errors import Failed
from pilotwave_protocol import dsse, messages, names
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.errors import ProtocolError, RefusedError, WrongKey
from pilotwave_protocol.manifest import Variant, parse_manifest
from pilotwave_protocol.messages import Directive, Entry
from pilotwave_protocol.states import Reason
from pilotwave_protocol.trust import DirectorKeys, ModelPolicy, VersionTarget, variant_fits

SLACK = timedelta(minutes=5)
MAX_ENVELOPE = messages.MAX_DIRECTIVE_BYTES * 4 // 3 + (8 << 10)
MAX_MANIFEST = 1 << 20


@dataclass
class Memory:
    """What one device has accepted so far."""

    seq: int = 0
    digest: str = ""


@dataclass(frozen=True)
class Accepted:
    """A directive that passed, with the variant of each entry."""

    directive: Directive
    variants: dict[str, Variant]


class View:
    """The trusted metadata at one moment."""

    def __init__(self, updater: Updater, snapshot: int) -> None:
        self._updater = updater
        self.snapshot = snapshot
        custom = self._custom(names.DIRECTOR_PATH)
        self.director = DirectorKeys.from_custom(custom)
        self._versions: dict[str, VersionTarget | None] = {}
        self._policies: dict[str, ModelPolicy] = {}

    def version(self, model: str, version: str) -> VersionTarget | None:
        """What the publisher signed of a version."""
        path = names.target_path(model, version)
        if path not in self._versions:
            info = self._updater.get_targetinfo(path)
            self._versions[path] = None if info is None else _read(path, info)
        return self._versions[path]

    def policy(self, model: str) -> ModelPolicy:
        """The publisher's floor and yanks."""
        if model not in self._policies:
            self._policies[model] = ModelPolicy.from_custom(self._custom(names.policy_path(model)))
        return self._policies[model]

    def _custom(self, path: str) -> Any:
        info = self._updater.get_targetinfo(path)
        if info is None:
            raise RefusedError(Reason.TARGET_UNKNOWN, f"{path} is not signed in this fleet")
        return info.unrecognized_fields.get("custom")


def _read(path: str, info: TargetFile) -> VersionTarget:
    custom = info.unrecognized_fields.get("custom")
    return VersionTarget.from_target(path, length=info.length, hashes=info.hashes, custom=custom)


@dataclass
class Trust:
    """Keeps the view up to date, and what was fetched under it."""

    url: str
    root: bytes
    http: httpx.AsyncClient
    bytes_fetched: int = 0
    _hint: str = ""
    _view: View | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _manifests: dict[str, bytes] = field(default_factory=dict)
    _good: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _folder: Any = field(
        default_factory=lambda: tempfile.TemporaryDirectory(prefix="pilotwave-sim-")
    )

    def close(self) -> None:
        """Remove the cache of metadata."""
        self._folder.cleanup()

    async def view(self, hint: str) -> View:
        """The view, refreshed if the server hints at newer metadata. Raises `Failed`."""
        async with self._lock:
            if self._view is None or (hint and hint != self._hint):
                self._view = await asyncio.to_thread(self._refresh)
                self._hint = hint
            return self._view

    def _refresh(self) -> View:
        folder = Path(self._folder.name)
        updater = Updater(str(folder), f"{self.url}/tuf/metadata/", bootstrap=self.root)
        try:
            updater.refresh()
            return View(updater, updater._trusted_set.snapshot.version)
        except (RepositoryError, DownloadError, ProtocolError) as error:
            raise Failed(f"the fleet's metadata is not trusted: {error}") from error

    async def judge(
        self,
        raw: bytes,
        *,
        hint: str,
        fleet: str,
        device: str,
        facts: Any,
        memory: Memory,
        token: str,
    ) -> Accepted:
        """Return the directive if it passes every step, or raise `RefusedError`."""
        view = await self.view(hint)
        directive = _opened(raw, view)
        _check_frame(directive, view, fleet, device, memory)
        variants = {}
        for entry in directive.entries:
            target = await asyncio.to_thread(_target, entry, view)
            variants[entry.model] = await self._variant(entry, facts, token)
            policy = await asyncio.to_thread(view.policy, entry.model)
            if target.yanked is not None or entry.sha256 in policy.yanked:
                raise RefusedError(Reason.YANKED, f"{entry.version} was taken back")
            if entry.counter < policy.floor:
                raise RefusedError(Reason.BELOW_FLOOR, f"{entry.version} is below the floor")
        memory.seq, memory.digest = directive.seq, directive.set_digest
        return Accepted(directive, variants)

    async def _variant(self, entry: Entry, facts: Any, token: str) -> Variant:
        raw = self._manifests.get(entry.sha256)
        if raw is None:
            raw = await self._get(_manifest_path(entry), token, MAX_MANIFEST)
            if len(raw) != entry.length or sha256_hex(raw) != entry.sha256:
                raise RefusedError(
                    Reason.TARGET_MISMATCH, f"{entry.version}: another manifest came"
                )
            self._manifests[entry.sha256] = raw
        variant = parse_manifest(raw).variant(entry.variant)
        if variant is None:
            raise RefusedError(Reason.VARIANT_UNKNOWN, f"{entry.version} has no {entry.variant}")
        fit = variant_fits(variant, facts, allow_unsafe=False)
        if fit.reason is not None:
            raise RefusedError(fit.reason, fit.sentence)
        return variant

    async def fetch(self, variant: Variant, token: str) -> None:
        """Have each file fetched and compared with its digest, once in this process."""
        for file in variant.files:
            task = self._good.get(file.sha256)
            if task is None or (task.done() and task.exception() is not None):
                task = asyncio.create_task(self._check_file(file.sha256, file.size, token))
                self._good[file.sha256] = task
            await asyncio.shield(task)

    async def _check_file(self, sha256: str, size: int, token: str) -> None:
        raw = await self._get(f"/blobs/{sha256}", token, size)
        if len(raw) != size or sha256_hex(raw) != sha256:
            raise RefusedError(Reason.BLOB_MISMATCH, f"{sha256[:12]}: other bytes came")

    async def _get(self, path: str, token: str, most: int) -> bytes:
        headers = {"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"}
        found = bytearray()
        async with self.http.stream("GET", path, headers=headers) as answer:
            if answer.status_code != 200:
                raise RefusedError(Reason.BLOB_UNAVAILABLE, f"answered {answer.status_code}")
            async for chunk in answer.aiter_raw():
                found += chunk
                if len(found) > most:
                    raise RefusedError(Reason.BLOB_TOO_LONG, f"more than {most} bytes came")
        self.bytes_fetched += len(found)
        return bytes(found)


def _manifest_path(entry: Entry) -> str:
    """Where a manifest is: TUF's consistent snapshots put its digest before its name."""
    folder, _, name = entry.target.rpartition("/")
    return f"/tuf/targets/{folder}/{entry.sha256}.{name}"


def _opened(raw: bytes, view: View) -> Directive:
    if len(raw) > MAX_ENVELOPE:
        raise RefusedError(Reason.DIRECTIVE_TOO_LARGE, f"{len(raw)} bytes came")
    try:
        payload = dsse.open_envelope(
            raw,
            payload_type=messages.DIRECTIVE_TYPE,
            keys=view.director.keys,
            threshold=view.director.threshold,
            max_bytes=MAX_ENVELOPE,
        )
        return messages.parse_directive(payload)
    except WrongKey as error:
        raise RefusedError(Reason.WRONG_KEY, str(error)) from error
    except ProtocolError as error:
        raise RefusedError(Reason.BAD_DIRECTIVE, str(error)) from error


def _check_frame(d: Directive, view: View, fleet: str, device: str, memory: Memory) -> None:
    if d.fleet != fleet or d.fleet != view.director.fleet:
        raise RefusedError(Reason.WRONG_FLEET, f"expected {fleet}; got {d.fleet}")
    if d.device != device:
        raise RefusedError(Reason.WRONG_DEVICE, f"expected {device}; got {d.device}")
    now = datetime.now(timezone.utc)
    if d.issued - SLACK > now:
        raise RefusedError(Reason.NOT_YET_VALID, "issued in the time to come")
    if now >= d.expires:
        raise RefusedError(Reason.DIRECTIVE_EXPIRED, "it has expired")
    if d.seq < memory.seq:
        raise RefusedError(Reason.DIRECTIVE_REPLAYED, f"expected seq {memory.seq}; got {d.seq}")
    if d.seq == memory.seq and memory.digest not in ("", d.set_digest):
        raise RefusedError(Reason.DIRECTIVE_FORK, f"two directives carry seq {d.seq}")
    if view.snapshot < d.min_snapshot:
        raise RefusedError(Reason.SNAPSHOT_TOO_OLD, f"expected snapshot {d.min_snapshot}")


def _target(entry: Entry, view: View) -> VersionTarget:
    target = view.version(entry.model, entry.version)
    if target is None:
        raise RefusedError(Reason.TARGET_UNKNOWN, f"{entry.version}: no publisher has signed it")
    ordered = (entry.sha256, entry.length, entry.counter)
    if ordered != (target.sha256, target.length, target.counter):
        raise RefusedError(Reason.TARGET_MISMATCH, f"{entry.version}: another manifest is named")
    return target
