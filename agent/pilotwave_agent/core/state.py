"""What the device knows about itself: a value that `records` builds from the journal.

Everything is frozen; a change is a journal record. What should happen next is `machine`'s to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, TypeVar

from pilotwave_protocol.antirollback import AntiRollback, Ordered
from pilotwave_protocol.fields import format_time, parse_time
from pilotwave_protocol.messages.check_in import DeviceEvent, Installed
from pilotwave_protocol.states import ModelState, Reason

MAX_FAILURES = 32
_SHADOWING = "shadowing"
T = TypeVar("T")


@dataclass(frozen=True)
class Order:
    """One entry of the accepted directive: what a model should run."""

    model: str
    version: str
    sha256: str
    length: int
    counter: int
    variant: str
    reason: str = ""
    rollout: str | None = None
    attempt: int = 0
    conditions: Mapping[str, Any] = field(default_factory=dict)

    @property
    def wanted(self) -> Installed:
        """The version as it will be once installed."""
        return Installed(self.version, self.sha256, self.variant, self.counter)


@dataclass(frozen=True)
class Failure:
    """A version that did not work here; it is not tried again until `attempt` rises."""

    sha256: str
    variant: str
    attempt: int
    reason: str


@dataclass(frozen=True)
class Probation:
    """A probation: when it began (seconds of uptime, in which boot) and how it goes; `restarts` is
    how often systemd had restarted the served unit before.

    Only uninterrupted time of one boot counts, so no clock can end a probation early.
    """

    boot: str
    started: float
    failures: int = 0
    boots: int = 1
    restarts: int = 0


@dataclass(frozen=True)
class Telling:
    """The application is being told of the candidate: since when (seconds of uptime, in which
    boot), how long it may take, and whether it knows (`told`) or has yet to hear. What it said
    before `begun` is not about this try."""

    boot: str
    since: float
    within_s: float
    told: bool = False
    boots: int = 1
    begun: float = 0.0


@dataclass(frozen=True)
class Numbered:
    """The number that a version has with serving layers. A number is never given twice."""

    sha256: str
    variant: str
    number: int


@dataclass(frozen=True)
class Measured:
    """A comparison of variants (`core.compare`): of which manifest, for which class, how often it
    was begun, and whether it is over."""

    sha256: str
    of: str
    tries: int = 0
    done: bool = False


@dataclass(frozen=True)
class ModelSlot:
    """One model here. `since` is when its state began (epoch seconds of the device's clock).

    `candidate` is the version on its way, or the one that failed. `attempt` belongs to the
    candidate until the switch and to `current` after it.
    """

    model: str
    state: ModelState = ModelState.IDLE
    current: Installed | None = None
    previous: Installed | None = None
    last_healthy: Installed | None = None
    older: Installed | None = None  # behind `previous`, until `current` has proved itself
    candidate: Installed | None = None
    attempt: int = 0
    reason: str | None = None
    detail: str | None = None
    since: float = 0.0
    watch: Probation | None = None
    damaged: bool = False  # what `current` names is no longer what was verified
    failures: tuple[Failure, ...] = ()
    telling: Telling | None = None
    numbers: tuple[Numbered, ...] = ()  # rising; the last is the highest ever given
    tested: Installed | None = None  # the candidate, once it has passed its test and yet waits

    def number_of(self, version: Installed) -> int:
        """Return the number that a version has with serving layers; 0 if it never got one."""
        same = [
            n.number
            for n in self.numbers
            if (n.sha256, n.variant) == (version.sha256, version.variant)
        ]
        return max(same, default=0)

    def numbered(self, version: Installed, at: float) -> tuple[Numbered, ...]:
        """Return the numbers with a new one for `version`: the moment `at` in epoch seconds, or one
        more than the last, whichever is greater, so that even a lost journal repeats none."""
        last = max((n.number for n in self.numbers), default=0)
        named = (self.current, self.previous, self.last_healthy)
        of_use = {(v.sha256, v.variant) for v in named if v}
        mine = (version.sha256, version.variant)
        kept = [n for n in self.numbers if (n.sha256, n.variant) in of_use - {mine}]
        return (*kept, Numbered(*mine, max(last + 1, int(at))))

    def failed_here(self, version: Installed, attempt: int) -> Failure | None:
        """Return the failure that forbids trying `version` again at this `attempt`: any other
        number is another wish, as a restored server counts from lower ones."""
        for failure in self.failures:
            same = (failure.sha256, failure.variant) == (version.sha256, version.variant)
            if same and attempt == failure.attempt:
                return failure
        return None


@dataclass(frozen=True)
class Refusal:
    """The last directive that was refused, as check-ins report it."""

    reason: str
    detail: str


@dataclass(frozen=True)
class DeviceState:
    """All that the journal says.

    `orders` is the set of the accepted directive, `judged` the digest of the last directive's bytes
    that was accepted or refused, `events` the spool of what the server has not acknowledged.
    `remove` are the models that the directive orders off the device, `leaving` those that are off
    it while their files are not yet.
    `numbering` is the random name under which this journal counts its events; empty: none yet.
    """

    models: Mapping[str, ModelSlot] = field(default_factory=dict)
    orders: Mapping[str, Order] = field(default_factory=dict)
    orders_expire: float = 0.0
    memory: AntiRollback = field(default_factory=AntiRollback)
    judged: str = ""
    refusal: Refusal | None = None
    tuf: Mapping[str, int] = field(default_factory=dict)
    events: tuple[DeviceEvent, ...] = ()
    next_event: int = 1
    acked: int = 0
    dropped: int = 0
    remove: frozenset[str] = frozenset()
    leaving: frozenset[str] = frozenset()
    numbering: str = ""
    measured: Mapping[str, Measured] = field(default_factory=dict)  # by model, the last of each

    def slot(self, model: str) -> ModelSlot:
        """Return a model's slot; one that is new to the device is idle."""
        return self.models.get(model) or ModelSlot(model)


def to_plain(state: DeviceState) -> dict[str, Any]:
    """Write a state as JSON values."""
    return {
        "models": {n: {**plain_slot(s), **plain_state(s.state)} for n, s in state.models.items()},
        "orders": [asdict(order) for order in state.orders.values()],
        "orders_expire": state.orders_expire,
        "memory": plain_memory(state.memory),
        "judged": state.judged,
        "refusal": asdict(state.refusal) if state.refusal else None,
        "tuf": dict(state.tuf),
        "events": [{**vars(e), "at": format_time(e.at)} for e in state.events],
        "next_event": state.next_event,
        "acked": state.acked,
        "dropped": state.dropped,
        "remove": sorted(state.remove),
        "leaving": sorted(state.leaving),
        "numbering": state.numbering,
        "measured": {model: asdict(found) for model, found in state.measured.items()},
    }


def made(kind: type[T], plain: Mapping[str, Any]) -> T:
    """Make a value of what the journal says. What a later agent added is passed over: an agent that
    was replaced and comes back reads what its successor wrote."""
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]  # each kind is a dataclass
    return kind(**{key: value for key, value in plain.items() if key in known})


