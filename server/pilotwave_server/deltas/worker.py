"""Make deltas in the background: each in a process of its own, at low priority, one after another.

A process for each delta keeps the server's memory small and its interpreter free, and can be ended
at once when the server stops.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path

from sqlalchemy.orm import Session

from pilotwave_protocol.digest import CHUNK, EMPTY_SHA256, hash_stream
from pilotwave_server.blobs.port import BlobMissing, BlobStore, NoSpace, StoreBroken
from pilotwave_server.db import Database
from pilotwave_server.deltas import jobs
from pilotwave_server.deltas.needs import needed
from pilotwave_server.deltas.tables import DeltaRow
from pilotwave_server.rollouts.assignments.snapshot import FleetSnapshot
from pilotwave_server.workers import Periodic

log = logging.getLogger(__name__)
LOOK_S = 5.0
NOTE_S = 60.0  # what devices run is counted no more often, unless orders change
TIMEOUT_S = 4 * 3600
PAYS = 0.97
"""A delta pays if it is at most this part of the whole file, and a kilobyte smaller."""


class DeltaWorker:
    """Notes the pairs that are needed, and works on them with some threads."""

    def __init__(
        self,
        db: Database,
        blobs: BlobStore,
        picture: Callable[[], FleetSnapshot],
        *,
        clock: Callable[[], datetime],
        processes: int,
        folder: Path,
    ) -> None:
        self._db, self._blobs, self._picture, self._clock = db, blobs, picture, clock
        self._folder = folder
        self._children: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopping = False
        self._noted: FleetSnapshot | None = None
        self._note_at = 0.0
        self._workers = [
            Periodic(f"deltas-{i}", self.work, interval_s=LOOK_S, can_wait=True)
            for i in range(processes)
        ]

    def start(self) -> None:
        self._stopping = False
        self._clear_scratch()
        for worker in self._workers:
            worker.start()

    def stop(self) -> None:
        with self._lock:
            self._stopping = True
            for child in self._children:
                child.terminate()
        for worker in self._workers:
            worker.stop()

    def wake(self) -> None:
        for worker in self._workers:
            worker.wake()

    def work(self) -> int:
        """Note what is needed, then make deltas until none is waiting; return how many."""
        made = 0
        self._note()
        while not self._stopping:
            with self._db.write() as session:
                row = jobs.take(session, now=self._clock())
            if row is None:
                break
            self._make(row)
            made += 1
        return made

    def _note(self) -> None:
        snapshot, now = self._picture(), time.monotonic()
        with self._lock:
            if snapshot is self._noted and now < self._note_at:
                return
            self._noted, self._note_at = snapshot, now + NOTE_S
        with self._db.read() as session:
            pairs = list(needed(snapshot, jobs.read_running(session)))
            known = jobs.known_pairs(session)
            old = jobs.unneeded(session, now=self._clock())
        wanted = {(pair.old, pair.new) for pair in pairs}
        fresh = [pair for pair in pairs if (pair.old, pair.new) not in known]
        fading = wanted & jobs.fading(known, self._clock())
        if fresh or fading:
            with self._db.write() as session:
                jobs.note(session, fresh, now=self._clock())
                jobs.touch(session, fading, now=self._clock())
        self._clear(row for row in old if (row.from_sha256, row.to_sha256) not in wanted)

    def _clear(self, rows: Iterable[DeltaRow]) -> None:
        """Remove what is not needed any more. A device that still asks fetches the whole file."""
        for row in rows:
            with self._db.write() as session:
                gone = jobs.clear(session, row)
            if gone and row.delta_sha256:
                self._blobs.delete(row.delta_sha256)

    def _make(self, row: DeltaRow) -> None:
        try:
            with self._scratch() as folder:
                state, values = self._result(row, folder)
        except Interrupted:
            self._say(lambda session: jobs.release(session, row))
            return
        except StoreBroken:
            self._say(lambda session: jobs.release(session, row))
            raise  # not this pair's fault: the worker tells of it, and tries again later
        except (OSError, DeltaFailed, BlobMissing, NoSpace) as e:
            log.warning("no delta from %s to %s: %s", row.from_sha256, row.to_sha256, e)
            state, values = "failed", {"detail": str(e)[:512]}
        now = self._clock()
        self._say(lambda s: jobs.finish(s, row, now=now, state=state, **values))
        if made := values.get("delta_sha256"):
            self._drop_unwanted(row, str(made))

    def _drop_unwanted(self, row: DeltaRow, made: str) -> None:
        """Remove a delta whose pair was forgotten meanwhile: one of its files may be purged."""
        with self._db.read() as session:
            gone = jobs.find(session, row.from_sha256, row.to_sha256) is None
            gone = gone and not jobs.is_named(session, made)
        if gone:
            self._blobs.delete(made)

    def _say(self, change: Callable[[Session], object]) -> None:
        with self._db.write() as session:
            change(session)

    def _clear_scratch(self) -> None:
        """Remove what makers left that were killed; other processes of this server have theirs."""
        for folder in self._folder.glob("delta-*"):
            with suppress(OSError):
                if folder.stat().st_mtime < time.time() - TIMEOUT_S:
                    shutil.rmtree(folder)

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder, prefix="delta-") as folder:
            yield Path(folder)

    def _result(self, row: DeltaRow, folder: Path) -> tuple[str, dict[str, object]]:
        old, out = folder / "empty", folder / "delta"
        old.touch()
        with ExitStack() as stack:
            if row.from_sha256 != EMPTY_SHA256:
                old = stack.enter_context(self._blobs.local(row.from_sha256))
            self._run(old, stack.enter_context(self._blobs.local(row.to_sha256)), out)
        size = out.stat().st_size
        if size > PAYS * row.full_size or size + 1024 > row.full_size:
            return "useless", {"size": size}
        return "ready", {"size": size, "delta_sha256": self._store(out, size)}

    def _run(self, old: Path, new: Path, out: Path) -> None:
        """Run the maker on three files."""
        command = [sys.executable, "-m", "pilotwave_deltas", str(old), str(new), str(out)]
        with lifeline() as held:
            with self._lock:
                if self._stopping:
                    raise Interrupted
                child = subprocess.Popen(
                    command, stdin=held, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
                )
                self._children.add(child)
            said = self._wait(child)
        if self._stopping:
            raise Interrupted
        if child.returncode:
            last = said.decode(errors="replace").strip().splitlines()[-1:]
            raise DeltaFailed(f"the maker ended with {child.returncode}: {json.dumps(last)}")

    def _wait(self, child: subprocess.Popen[bytes]) -> bytes:
        """Wait for its end and return what it said."""
        try:
            return child.communicate(timeout=TIMEOUT_S)[1]
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            raise DeltaFailed(f"it took longer than {TIMEOUT_S} s") from None
        finally:
            self._children.discard(child)

    def _store(self, path: Path, size: int) -> str:
        with path.open("rb") as stream:
            sha256, _ = hash_stream(stream)
        if self._blobs.size(sha256) == size:
            return sha256
        with path.open("rb") as stream:
            upload = self._blobs.begin(sha256, offset=0, length=size, restart=True)
            with upload:
                while chunk := stream.read(CHUNK):
                    upload.write([chunk])
                upload.finish()
        return sha256


@contextmanager
def lifeline() -> Iterator[int]:
    """A pipe that ends with this process, however it ends (`pilotwave_deltas.lifeline`)."""
    reader, writer = os.pipe()
    try:
        yield reader
    finally:
        os.close(reader)
        os.close(writer)


class DeltaFailed(Exception):
    """The maker could not do it."""


class Interrupted(Exception):
    """The server stops."""
