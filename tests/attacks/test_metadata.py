"""Attacks on TUF metadata: whoever answers in the registry's place changes what is served."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta, timezone

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Snapshot, Targets, Timestamp

from pilotwave_agent.net.http import Channel
from pilotwave_agent.trust.tuf_fetcher import Fetcher
from pilotwave_agent.trust.view import TrustedMetadata, TrustedView
from pilotwave_protocol import dsse, names, signing
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.states import Reason
from pilotwave_protocol.trust import DirectorKeys
from pilotwave_protocol.verify_directive import verify
from tests.attacks.victim import Victim
from tests.peers.registry import Registry, Reply, example

ROLE = "models-detector"
NINETEEN_SEVENTY = datetime(1970, 1, 1, 0, 0, 30, tzinfo=timezone.utc)


def path_of(registry: Registry, name: str) -> str:
    """Return where the newest document of a role below the timestamp is served."""
    version = {
        "targets": registry.targets.signed.version,
        "snapshot": registry.snapshot_version,
    }.get(name)
    return f"/tuf/metadata/{version or registry.roles[name].signed.version}.{name}.json"


def signed_by(role: Metadata[Targets], signer: CryptoSigner) -> bytes:
    """Return a role's document with this signature alone."""
    copy: Metadata[Targets] = Metadata.from_bytes(role.to_bytes())
    copy.signatures.clear()
    copy.sign(signer)
    return signing.to_bytes(copy)


def test_arbitrary_software_lacks_the_publishers_signature(victim: Victim) -> None:
    registry = victim.registry
    honest = registry.files[path_of(registry, ROLE)]
    forged = signed_by(registry.roles[ROLE], CryptoSigner.generate_ed25519())
    registry.order(victim.new)
    registry.files[path_of(registry, ROLE)] = forged
    victim.refuses(Reason.METADATA_UNSIGNED)
    registry.files[path_of(registry, ROLE)] = honest
    victim.recovers()


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", ROLE])
def test_a_document_signed_by_a_stranger_is_no_document(victim: Victim, role: str) -> None:
    registry = victim.registry
    path = "/tuf/metadata/timestamp.json" if role == "timestamp" else path_of(registry, role)
    if role == "targets":  # one that the device does not hold yet
        registry.publish("other", "1.0.0", example("1.0.0"))
        path = path_of(registry, role)
    registry.order(victim.new)
    stranger = CryptoSigner.generate_ed25519()

    def forge(asked: str, reply: Reply) -> Reply:
        if asked == path:
            document: Metadata[Targets] = Metadata.from_bytes(reply.body)
            return Reply(200, signed_by(document, stranger))
        return reply

    registry.bend = forge
    victim.refuses(Reason.METADATA_UNSIGNED)
    victim.recovers()


@pytest.mark.parametrize("cache", ["kept", "deleted"])
def test_older_metadata_is_refused_with_and_without_the_cache(victim: Victim, cache: str) -> None:
    registry, device = victim.registry, victim.device
    older = dict(registry.files)
    registry.publish("detector", "1.3.0", example("1.3.0"))
    device.work(refresh=True)
    newer, registry.files = registry.files, older
    if cache == "deleted":
        shutil.rmtree(device.layout.tuf)
    registry.order(victim.new)
    victim.refuses(Reason.METADATA_ROLLBACK)
    registry.files = newer
    victim.recovers()


def test_a_model_cannot_vanish_from_the_snapshot(victim: Victim) -> None:
    registry = victim.registry
    kept = registry.roles.pop(ROLE)
    registry.seal()
    registry.order(victim.new)
    victim.refuses(Reason.METADATA_ROLLBACK)
    registry.roles[ROLE] = kept
    registry.seal()
    victim.recovers()


def test_a_yank_stays_known_when_older_metadata_comes_back(victim: Victim) -> None:
    registry, device = victim.registry, victim.device
    registry.yank("detector", "1.1.0")
    device.work(refresh=True)
    registry.order(victim.new)
    victim.refuses(Reason.YANKED)
    # the online key is stolen: newer numbers around the older role, and no cache to compare with
    version = registry.roles[ROLE].signed.version
    older = registry.files[f"/tuf/metadata/{version - 1}.{ROLE}.json"]
    shutil.rmtree(device.layout.tuf)
    kept = registry.roles[ROLE]
    registry.roles[ROLE] = Metadata.from_bytes(older)
    registry.seal()
    registry.order(victim.new)
    victim.refuses(Reason.METADATA_ROLLBACK)
    registry.roles[ROLE] = kept
    registry.seal()
    victim.new = registry.publish("detector", "1.1.1", example("1.1.0"))
    registry.order(victim.new)
    device.work(refresh=True)
    assert device.current().startswith("1.1.1-")


