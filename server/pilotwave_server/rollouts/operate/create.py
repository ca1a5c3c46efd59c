"""Create a rollout, or say why it would come to nothing.

What is looked at does not grow with the fleet where all is well: one device that fits is enough.
Only when none turns up among the first is the whole group counted, for the sentence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from sqlalchemy import ColumnElement, false, select
from sqlalchemy.orm import Session

from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.errors import Conflict, Invalid
from pilotwave_server.groups.service import count_devices, get_group, in_group
from pilotwave_server.groups.tables import GroupRow
from pilotwave_server.hosts.heartbeat import check_hosts_know
from pilotwave_server.hosts.living import SHADOW_WAVES
from pilotwave_server.registry.service import Released
from pilotwave_server.rollouts import end_removals
from pilotwave_server.rollouts.assignments import capacity
from pilotwave_server.rollouts.assignments.fitting import count_fitting
from pilotwave_server.rollouts.assignments.offerable import check_may_be_offered
from pilotwave_server.rollouts.assignments.resolve import choose_variant
from pilotwave_server.rollouts.assignments.snapshot import DeviceView, FleetSnapshot
from pilotwave_server.rollouts.gates.alpha import counted
from pilotwave_server.rollouts.leases import may_be_missing
from pilotwave_server.rollouts.operate.queries import rolled_back
from pilotwave_server.rollouts.policies.policy import Canary, Policy, Wave
from pilotwave_server.rollouts.policies.stored import store_policy
from pilotwave_server.rollouts.states import OVER, RolloutState
from pilotwave_server.rollouts.tables import RolloutRow
from pilotwave_server.rollouts.transitions import name_of, note_created, transition
from pilotwave_server.rollouts.waves import Salt, draw_salt
from pilotwave_server.selector import compile_sql, parse

FIRST_LOOK = 500
_OVER = [str(state) for state in OVER]


class NobodyThere(Conflict):
    """The group, or a canary wave, has no enrolled device. `allow_empty` goes on regardless."""

    code: ClassVar[str] = "nobody_there"


class NoVariantFits(Conflict):
    """Not one of the group's devices can run any variant of the version."""

    code: ClassVar[str] = "no_variant_fits"


class RolloutInTheWay(Conflict):
    """Another rollout of the model to the group is not over. `rollout` names it."""

    code: ClassVar[str] = "rollout_in_the_way"


class CanaryGroupUnknown(Conflict):
    """The policy's canary wave is a group that there is not."""

    code: ClassVar[str] = "canary_group_unknown"


class BadTimes(Invalid):
    code: ClassVar[str] = "bad_times"


@dataclass(frozen=True)
class NewRollout:
    """What an operator wants to roll out. `start`: at once, where nothing else has to come first.

    `policy` is complete; `policy_version` is 0 for one that was handed in with the wish.
    """

    group: str
    model: str
    version: str
    policy: Policy
    policy_version: int = 0
    description: str = ""
    start_at: datetime | None = None
    end_at: datetime | None = None
    start: bool = False
    allow_empty: bool = False
    salt: Salt | None = None


def create_rollout(
    session: Session, snapshot: FleetSnapshot, wish: NewRollout, *, actor: str, now: datetime
) -> RolloutRow:
    """Add a rollout. It begins as a draft, waiting for approval, scheduled or running.

    GroupUnknown, ModelUnknown, VersionUnknown, VersionNotOffered, CanaryGroupUnknown, NobodyThere,
    NoVariantFits, TooManyModels, RolloutInTheWay, OlderHost, BadTimes.
    """
    group = check_wish(session, snapshot, wish, now=now, lock=True)
    salt = wish.salt or draw_salt()
    state = first_state(wish, now=now)
    row = RolloutRow(
        group_id=group.id,
        model=wish.model,
        version=wish.version,
        counter=snapshot.versions[wish.model, wish.version].counter,
        policy=wish.policy.name,
        policy_version=wish.policy_version,
        document=store_policy(wish.policy),
        multiplier=salt.multiplier,
        offset=salt.offset,
        state=str(RolloutState.DRAFT if state is RolloutState.RUNNING else state),
        description=wish.description,
        reason=f"created under the policy {wish.policy.name} by {actor}",
        created_by=actor,
        created_at=now,
        start_at=wish.start_at,
        end_at=wish.end_at,
    )
    session.add(row)
    session.flush()
    end_removals.end_for_group(session, group.id, wish.model)
    note_created(session, row, actor=actor, now=now)
    if state is RolloutState.RUNNING:
        sentence = f"started by {actor}"
        transition(session, row, state, action="start", actor=actor, now=now, sentence=sentence)
    return row


def first_state(wish: NewRollout, *, now: datetime) -> RolloutState:
    """Return what a new rollout begins as; one that is to run starts by a step of its own."""
    if wish.policy.approval:
        return RolloutState.AWAITING_APPROVAL
    if wish.start_at is not None and wish.start_at > now:
        return RolloutState.SCHEDULED
    return RolloutState.RUNNING if wish.start else RolloutState.DRAFT


