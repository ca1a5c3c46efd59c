"""Numbers that a device keeps and that a stolen key used up: another key gives them back, without a
visit. Also numbers that nobody stole: a server's clock that once ran ahead."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Timestamp

from pilotwave_agent.check_in.build import check_in_of
from pilotwave_agent.core import records
from pilotwave_agent.core.state import DeviceState, plain_memory, read_memory
from pilotwave_agent.trust import memory as trust_memory
from pilotwave_agent.work import now_of
from pilotwave_protocol import dsse, signing
from pilotwave_protocol.antirollback import AntiRollback
from pilotwave_protocol.errors import BadTrustData
from pilotwave_protocol.fields import MAX_INT, format_time
from pilotwave_protocol.messages.check_in import parse_check_in
from pilotwave_protocol.states import ModelState, Reason
from pilotwave_protocol.trust import DirectorKeys
from tests.attacks.test_metadata import view_at
from tests.attacks.victim import Victim
from tests.peers.registry import FLEET, Registry, example

YEAR = timedelta(days=365)
FAR = datetime(9999, 12, 31, tzinfo=timezone.utc)
HUGE = 2**60


def list_directors(registry: Registry, *keys: Ed25519PrivateKey, ordered: bool = True) -> None:
    """Publish targets that list these director keys, the oldest first."""
    public = {dsse.keyid(k.public_key()): k.public_key() for k in keys}
    order = tuple(public) if ordered and len(public) > 1 else ()
    registry.targets = signing.next_version_of(registry.targets, now=registry.now, lifetime=YEAR)
    signing.set_director(registry.targets.signed, DirectorKeys(FLEET, public, 1, order))
    registry._keep_targets()
    registry.seal()


def rotate_online(registry: Registry) -> None:
    """Publish the next root, which lists another online key alone."""
    root: Metadata[Root] = Metadata.from_bytes(registry.root)
    registry.signers["online"] = [CryptoSigner.generate_ed25519()]
    root = signing.next_version_of(root, now=registry.now, lifetime=YEAR)
    for role in ("snapshot", "timestamp"):
        signing.set_role_keys(root.signed, role, registry.holders()[role])
    signing.sign(root, registry.signers["root"][:2])
    registry.files["/tuf/metadata/2.root.json"] = signing.to_bytes(root)
    registry.seal()


# --- seq belongs to the director key


def steal_seq(victim: Victim, **changes: Any) -> Ed25519PrivateKey:
    """Have the device follow an order with the highest seq there is; return the stolen key."""
    registry = victim.registry
    changes = {"expires": FAR, **changes}
    registry.directive = registry.sign_directive((victim.old,), seq=MAX_INT, **changes)
    victim.device.work(refresh=True)
    assert victim.device.state.memory.directive_seq == MAX_INT
    return registry.director


def test_a_seq_that_a_stolen_director_key_used_up_ends_with_that_key(victim: Victim) -> None:
    registry = victim.registry
    stolen = steal_seq(victim)
    registry.order(victim.new)
    victim.refuses(Reason.DIRECTIVE_REPLAYED)
    registry.director = Ed25519PrivateKey.generate()
    list_directors(registry, registry.director)
    registry.order(victim.new)
    victim.recovers()
    assert victim.device.state.memory.directive_seq == registry.seq
    registry.director = stolen
    registry.directive = registry.sign_directive((victim.old,), seq=MAX_INT)
    victim.refuses(Reason.WRONG_KEY)


def test_while_two_director_keys_are_listed_the_older_replays_nothing(victim: Victim) -> None:
    registry = victim.registry
    stolen = steal_seq(victim)
    registry.director = Ed25519PrivateKey.generate()
    list_directors(registry, stolen, registry.director)
    registry.order(victim.new)
    victim.recovers()
    fresh, registry.director = registry.director, stolen
    for seq in (1, registry.seq, MAX_INT):
        registry.directive = registry.sign_directive((victim.old,), seq=seq)
        victim.device.work(refresh=True)
        refusal = victim.device.state.refusal
        assert refusal is not None
        assert refusal.reason == Reason.DIRECTIVE_REPLAYED
        assert victim.device.current().startswith("1.1.0-")
    registry.director = fresh
    victim.recovers()


def test_a_fresh_device_is_not_led_back_by_the_older_of_two_listed_keys(victim: Victim) -> None:
    """The one that signed first here is not the older one: the targets role says which is."""
    registry, older = victim.registry, Ed25519PrivateKey.generate()
    list_directors(registry, older, registry.director)
    registry.order(victim.new)
    victim.recovers()
    registry.director = older
    registry.directive = registry.sign_directive((victim.old,), seq=MAX_INT)
    victim.refuses(Reason.DIRECTIVE_REPLAYED)


def test_keys_that_are_listed_without_an_order_share_their_numbers(victim: Victim) -> None:
    """As an older command line lists them: nothing may be replayed, so nothing starts anew."""
    registry, old = victim.registry, victim.registry.director
    registry.director = Ed25519PrivateKey.generate()
    list_directors(registry, old, registry.director, ordered=False)
    registry.seq = 40
    registry.order(victim.new)
    victim.recovers()
    registry.director = old
    registry.directive = registry.sign_directive((victim.old,), seq=2)
    victim.refuses(Reason.DIRECTIVE_REPLAYED)


def test_what_an_older_agent_kept_binds_the_keys_that_are_listed_then() -> None:
    keys = [Ed25519PrivateKey.generate().public_key() for _ in range(2)]
    listed = [DirectorKeys(FLEET, {dsse.keyid(k): k}, 1) for k in keys]
    plain = plain_memory(AntiRollback(5, "a" * 64))
    del plain["ordered"]
    known = read_memory(plain).under(listed[0])
    assert known.ordered[dsse.keyid(keys[0])].seq == 5
    assert known.directive_seq == 5
    gone = known.under(listed[1])
    assert (gone.directive_seq, gone.set_digest, gone.ordered) == (0, "", {})
    assert gone.under(listed[0]).ordered == {}
    for before, after in ((known, gone), (gone, known)):
        state = records.apply(DeviceState(), records.learned(before, {}, at=0.0))
        state = records.apply(state, records.learned(after, {}, at=0.0))
        assert state.memory.ordered == after.ordered
        assert records.apply(DeviceState(), records.snapshot(state)) == state


@pytest.mark.parametrize("order", [["0" * 64], [], "text", [1]])
def test_an_order_of_keys_names_each_listed_key_once(order: Any) -> None:
    keys = [Ed25519PrivateKey.generate().public_key() for _ in range(2)]
    public = {dsse.keyid(k): k for k in keys}
    custom = DirectorKeys(FLEET, public, 1, tuple(public)).to_custom()
    assert DirectorKeys.from_custom(custom).order == tuple(public)
    if order == []:
        assert DirectorKeys.from_custom({**custom, "order": order}).order == ()
        return
    with pytest.raises(BadTrustData, match="order"):
        DirectorKeys.from_custom({**custom, "order": order})


def test_an_attempt_that_a_stolen_director_key_used_up_blocks_no_later_wish(
    victim: Victim,
) -> None:
    """The version fails here under the highest attempt there is; a person asks for another try."""
    registry, device = victim.registry, victim.device
    files = {**example("1.2.0"), "model.onnx": b"no model"}
    broken = registry.publish("detector", "1.2.1", files)
    registry.order(broken, attempt=MAX_INT)
    device.work(refresh=True)
    assert device.slot().state is ModelState.FAILED, device.slot()
    first = device.slot().failures[-1].attempt
    registry.order(broken, attempt=1)
    device.work(refresh=True)
    assert (first, device.slot().failures[-1].attempt) == (MAX_INT, 1)
    before = device.state.next_event
    device.work(refresh=True)
    assert device.state.next_event == before, "a failed version was tried again by itself"


# --- what the online key signed


def forge(registry: Registry, *, version: int, expires: datetime, signed_at: datetime) -> None:
    """Sign a snapshot and a timestamp with the online key, as a thief would."""
    meta = {"targets.json": MetaFile(registry.targets.signed.version)}
    meta |= {f"{n}.json": MetaFile(md.signed.version) for n, md in registry.roles.items()}
    snapshot = Metadata(Snapshot(version=version, expires=expires, meta=meta))
    timestamp = Metadata(
        Timestamp(
            version=version,
            expires=expires,
            snapshot_meta=MetaFile(version),
            unrecognized_fields={"signed_at": format_time(signed_at)},
        )
    )
    for md in (snapshot, timestamp):
        md.sign(registry.signers["online"][0])
    registry.files[f"/tuf/metadata/{version}.snapshot.json"] = signing.to_bytes(snapshot)
    registry.files["/tuf/metadata/timestamp.json"] = signing.to_bytes(timestamp)


@pytest.mark.parametrize("version", [MAX_INT, HUGE, 10**40])
def test_whatever_the_online_key_signs_a_check_in_can_say_it(victim: Victim, version: int) -> None:
    registry, device = victim.registry, victim.device
    forge(registry, version=version, expires=FAR, signed_at=registry.now)
    device.work(refresh=True)
    state = device.state
    words: dict[str, Any] = {"facts": None, "progress": {}, "agent": "1"}
    for told in (state, replace(state, tuf={"timestamp": version})):
        report = check_in_of(told, fleet=FLEET, device="cam-1", seq=1, **words)
        assert parse_check_in(report.to_bytes()).tuf["timestamp"] == MAX_INT
    rotate_online(registry)
    victim.recovers()
    assert device.state.tuf["timestamp"] == registry.snapshot_version


@pytest.mark.parametrize("signed_at", [timedelta(days=100), FAR - timedelta(days=1)])
def test_a_date_far_away_under_the_online_key_ends_with_that_key(
    victim: Victim, signed_at: timedelta | datetime
) -> None:
    registry = victim.registry
    moment = registry.now + signed_at if isinstance(signed_at, timedelta) else signed_at
    forge(registry, version=HUGE, expires=FAR, signed_at=moment)
    done = victim.device.work(refresh=True)
    assert done.refresh_at is None or done.refresh_at < (registry.now + YEAR).timestamp()
    rotate_online(registry)
    victim.recovers()
    wall = now_of(victim.device.layout).wall
    assert wall < (registry.now + timedelta(days=1)).timestamp()


# --- a clock that ran ahead


@pytest.mark.parametrize("ahead", [timedelta(hours=5), timedelta(days=100), YEAR * 20])
@pytest.mark.parametrize("desk_too", [False, True])
def test_a_server_clock_that_ran_ahead_stops_nobody_once_it_is_put_right(
    victim: Victim, ahead: timedelta, desk_too: bool
) -> None:
    registry, right = victim.registry, victim.registry.now
    registry.now = right + ahead
    if desk_too:
        list_directors(registry, registry.director)
    registry.seal()
    registry.order(victim.old)
    victim.device.work(refresh=True)
    registry.now = right
    registry.seal()
    victim.recovers()
    assert now_of(victim.device.layout).wall < (right + timedelta(hours=1)).timestamp()


@pytest.mark.parametrize("clock", ["right", "at 1970", "stuck"])
def test_a_wrong_date_of_long_ago_binds_no_clock_at_all(victim: Victim, clock: str) -> None:
    registry, right = victim.registry, victim.registry.now
    stuck = right - timedelta(days=20)
    now = {"right": right, "stuck": stuck}.get(clock, datetime(1970, 1, 1, tzinfo=timezone.utc))
    registry.now = right + timedelta(days=100)
    registry.seal()
    assert view_at(victim, now).time_floor == registry.now
    registry.now = right
    registry.seal()
    assert view_at(victim, now).time_floor == right


def test_dates_of_a_stolen_director_key_move_no_floor(victim: Victim) -> None:
    registry = victim.registry
    floor = trust_memory.load(victim.device.layout.trust_memory).floor
    steal_seq(victim, issued=registry.now + timedelta(minutes=4))
    assert trust_memory.load(victim.device.layout.trust_memory).floor == floor
    assert now_of(victim.device.layout).wall < (registry.now + timedelta(hours=1)).timestamp()


def test_a_second_floor_of_an_older_agent_is_forgotten(victim: Victim) -> None:
    """It stood in the journal and in the memory of TUF, and nothing ever lowered it."""
    state, wrong = victim.device.state, format_time(victim.registry.now + timedelta(days=100))
    plain = {**plain_memory(state.memory), "time_floor": wrong}
    assert read_memory(plain) == state.memory
    path = victim.device.layout.trust_memory
    kept = path.read_bytes().replace(
        b'"floor_offline":null', b'"floor_offline":"%b"' % wrong.encode()
    )
    assert wrong.encode() in kept
    path.write_bytes(kept)
    victim.recovers()