def test_a_freeze_ends_when_the_metadata_expires(victim: Victim) -> None:
    registry = victim.registry
    now, registry.now = registry.now, registry.now - timedelta(days=4)
    registry.seal()
    registry.now = now
    registry.order(victim.new)
    victim.refuses(Reason.METADATA_EXPIRED)
    registry.seal()
    victim.recovers()


def test_a_frozen_directive_expires(victim: Victim) -> None:
    registry = victim.registry
    now, registry.now = registry.now, registry.now - timedelta(days=8)
    registry.order(victim.new)
    registry.now = now
    victim.refuses(Reason.DIRECTIVE_EXPIRED)
    victim.recovers()


def view_at(victim: Victim, now: datetime) -> TrustedView:
    """Refresh as the agent does, with another clock."""
    channel = Channel(victim.registry.url, gap_s=2)
    fetcher, root = Fetcher(channel, deadline_s=5), victim.registry.root
    try:
        return TrustedMetadata.refresh(victim.device.layout.tuf, root, fetcher, now=now)
    finally:
        channel.close()


@pytest.mark.parametrize("clock", ["stuck", "at 1970"])
def test_a_clock_that_stands_or_falls_keeps_nothing_alive(victim: Victim, clock: str) -> None:
    """Expired is what ended before the newest moment that anyone trusted has signed."""
    registry, began = victim.registry, victim.registry.now
    now = began if clock == "stuck" else NINETEEN_SEVENTY
    registry.order(victim.new)
    old_directive = registry.directive
    # ten days on, as the registry's own signatures prove
    registry.now = began + timedelta(days=10)
    registry.seal()
    view = view_at(victim, now)
    assert view.time_floor == registry.now
    with pytest.raises(RefusedError) as no:
        verify(
            old_directive,
            view=view,
            fleet="acme",
            device="cam-1",
            now=now,
            memory=victim.device.state.memory,
            facts={"runtime.onnxruntime": "1.30"},
            allow_unsafe=False,
            fetch_manifest=lambda entry: b"",
        )
    assert no.value.reason is Reason.DIRECTIVE_EXPIRED
    # and a timestamp of five days ago, numbered as if it were newer, is an expired one
    registry.now = began + timedelta(days=5)
    registry.seal()
    with pytest.raises(RefusedError) as no:
        view_at(victim, now)
    assert no.value.reason is Reason.METADATA_EXPIRED


def test_a_fresh_device_at_1970_takes_nothing_from_before_its_own_build(victim: Victim) -> None:
    registry = victim.registry
    shutil.rmtree(victim.device.layout.tuf)
    (victim.device.layout.tuf.parent / "trust" / "tuf.json").unlink()
    registry.now = datetime(2025, 6, 1, tzinfo=timezone.utc)
    registry.seal()
    with pytest.raises(RefusedError) as no:
        view_at(victim, NINETEEN_SEVENTY)
    assert no.value.reason is Reason.METADATA_EXPIRED


@pytest.mark.parametrize("role", ["snapshot", ROLE])
def test_documents_of_two_moments_do_not_mix(victim: Victim, role: str) -> None:
    registry = victim.registry
    before = registry.files[path_of(registry, role)]
    registry.publish("detector", "1.3.0", example("1.3.0"))
    path = path_of(registry, role)
    honest, registry.files[path] = registry.files[path], before
    registry.order(victim.new)
    victim.refuses(Reason.METADATA_MISMATCH)
    registry.files[path] = honest
    victim.recovers()


def test_a_directive_may_demand_newer_metadata_than_it_is_given(victim: Victim) -> None:
    registry = victim.registry
    registry.order(victim.new)
    entries = (victim.new,)
    registry.directive = registry.sign_directive(entries, min_snapshot=99)
    victim.refuses(Reason.SNAPSHOT_TOO_OLD)
    victim.recovers()


def endless(body: bytes = b"{" * (9 << 20)) -> Reply:
    return Reply(200, body, cut=len(body), declared=-1)


@pytest.mark.parametrize("role", ["timestamp", "snapshot", ROLE])
def test_endless_metadata_is_cut_off(victim: Victim, role: str) -> None:
    registry = victim.registry
    registry.publish("detector", "1.3.0", example("1.3.0"))
    path = "/tuf/metadata/timestamp.json" if role == "timestamp" else path_of(registry, role)
    registry.bend = lambda asked, reply: endless() if asked == path else reply
    registry.order(victim.new)
    victim.refuses(Reason.ENDLESS_DATA)
    victim.recovers()