def check_wish(
    session: Session,
    snapshot: FleetSnapshot,
    wish: NewRollout,
    *,
    now: datetime,
    lock: bool = False,
) -> GroupRow:
    """Return the group if the rollout may be created, or raise as `create_rollout` does."""
    _check_times(wish, now)
    group = get_group(session, wish.group, lock=lock)
    anyone_in_it = DeviceView(name="", groups=frozenset({group.id}))
    named = {"model": wish.model, "version": wish.version}
    check_may_be_offered(session, snapshot, anyone_in_it, **named)
    check_way_is_free(session, group, wish.model)
    check_servers_know(session, wish.policy)
    _check_fits(session, group, snapshot.versions[wish.model, wish.version], wish.allow_empty)
    capacity.check_group(session, snapshot, group, wish.model)
    for index, wave in enumerate(wish.policy.waves):
        _check_canary(session, group, wave, index, allow_empty=wish.allow_empty)
    return group


def _check_times(wish: NewRollout, now: datetime) -> None:
    if wish.end_at is not None and wish.end_at <= max(now, wish.start_at or now):
        raise BadTimes("expected `end_at` after `start_at` and in the future")


def check_way_is_free(
    session: Session, group: GroupRow, model: str, *, but: int | None = None
) -> None:
    """RolloutInTheWay if a rollout of the model to the group, other than `but`, is not over."""
    r = RolloutRow
    query = select(r).where(r.group_id == group.id, r.model == model, r.state.not_in(_OVER))
    other = session.scalars(query.where(r.id != but).order_by(r.id).limit(1)).one_or_none()
    if other is not None:
        state = other.state.replace("_", " ")
        raise RolloutInTheWay(
            f"{name_of(other)} ({other.model} {other.version} to {group.name}) is {state}: "
            f"wait until it is over, or stop it: `pilotwave rollouts abort {name_of(other)}`",
            rollout=name_of(other),
        )


def check_servers_know(session: Session, policy: Policy) -> None:
    """OlderHost if a server process at work is of a release that does not know what the policy
    says."""
    if policy.first_switching:
        check_hosts_know(session, SHADOW_WAVES)


def _check_fits(session: Session, group: GroupRow, version: Released, allow_empty: bool) -> None:
    d = DeviceRow
    enrolled = select(d.facts).where(d.state == "enrolled", in_group(session, group))
    anyone = False
    for facts in session.scalars(enrolled.limit(FIRST_LOOK)):
        anyone = True
        if choose_variant(DeviceView(name="", facts=facts), version)[0] is not None:
            return
    if not anyone:
        if not allow_empty:
            raise NobodyThere(empty_group(group))
        return
    fitting = count_fitting(session, group, version)
    if not fitting.fits:
        held = ", ".join(f"{count} {reason}" for reason, count in sorted(fitting.holds.items()))
        raise NoVariantFits(
            f"no variant of {version.model} {version.version} fits any of the "
            f"{fitting.devices} devices of {group.name}: {held}",
            holds=fitting.holds,
        )


def empty_group(group: GroupRow) -> str:
    """Say why nobody is in it."""
    if group.selector is None:
        return f"the group {group.name} is an empty list: add devices to it first"
    return (
        f"the group {group.name} has no enrolled device: its selector `{group.selector}` "
        "matches none (labels are written `site=berlin`, devices' own facts `fact.arch=aarch64`)"
    )


def _check_canary(
    session: Session, group: GroupRow, wave: Wave, index: int, *, allow_empty: bool
) -> None:
    if wave.canary is None:
        return
    d = DeviceRow
    theirs = in_canary(session, wave.canary)
    query = select(d.id).where(d.state == "enrolled", in_group(session, group), theirs).limit(1)
    if session.scalar(query) is None and not allow_empty:
        raise NobodyThere(
            f"wave {index + 1} ({wave.name}) takes none of the enrolled devices of {group.name}: "
            f"{_canary_words(wave.canary)}",
            wave=index,
        )


def _canary_words(canary: Canary) -> str:
    if canary.selector is not None:
        return f"its selector `{canary.selector}` matches none of them"
    if canary.group is not None:
        return f"none is in the group {canary.group}"
    return f"none is named {' or '.join(canary.devices)}"


def in_canary(session: Session, canary: Canary) -> ColumnElement[bool]:
    """The WHERE expression over devices that holds for a canary wave's. CanaryGroupUnknown."""
    if canary.selector is not None:
        dialect = session.get_bind().dialect.name
        parsed = parse(canary.selector)
        return compile_sql(parsed, DeviceRow.labels, DeviceRow.facts, dialect=dialect)
    if canary.group is not None:
        named = select(GroupRow).where(GroupRow.name == canary.group)
        group = session.scalars(named).one_or_none()
        if group is None:
            raise CanaryGroupUnknown(f"there is no group {canary.group} for the canary wave")
        return in_group(session, group)
    return DeviceRow.name.in_(canary.devices) if canary.devices else false()


def warnings(
    session: Session, group: GroupRow, policy: Policy, *, model: str, version: str
) -> Iterator[str]:
    """Say what a person may not expect of the rollout, though it may begin. It counts the group."""
    for back in rolled_back(session, model).get(version, []):
        yield f"{model} {version} was rolled back in {back.rollout} ({back.group}): {back.reason}"
    pace = policy.pace
    if pace.min_available:
        size = count_devices(session, group)
        if (1 - pace.min_available) * size < may_be_missing(pace, size) - 1e-9:
            yield (
                f"min_available {pace.min_available:.0%} lets none of the "
                f"{counted(size, 'device', 'devices')} in {group.name} update. The rollout "
                "updates one at a time instead, and stops while one has failed"
            )
