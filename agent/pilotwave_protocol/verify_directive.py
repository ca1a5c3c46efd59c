"""Judge a directive in thirteen numbered steps (docs/protocol.md has the same numbers).

`verify` is pure given its inputs: it fetches manifests through a callable, reads the clock from
`now` and returns the new memory instead of storing it. Either every entry passes or the whole
directive is refused with the reason of the first step that fails. Fetching files, testing and
switching are the machine's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from pilotwave_protocol import dsse
from pilotwave_protocol.antirollback import AntiRollback, Ordered
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.errors import BadEnvelope, BadManifest, BadMessage, RefusedError, WrongKey
from pilotwave_protocol.fields import Scalar, format_time
from pilotwave_protocol.manifest import Variant, VersionManifest, parse_manifest
from pilotwave_protocol.messages.directive import (
    DIRECTIVE_TYPE,
    MAX_DIRECTIVE_ENVELOPE_BYTES,
    Directive,
    Entry,
    parse_directive,
)
from pilotwave_protocol.states import Reason
from pilotwave_protocol.trust import (
    DirectorKeys,
    ModelPolicy,
    ModelReset,
    VersionTarget,
    variant_fits,
)

MAX_ENVELOPE_BYTES = MAX_DIRECTIVE_ENVELOPE_BYTES
CLOCK_SLACK = timedelta(minutes=5)


class View(Protocol):
    """What `verify` asks of the trusted metadata."""

    @property
    def snapshot_version(self) -> int: ...
    @property
    def time_floor(self) -> datetime: ...
    def director(self) -> DirectorKeys: ...
    def version(self, model: str, version: str) -> VersionTarget | None: ...
    def policy(self, model: str) -> ModelPolicy: ...
    def reset(self, model: str) -> ModelReset | None: ...


@dataclass(frozen=True)
class VerifiedVersion:
    """A version that may be installed: ordered, signed by its publisher, fit for this device."""

    entry: Entry
    manifest: VersionManifest
    manifest_bytes: bytes
    variant: Variant


@dataclass(frozen=True)
class VerifiedDirective:
    """An accepted directive. `memory` is to be stored before anything else is done."""

    directive: Directive
    entries: tuple[VerifiedVersion, ...]
    memory: AntiRollback


FetchManifest = Callable[[Entry], bytes]
"""Returns the manifest's bytes, unverified, or raises `RefusedError`."""


def learn(memory: AntiRollback, view: View, models: Iterable[str]) -> AntiRollback:
    """Take in floors, yanks and resets of these models: after each refresh, even if no directive
    passes."""
    for model in models:
        memory = memory.learned(model, view.policy(model), view.reset(model))
    return memory


def verify(
    raw: bytes,
    *,
    view: View,
    fleet: str,
    device: str,
    now: datetime,
    memory: AntiRollback,
    facts: Mapping[str, Scalar],
    allow_unsafe: bool,
    fetch_manifest: FetchManifest,
) -> VerifiedDirective:
    """Return the directive if all thirteen steps pass, or raise `RefusedError`."""
    moment = max(now, view.time_floor)
    director = view.director()
    memory = memory.under(director)
    payload, signers = _opened(raw, director)  # steps 1 and 2
    directive = _parsed(payload)  # step 3
    _check_address(directive, fleet, device, director)  # steps 4 and 5
    _check_time(directive, moment)  # step 6
    key = _check_seq(directive, signers, director, memory)  # step 7
    _check_snapshot(directive, view)  # step 8
    targets = [_target(entry, view) for entry in directive.entries]  # step 9, and below
    manifests = [_manifest(entry, fetch_manifest) for entry in directive.entries]
    versions = tuple(
        _fitting(entry, raw_manifest, manifest, facts, allow_unsafe)  # step 10
        for entry, (raw_manifest, manifest) in zip(directive.entries, manifests, strict=True)
    )
    known = learn(memory, view, (entry.model for entry in directive.entries))
    for entry, target in zip(directive.entries, targets, strict=True):
        _check_yank(entry, target, known)  # step 11
    for entry in directive.entries:
        _check_floor(entry, known)  # step 12
    accepted = known.accepted(key, directive.seq, directive.set_digest)  # step 13
    return VerifiedDirective(directive, versions, accepted)


def _opened(raw: bytes, director: DirectorKeys) -> tuple[bytes, frozenset[str]]:
    """Return the payload and the director keys that signed it."""
    if len(raw) > MAX_ENVELOPE_BYTES:
        sentence = f"expected a directive of at most {MAX_ENVELOPE_BYTES} bytes; got {len(raw)}"
        raise RefusedError(Reason.DIRECTIVE_TOO_LARGE, sentence)
    try:
        kind, keys = DIRECTIVE_TYPE, director.keys
        claimed = dsse.peek_unverified(raw, payload_type=kind, max_bytes=MAX_ENVELOPE_BYTES)
        payload = dsse.verified(claimed, payload_type=kind, keys=keys, threshold=director.threshold)
        return payload, dsse.signers(claimed, payload_type=kind, keys=keys)
    except WrongKey as e:
        raise RefusedError(Reason.WRONG_KEY, f"directive: {e}") from e
    except BadEnvelope as e:
        raise RefusedError(Reason.BAD_ENVELOPE, f"directive: {e}") from e


def _parsed(payload: bytes) -> Directive:
    try:
        return parse_directive(payload)
    except BadMessage as e:
        raise RefusedError(Reason.BAD_DIRECTIVE, f"directive: {e}") from e


