"""What a device says of a round: signed by it, and of an open round whose open waves take it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import ClassVar, Protocol, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from pilotwave_protocol import dsse
from pilotwave_protocol.errors import ProtocolError
from pilotwave_server.db import fleet_row
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.envelopes import is_signed_by
from pilotwave_server.errors import Conflict, Invalid
from pilotwave_server.groups.service import groups_of
from pilotwave_server.learning.states import OPEN
from pilotwave_server.learning.tables import ExperimentRow, RoundRow
from pilotwave_server.learning.waves import is_in_wave


class Statement(Protocol):
    """What an update and the like have in common."""

    @property
    def fleet(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def plan(self) -> str: ...
    @property
    def round(self) -> int: ...


S = TypeVar("S", bound=Statement)


class BadUpdate(Invalid):
    """Not a statement of this device's."""

    code: ClassVar[str] = "bad_update"


class RoundOver(Conflict):
    """Nobody waits for this: the round is over, of another group, or of a later wave."""

    code: ClassVar[str] = "round_over"


def read_signed(
    session: Session,
    envelope: bytes,
    row: DeviceRow,
    *,
    kind: str,
    max_bytes: int,
    parse: Callable[[bytes], S],
) -> S:
    """Return what the device signed. BadUpdate."""
    try:
        claimed = dsse.peek_unverified(envelope, payload_type=kind, max_bytes=2 * max_bytes)
        public = bytes.fromhex(row.public_key)
        if not is_signed_by(claimed, payload_type=kind, public=public):
            raise BadUpdate(f"expected an envelope signed by the key of {row.name}")
        said = parse(claimed.payload)
    except ProtocolError as error:
        raise BadUpdate(f"this is not what a device says of a round: {error}") from error
    fleet = fleet_row(session).fleet
    if (said.device, said.fleet) != (row.name, fleet):
        raise BadUpdate(
            f"expected the word of {row.name} in {fleet}; got {said.device} in {said.fleet}"
        )
    return said


def round_of(
    session: Session, said: Statement, row: DeviceRow, now: datetime
) -> tuple[RoundRow, ExperimentRow]:
    """The open round that it is about, held until the transaction ends. RoundOver."""
    r, e = RoundRow, ExperimentRow
    query = select(r, e).join(e, e.id == r.experiment_id).with_for_update(of=r)
    query = query.where(e.model == said.model, e.plan_sha256 == said.plan, r.number == said.round)
    found = session.execute(query.where(r.state == OPEN, r.ends_at > now)).tuples().first()
    if found is None:
        raise RoundOver(f"no round {said.round} of this plan of {said.model} is open")
    where, experiment = found
    if experiment.group_id not in {group.id for group in groups_of(session, row)}:
        raise RoundOver(
            f"experiment {experiment.id} is of the group {experiment.group}, which {row.name} is"
            " not in"
        )
    if not is_in_wave(experiment, row):
        raise RoundOver(f"no open wave of experiment {experiment.id} takes {row.name}")
    return where, experiment
