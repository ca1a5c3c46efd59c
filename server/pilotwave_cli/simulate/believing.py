"""What the virtual devices believe: the fleet's TUF metadata, and directives under it.

One view serves all of them, since they would all hold the same. Each directive is judged by the
rules that agents have (`verify_directive`), with the memory of its device; manifests and files are
fetched and hashed once and then taken for known.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

import httpx
from tuf.api.exceptions import DownloadError, RepositoryError
from tuf.api.metadata import TargetFile
from tuf.ngclient.updater import Updater

from pilotwave_cli.errors import Failed
from pilotwave_protocol.antirollback import AntiRollback
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.errors import ProtocolError, RefusedError
from pilotwave_protocol.fields import Scalar
from pilotwave_protocol.manifest import MAX_MANIFEST_BYTES, Variant
from pilotwave_protocol.messages.directive import Entry
from pilotwave_protocol.signed_facts import SignedFacts, signed_moment, timestamp_of
from pilotwave_protocol.states import Reason
from pilotwave_protocol.trust import DirectorKeys, ModelPolicy, VersionTarget
from pilotwave_protocol.verify_directive import VerifiedDirective, verify

EPOCH = datetime.fromtimestamp(0, timezone.utc)
T = TypeVar("T")


class _Missing(Exception):
    """A manifest that is not here yet. `verify` is pure: it is asked again when it has come."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry


class View(SignedFacts):
    """The trusted metadata at one moment, for all devices: each fact is looked up once."""

    def __init__(self, updater: Updater) -> None:
        # none of an agent's release: what the timestamp proves about the time, and no more
        super().__init__(updater, signed_moment(timestamp_of(updater)) or EPOCH)
        self._known: dict[tuple[str, ...], Any] = {}
        self._lock = threading.Lock()  # python-tuf serves one thread

    def director(self) -> DirectorKeys:
        """Who may sign directives."""
        return self._once(("director",), super().director)

    def version(self, model: str, version: str) -> VersionTarget | None:
        """What the publisher signed of a version."""
        found = super().version
        return self._once(("version", model, version), lambda: found(model, version))

    def policy(self, model: str) -> ModelPolicy:
        """The publisher's floor and yanks."""
        found = super().policy
        return self._once(("policy", model), lambda: found(model))

    def _once(self, key: tuple[str, ...], look_up: Callable[[], T]) -> T:
        with self._lock:
            if key not in self._known:
                self._known[key] = look_up()
            found: T = self._known[key]
            return found

    def _looked_up(self, path: str) -> TargetFile | None:
        with _trusted():
            return super()._looked_up(path)


@contextmanager
def _trusted() -> Iterator[None]:
    try:
        yield
    except (RepositoryError, DownloadError, ProtocolError) as error:
        raise Failed(f"the fleet's metadata is not trusted: {error}") from error


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
    _asked_for: set[str] = field(default_factory=set)
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
        with _trusted():
            updater = Updater(str(folder), f"{self.url}/tuf/metadata/", bootstrap=self.root)
            updater.refresh()
            return View(updater)

    async def stands_by(self, model: str, plan: str, digest: str) -> bool:
        """Say whether the model's publisher has signed a plan of this name and digest. The metadata
        is refreshed for a digest that is new. Raises `Failed`."""
        async with self._lock:
            if self._view is None or digest not in self._asked_for:
                self._view = await asyncio.to_thread(self._refresh)
                self._asked_for.add(digest)
            view = self._view
        signed = await asyncio.to_thread(view.policy, model)
        return signed.plans.get(plan) == digest

    async def judge(
        self,
        raw: bytes,
        *,
        hint: str,
        fleet: str,
        device: str,
        facts: Mapping[str, Scalar],
        now: datetime,
        memory: AntiRollback,
        token: str,
    ) -> VerifiedDirective:
        """Return the directive if it passes every step, or raise `RefusedError`."""
        view = await self.view(hint)
        came: dict[str, bytes] = {}
        while True:
            try:
                found = await asyncio.to_thread(
                    verify,
                    raw,
                    view=view,
                    fleet=fleet,
                    device=device,
                    now=now,
                    memory=memory,
                    facts=facts,
                    allow_unsafe=False,
                    fetch_manifest=lambda entry: self._here(entry, came),
                )
            except _Missing as missing:
                path = _manifest_path(missing.entry)
                came[missing.entry.sha256] = await self._get(path, token, MAX_MANIFEST_BYTES)
            else:
                self._manifests.update(came)  # verified: another device need not fetch them
                return found

    def _here(self, entry: Entry, came: Mapping[str, bytes]) -> bytes:
        raw = came.get(entry.sha256, self._manifests.get(entry.sha256))
        if raw is None:
            raise _Missing(entry)
        return raw

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