@pytest.mark.parametrize(
    "slow",
    [
        Reply(200, b"{" * 40, stall=0.1, piece=1),  # never a gap, never an end
        Reply(200, b"{" * 40, stall=3.0, piece=20),
    ],
    ids=["drips", "stalls"],
)
def test_metadata_that_never_ends_arriving_has_a_deadline(victim: Victim, slow: Reply) -> None:
    victim.registry.bend = lambda path, reply: slow
    layout = victim.device.layout
    before = sorted(p.name for p in layout.tuf.iterdir())
    channel, root = Channel(victim.registry.url, gap_s=0.5), victim.registry.root
    with pytest.raises(RefusedError) as no:
        TrustedMetadata.refresh(layout.tuf, root, Fetcher(channel, deadline_s=1.0))
    channel.close()
    assert no.value.reason is Reason.SLOW_RETRIEVAL
    assert sorted(p.name for p in layout.tuf.iterdir()) == before
    victim.recovers()


def test_another_fleets_registry_is_a_stranger(victim: Victim) -> None:
    other = Registry()
    registry = victim.registry
    entry = other.publish("detector", "1.1.0", example("1.1.0"))
    for _ in range(5):  # so that its numbers are no rollback
        other.seal()
    other.order(entry)
    mine, registry.files = registry.files, other.files
    directive, registry.directive = registry.directive, other.directive
    victim.refuses(Reason.METADATA_UNSIGNED)
    registry.files, registry.directive = mine, directive
    other.stop()
    victim.recovers()


def test_fast_forward_is_undone_by_another_online_key(victim: Victim) -> None:
    registry, device = victim.registry, victim.device
    honest = registry.snapshot_version
    registry.snapshot_version = 1 << 40
    registry.seal()
    device.work(refresh=True)  # the key is the right one: nobody can tell yet
    registry.snapshot_version = honest
    registry.seal()
    registry.order(victim.new)
    victim.refuses(Reason.METADATA_ROLLBACK)
    root: Metadata = Metadata.from_bytes(registry.root)
    registry.signers["online"] = [CryptoSigner.generate_ed25519()]
    root = signing.next_version_of(root, now=registry.now, lifetime=timedelta(days=365))
    for role in ("snapshot", "timestamp"):
        signing.set_role_keys(root.signed, role, registry.holders()[role])
    signing.sign(root, registry.signers["root"][:2])
    registry.files["/tuf/metadata/2.root.json"] = signing.to_bytes(root)
    registry.seal()
    victim.recovers()


def test_odd_names_in_metadata_leave_no_file_anywhere(victim: Victim) -> None:
    registry, outside = victim.registry, victim.outside
    ends = registry.now + timedelta(days=3)
    registry.snapshot_version += 1
    version = registry.snapshot_version
    meta = {"targets.json": MetaFile(registry.targets.signed.version)}
    meta |= {f"{n}.json": MetaFile(md.signed.version) for n, md in registry.roles.items()}
    meta |= {n: MetaFile(1) for n in ("../../evil.json", "/tmp/evil.json", "a\x00b.json", "é.json")}
    documents = {
        f"{version}.snapshot.json": Metadata(Snapshot(version=version, expires=ends, meta=meta)),
        "timestamp.json": Metadata(
            Timestamp(version=version, expires=ends, snapshot_meta=MetaFile(version))
        ),
    }
    for name, md in documents.items():
        md.sign(registry.signers["online"][0])
        registry.files[f"/tuf/metadata/{name}"] = signing.to_bytes(md)
    victim.device.work(refresh=True)
    assert victim.outside == outside
    names_kept = {p.name for p in victim.device.layout.tuf.rglob("*")}
    assert not any("evil" in name for name in names_kept)


def test_the_director_named_for_another_fleet_directs_nobody(victim: Victim) -> None:
    registry = victim.registry
    public = registry.director.public_key()
    life = timedelta(days=365)
    registry.targets = signing.next_version_of(registry.targets, now=registry.now, lifetime=life)
    elsewhere = DirectorKeys("elsewhere", {dsse.keyid(public): public}, 1)
    signing.set_director(registry.targets.signed, elsewhere)
    signing.sign(registry.targets, registry.signers["targets"][:2])
    raw = signing.to_bytes(registry.targets)
    registry.files[path_of(registry, "targets")] = raw
    registry.seal()
    registry.order(victim.new)
    victim.refuses(Reason.WRONG_FLEET)
    assert registry.targets.signed.targets[names.DIRECTOR_PATH]
