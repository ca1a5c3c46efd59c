"""Rollouts in a real database, without HTTP: devices, a group, and what operators do."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from pilotwave_server.db import Database, next_revision
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.groups.service import create_group
from pilotwave_server.groups.tables import GroupRow
from pilotwave_server.rollouts.assignments.load_device import look
from pilotwave_server.rollouts.assignments.load_snapshot import RememberedSnapshot, read_snapshot
from pilotwave_server.rollouts.assignments.resolve import resolve
from pilotwave_server.rollouts.assignments.snapshot import FleetSnapshot
from pilotwave_server.rollouts.operate.create import NewRollout, create_rollout
from pilotwave_server.rollouts.policies.policy import Pace, Policy, Wave
from pilotwave_server.rollouts.tables import RolloutRow
from tests.server.registry.registry import Registry

AUTHOR = "token/author"
OTHER = "token/other"
HALF_THEN_ALL = (Wave("half", percent=50), Wave("all", percent=100))


def policy(*waves: Wave, **given: Any) -> Policy:
    return Policy("test", waves or HALF_THEN_ALL, **given)


def paced(**limits: Any) -> Policy:
    """Everyone in one wave, at this pace."""
    return policy(Wave("all", percent=100), pace=Pace(**limits))


@dataclass
class World:
    """`cams` is the group of all devices; their names are cam-0 and so on."""

    registry: Registry
    remembered: RememberedSnapshot = field(default_factory=RememberedSnapshot)

    @property
    def db(self) -> Database:
        return self.registry.db

    def now(self) -> datetime:
        return self.registry.clock()

    def devices(self, count: int, **facts: Any) -> None:
        with self.db.write() as session:
            revision = next_revision(session)
            session.add_all(
                DeviceRow(
                    name=f"cam-{n}",
                    public_key=f"{n:064x}",
                    state="enrolled",
                    revision=revision,
                    labels={"line": "a" if n % 2 else "b"},
                    facts={"runtime.onnxruntime": "1.20", **facts},
                    created_at=self.now(),
                )
                for n in range(count)
            )

    def group(self, name: str = "cams", selector: str | None = "*") -> None:
        told = {"selector": selector, "description": ""}
        with self.db.write() as session:
            create_group(session, name=name, **told, actor=AUTHOR, now=self.now())

    def snapshot(self, session: Session) -> FleetSnapshot:
        return read_snapshot(session, self.remembered)

    def create(self, recipe: Policy | None = None, **given: Any) -> str:
        """A rollout of 1.1.0 to `cams`, running unless told otherwise; its name."""
        values = {"group": "cams", "model": "detector", "version": "1.1.0", "start": True, **given}
        wish = NewRollout(policy=recipe or policy(), **values)
        with self.db.write() as session:
            snapshot = self.snapshot(session)
            row = create_rollout(session, snapshot, wish, actor=AUTHOR, now=self.now())
            return f"r{row.id}"

    def do(self, step: Any, name: str, *, actor: str = AUTHOR, **given: Any) -> Any:
        """Take one of `operating`'s steps."""
        with self.db.write() as session:
            before = [self.snapshot(session)] if step.__name__ in WITH_SNAPSHOT else []
            how = {"reason": "", "actor": actor, "now": self.now(), **given}
            return step(session, *before, name=name, **how)

    def row(self, name: str) -> RolloutRow:
        with self.db.read() as session:
            return session.get_one(RolloutRow, int(name[1:]))

    def runs(self, device: str) -> str | None:
        """The version that the device is to run."""
        with self.db.read() as session:
            snapshot = self.snapshot(session)
            entries = resolve(look(session, snapshot, device).view, snapshot).entries
        return entries[0].version if entries else None

    def told(self, version: str) -> set[int]:
        """The numbers of the devices that are to run that version."""
        with self.db.read() as session:
            names = [d.name for d in session.query(DeviceRow)]
        return {int(name[4:]) for name in names if self.runs(name) == version}

    def the_group(self, session: Session) -> GroupRow:
        return session.query(GroupRow).filter_by(name="cams").one()


WITH_SNAPSHOT = {"approve", "start", "resume"}