def from_plain(plain: Mapping[str, Any]) -> DeviceState:
    """Read what `to_plain` wrote; the journal's checksums have vouched for it."""
    return DeviceState(
        models={name: read_slot(slot) for name, slot in plain["models"].items()},
        orders={o["model"]: made(Order, o) for o in plain["orders"]},
        orders_expire=plain["orders_expire"],
        memory=read_memory(plain["memory"]),
        judged=plain["judged"],
        refusal=made(Refusal, plain["refusal"]) if plain["refusal"] else None,
        tuf=plain["tuf"],
        events=tuple(made(DeviceEvent, {**e, "at": parse_time(e["at"])}) for e in plain["events"]),
        next_event=plain["next_event"],
        acked=plain["acked"],
        dropped=plain["dropped"],
        remove=frozenset(plain.get("remove", ())),
        leaving=frozenset(plain.get("leaving", ())),
        numbering=plain.get("numbering", ""),
        measured={m: made(Measured, found) for m, found in plain.get("measured", {}).items()},
    )


def plain_memory(memory: AntiRollback) -> dict[str, Any]:
    """Write what the device never forgets."""
    return {
        "directive_seq": memory.directive_seq,
        "set_digest": memory.set_digest,
        "floors": dict(memory.floors),
        "yanked": sorted(memory.yanked),
        "time_floor": None,  # for agents of before 2026-11-29, which kept a second one here
        "yanks": {model: sorted(digests) for model, digests in memory.yanks.items()},
        "epochs": dict(memory.epochs),
        "ordered": {key: [last.seq, last.set_digest] for key, last in memory.ordered.items()},
    }


def read_memory(plain: Mapping[str, Any]) -> AntiRollback:
    """Read what `plain_memory` wrote."""
    return AntiRollback(
        directive_seq=plain["directive_seq"],
        set_digest=plain["set_digest"],
        floors=plain["floors"],
        yanked=frozenset(plain["yanked"]),
        # an agent of before 2026-11-29 kept yanks without their models, and knew no resets
        yanks={model: frozenset(found) for model, found in plain.get("yanks", {}).items()},
        epochs=plain.get("epochs", {}),
        ordered={key: Ordered(*last) for key, last in plain.get("ordered", {}).items()},
    )


def plain_slot(slot: ModelSlot) -> dict[str, Any]:
    """Write a slot as JSON values."""
    return {**asdict(slot), "state": str(slot.state)}


def read_slot(plain: Mapping[str, Any]) -> ModelSlot:
    """Read a slot of the journal."""
    slot = made(ModelSlot, {key: read_field(key, value) for key, value in plain.items()})
    return replace(slot, state=read_state(plain, "state"))


def plain_state(state: ModelState, key: str = "state") -> dict[str, Any]:
    """Write a state for the journal, so that an agent of before shadows can read it: to that one a
    candidate in shadow is being tested, and waits, as it does not know the order's condition."""
    if state is ModelState.SHADOWING:
        return {key: str(ModelState.TESTING), _SHADOWING: True}
    return {key: str(state)}


def read_state(plain: Mapping[str, Any], key: str) -> ModelState:
    """Read what `plain_state` wrote."""
    return ModelState.SHADOWING if plain.get(_SHADOWING) else ModelState(plain[key])


def read_field(key: str, value: Any) -> Any:
    """Read one field of a slot from its JSON value."""
    if value is None:
        return None
    if key in ("current", "previous", "last_healthy", "older", "candidate", "tested"):
        return made(Installed, value)
    if key == "watch":
        return made(Probation, value)
    if key == "telling":
        return made(Telling, value)
    if key == "numbers":
        return tuple(made(Numbered, n) for n in value)
    if key == "failures":
        return tuple(made(Failure, f) for f in value)
    return ModelState(value) if key == "state" else value


def words_of(reason: Reason | None) -> str | None:
    """Return a reason as the journal keeps it."""
    return None if reason is None else str(reason)