def _check_address(directive: Directive, fleet: str, device: str, director: DirectorKeys) -> None:
    for expected in (fleet, director.fleet):
        if directive.fleet != expected:
            sentence = f"expected a directive for fleet {expected}; this is for {directive.fleet}"
            raise RefusedError(Reason.WRONG_FLEET, sentence)
    if directive.device != device:
        sentence = f"expected a directive for {device}; this is for {directive.device}"
        raise RefusedError(Reason.WRONG_DEVICE, sentence)


def _check_time(directive: Directive, moment: datetime) -> None:
    shown = format_time(moment)
    if directive.issued - CLOCK_SLACK > moment:
        sentence = (
            f"this device's clock ({shown}) is behind the order, issued "
            f"{format_time(directive.issued)}; set the clock"
        )
        raise RefusedError(Reason.NOT_YET_VALID, sentence)
    if moment >= directive.expires:
        sentence = f"expired {format_time(directive.expires)}; here it is {shown}"
        raise RefusedError(Reason.DIRECTIVE_EXPIRED, sentence)


def _check_seq(
    directive: Directive, signers: frozenset[str], director: DirectorKeys, memory: AntiRollback
) -> str:
    """Return the newest key that signed it, whose numbers the directive's goes by.

    Where two keys are listed, the older is good until the newer has been followed; after that a
    thief of the older can replay nothing. Where nobody signed which one is newer, each directive
    goes by the numbers of all.
    """
    rank = {key: n for n, key in enumerate(director.order)}
    key = max(signers, key=lambda k: (rank.get(k, 0), k))
    newer = [k for k in memory.ordered if rank.get(k, 0) > rank.get(key, 0)]
    if newer:
        sentence = f"signed by director key {key[:12]}, which key {newer[0][:12]} has replaced"
        raise RefusedError(Reason.DIRECTIVE_REPLAYED, sentence)
    shared = [] if director.order else [k for k in memory.ordered if k != key]
    for last in (memory.ordered[k] for k in (key, *shared) if k in memory.ordered):
        _check_after(directive, last)
    return key


def _check_after(directive: Directive, last: Ordered) -> None:
    if directive.seq < last.seq:
        sentence = f"expected seq {last.seq} or later; got {directive.seq}"
        raise RefusedError(Reason.DIRECTIVE_REPLAYED, sentence)
    if directive.seq == last.seq and directive.set_digest != last.set_digest:
        sentence = f"two different directives carry seq {directive.seq}"
        raise RefusedError(Reason.DIRECTIVE_FORK, sentence)


def _check_snapshot(directive: Directive, view: View) -> None:
    if view.snapshot_version < directive.min_snapshot:
        sentence = (
            f"the directive needs snapshot {directive.min_snapshot} or later; "
            f"the registry offers {view.snapshot_version}"
        )
        raise RefusedError(Reason.SNAPSHOT_TOO_OLD, sentence)


def _named(entry: Entry) -> str:
    return f"{entry.model} {entry.version}"


def _target(entry: Entry, view: View) -> VersionTarget:
    target = view.version(entry.model, entry.version)
    if target is None:
        sentence = f"{_named(entry)}: no publisher has signed it"
        raise RefusedError(Reason.TARGET_UNKNOWN, sentence)
    ordered = (entry.sha256, entry.length, entry.counter)
    if ordered != (target.sha256, target.length, target.counter):
        sentence = f"{_named(entry)}: the directive names another manifest than its publisher"
        raise RefusedError(Reason.TARGET_MISMATCH, sentence)
    return target


def _manifest(entry: Entry, fetch: FetchManifest) -> tuple[bytes, VersionManifest]:
    raw = fetch(entry)
    if len(raw) != entry.length or sha256_hex(raw) != entry.sha256:
        sentence = f"{_named(entry)}: the manifest that came is not the one that was signed"
        raise RefusedError(Reason.TARGET_MISMATCH, sentence)
    try:
        manifest = parse_manifest(raw)
    except BadManifest as e:
        raise RefusedError(Reason.MANIFEST_INVALID, f"{_named(entry)}: {e}") from e
    found = (manifest.model, manifest.version, manifest.counter)
    if found != (entry.model, entry.version, entry.counter):
        sentence = f"{_named(entry)}: its manifest says {found[0]} {found[1]} counter {found[2]}"
        raise RefusedError(Reason.MANIFEST_INVALID, sentence)
    return raw, manifest


def _fitting(
    entry: Entry,
    raw: bytes,
    manifest: VersionManifest,
    facts: Mapping[str, Scalar],
    allow_unsafe: bool,
) -> VerifiedVersion:
    variant = manifest.variant(entry.variant)
    if variant is None:
        sentence = f"{_named(entry)}: has no variant {entry.variant}"
        raise RefusedError(Reason.VARIANT_UNKNOWN, sentence)
    fit = variant_fits(variant, facts, model=entry.model, allow_unsafe=allow_unsafe)
    if fit.reason is not None:
        raise RefusedError(fit.reason, f"{_named(entry)}: {fit.sentence}")
    return VerifiedVersion(entry, manifest, raw, variant)


def _check_yank(entry: Entry, target: VersionTarget, memory: AntiRollback) -> None:
    if target.yanked is not None:
        sentence = f"{_named(entry)}: its publisher took it back: {ascii(target.yanked)[1:-1]}"
        raise RefusedError(Reason.YANKED, sentence)
    if memory.has_yanked(entry.model, entry.sha256):
        sentence = f"{_named(entry)}: its publisher has taken it back for ever"
        raise RefusedError(Reason.YANKED, sentence)


def _check_floor(entry: Entry, memory: AntiRollback) -> None:
    floor = memory.floors.get(entry.model, 0)
    if entry.counter < floor:
        sentence = f"{_named(entry)}: counter {entry.counter} is below the model's floor {floor}"
        raise RefusedError(Reason.BELOW_FLOOR, sentence)
