"""Bring trusted metadata up to date and judge the directive in the inbox by it.

The rules are `trust`'s and `verify_directive`'s; here they are given this device's files and clock,
and what they say is written into the journal.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

from pilotwave_agent import version_folder
from pilotwave_agent.core import records
from pilotwave_agent.core.journal import Journal
from pilotwave_agent.core.records import Record
from pilotwave_agent.facts import facts_of
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.identity import Identity
from pilotwave_agent.learning import signed_plans
from pilotwave_agent.settings.config import Config
from pilotwave_agent.trust.tuf_fetcher import Fetcher
from pilotwave_agent.trust.view import LONGEST_TRUST, TrustedMetadata, TrustedView
from pilotwave_protocol import verify_directive
from pilotwave_protocol.antirollback import AntiRollback
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.messages.directive import Entry
from pilotwave_protocol.names import target_path
from pilotwave_protocol.states import Reason

# what another try at the same bytes may change, without a newer directive
_PASSING = frozenset(
    {
        Reason.NOT_YET_VALID,
        Reason.SNAPSHOT_TOO_OLD,
        Reason.METADATA_EXPIRED,
        Reason.METADATA_ROLLBACK,
        Reason.METADATA_MISMATCH,
        Reason.METADATA_UNSIGNED,
        Reason.METADATA_INVALID,
        Reason.METADATA_UNAVAILABLE,
        Reason.SLOW_RETRIEVAL,
        Reason.ENDLESS_DATA,
        Reason.TARGET_UNKNOWN,
        Reason.DISK_FULL,
        Reason.DISK_READONLY,
        Reason.INTERNAL,
    }
)


class _OnTheWay(RefusedError):
    """A manifest that did not come as it was signed: it may come right the next time."""


@dataclass(frozen=True)
class Judged:
    """What came of it: when to refresh next (epoch seconds), a "no" that may pass, and whether a
    directive was verified."""

    refresh_at: float | None = None
    passing: RefusedError | None = None
    verified: bool = False


@dataclass(frozen=True)
class Inbox:
    """One device's inbox. `fetcher` is asked for metadata and manifests, `record` writes into the
    journal."""

    config: Config
    identity: Identity
    disk: Disk
    layout: Layout
    fetcher: Fetcher
    journal: Journal
    record: Callable[[Record], None]

    def is_due(self) -> bool:
        """Say whether the inbox holds what was not judged yet, or an order lost its manifest."""
        raw = self._inbox()
        if raw is None:
            return False
        return self._has_lost() or sha256_hex(raw) != self.journal.state.judged

    def _has_lost(self) -> bool:
        orders = self.journal.state.orders.values()
        return any(self._kept(order.sha256) is None for order in orders)

    def sit(self, *, at: float, anew: bool = False) -> Judged:
        """Refresh, remember floors and yanks, then judge the inbox if it is news, or `anew`."""
        raw = self._inbox()
        digest = sha256_hex(raw) if raw is not None else ""
        try:
            view = self._refresh()
            self._learn(view, at)
            verified = raw is not None and (anew or self._is_open(digest))
            if raw is not None and verified:
                self._judge(raw, view, at)
        except RefusedError as no:
            passing = no.reason in _PASSING or isinstance(no, _OnTheWay)
            if raw is not None and self._is_news(digest, no, passing=passing):
                judged = "" if passing else digest
                self.record(records.refused(str(no.reason), no.sentence, raw_digest=judged, at=at))
            return Judged(passing=no if passing else None)
        # the timestamp's own date may be of a clock that ran ahead
        soonest = min(view.refresh_after.timestamp(), time.time() + LONGEST_TRUST.total_seconds())
        return Judged(refresh_at=soonest, verified=verified)

    def _is_open(self, digest: str) -> bool:
        """What was accepted stays accepted; what was refused may pass newer metadata."""
        state = self.journal.state
        return state.judged != digest or state.refusal is not None or self._has_lost()

    def _is_news(self, digest: str, no: RefusedError, *, passing: bool) -> bool:
        state = self.journal.state
        if passing and state.judged == digest:
            return False  # it was accepted; that metadata cannot be had now is told otherwise
        known = state.refusal
        same = known and (known.reason, known.detail) == (str(no.reason), no.sentence[:500])
        return not same or (not passing and state.judged != digest)

    def _inbox(self) -> bytes | None:
        size = self.disk.size(self.layout.inbox)
        if size is None or size > verify_directive.MAX_ENVELOPE_BYTES + 1:
            return None
        return self.disk.read(self.layout.inbox)

    def _refresh(self) -> TrustedView:
        return TrustedMetadata.refresh(
            self.layout.tuf, self.identity.root, self.fetcher, disk=self.disk
        )

    def _learn(self, view: TrustedView, at: float) -> None:
        state = self.journal.state
        memory = self._under(state.memory, view)
        held: dict[str, dict[str, str]] = {}
        for model in sorted({*state.models, *state.orders}):
            try:
                memory = verify_directive.learn(memory, view, [model])
                held[model] = dict(view.policy(model).plans)
            except RefusedError:
                continue  # one model's metadata being unavailable silences no other's
        if memory != state.memory or view.versions() != dict(state.tuf):
            self.record(records.learned(memory, view.versions(), at=at))
        if self.config.learn.adapt:
            self._note_plans(held)

    def _note_plans(self, held: Mapping[str, Mapping[str, str]]) -> None:
        """Keep which training plans hold; of a model whose metadata could not be had, those before.
        A disk that says no is asked at the next refresh."""
        before = signed_plans.read(self.disk, self.layout)
        models = {*self.journal.state.models, *self.journal.state.orders}
        with contextlib.suppress(OSError):
            known = {model: held.get(model, before.get(model, {})) for model in models}
            signed_plans.note(self.disk, self.layout, known)

    @staticmethod
    def _under(memory: AntiRollback, view: TrustedView) -> AntiRollback:
        try:
            return memory.under(view.director())
        except RefusedError:
            return memory

    def _judge(self, raw: bytes, view: TrustedView, at: float) -> None:
        found = verify_directive.verify(
            raw,
            view=view,
            fleet=view.director().fleet,  # as it is signed; what enrolment answered is not
            device=self.identity.device,
            now=datetime.now(timezone.utc),
            memory=self.journal.state.memory,
            facts=facts_of(self.config),
            allow_unsafe=self.config.allow_unsafe_formats,
            fetch_manifest=lambda entry: self._manifest(entry, view),
        )
        for version in found.entries:
            keep = (version.entry.sha256, version.manifest_bytes)
            version_folder.keep_manifest(self.disk, self.layout, *keep)
        self.record(records.accepted(found, raw_digest=sha256_hex(raw), at=at))

    def _manifest(self, entry: Entry, view: TrustedView) -> bytes:
        kept = self._kept(entry.sha256)
        if kept is not None:
            return kept
        try:
            return view.fetch(target_path(entry.model, entry.version))
        except RefusedError as no:
            raise _OnTheWay(no.reason, no.sentence) from no

    def _kept(self, sha256: str) -> bytes | None:
        path = self.layout.blobs / sha256
        if (self.disk.size(path) or 0) == 0:
            return None
        raw = self.disk.read(path)
        return raw if sha256_hex(raw) == sha256 else None
