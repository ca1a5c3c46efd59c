"""What groups are to run and may not be offered; policies, rollouts and what came of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from pilotwave_server.db import Base, BigId, JsonB, UtcDateTime


class BaselineRow(Base):
    """A version that a group was told to run. The one of the highest revision counts.

    The older ones stay as what to fall back on if the newest may no longer be offered; `ended_at`
    takes one out of that line: the operator went back behind it, or removed the baseline. Devices
    change it in one with the models of `together`, and get their variant by `choose`.
    """

    __tablename__ = "baselines"
    __table_args__ = (Index(None, "ended_at", "model"), Index(None, "group_id", "model"))

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    group_id: Mapped[int] = mapped_column(BigId, ForeignKey("groups.id", ondelete="CASCADE"))
    model: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(String(64))
    counter: Mapped[int] = mapped_column(BigInteger)
    revision: Mapped[int] = mapped_column(BigInteger)
    set_by: Mapped[str] = mapped_column(String(200))
    set_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    together: Mapped[list[str] | None] = mapped_column(JsonB)
    choose: Mapped[dict[str, Any] | None] = mapped_column(JsonB)


class VariantTrialRow(Base):
    """A device was asked to measure a variant for its class, and what it found, once it did.

    Rows of a class that the device has left stay: it measured what devices of that class are. Rows
    of no class (empty) are variants that failed on the device itself, which was not asked.
    """

    __tablename__ = "variant_trials"
    __table_args__ = (Index(None, "sha256"),)

    device_id: Mapped[int] = mapped_column(
        BigId, ForeignKey("devices.id", ondelete="CASCADE"), primary_key=True
    )
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    class_of: Mapped[str] = mapped_column(String(16), primary_key=True)
    variant: Mapped[str] = mapped_column(String(64), primary_key=True)
    asked_at: Mapped[datetime] = mapped_column(UtcDateTime)
    measured_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    p05_ms: Mapped[float | None]
    cpu_ms: Mapped[float | None]
    load_ms: Mapped[float | None]
    peak_mb: Mapped[float | None]
    energy_mj: Mapped[float | None]
    failed: Mapped[str | None] = mapped_column(String(64))


class RemovalRow(Base):
    """A model that was ordered off a group's devices, or off one device; gone once it is assigned
    there again."""

    __tablename__ = "removals"
    __table_args__ = (UniqueConstraint("group_id", "model"), UniqueConstraint("device_id", "model"))

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    model: Mapped[str] = mapped_column(String(64))
    group_id: Mapped[int | None] = mapped_column(
        BigInteger, ForeignKey("groups.id", ondelete="CASCADE")
    )
    device_id: Mapped[int | None] = mapped_column(
        BigInteger, ForeignKey("devices.id", ondelete="CASCADE")
    )
    set_by: Mapped[str] = mapped_column(String(200))
    set_at: Mapped[datetime] = mapped_column(UtcDateTime)


class QuarantineRow(Base):
    """A version that a group (null: the whole fleet) may not be offered, and why."""

    __tablename__ = "quarantines"
    __table_args__ = (UniqueConstraint("group_id", "model", "version"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    group_id: Mapped[int | None] = mapped_column(BigId, ForeignKey("groups.id", ondelete="CASCADE"))
    model: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(String(64))
    reason: Mapped[str] = mapped_column(String(512))
    set_by: Mapped[str] = mapped_column(String(200))
    set_at: Mapped[datetime] = mapped_column(UtcDateTime)


class PolicyRow(Base):
    """One version of a policy. It never changes: an edit adds the next version."""

    __tablename__ = "policies"
    __table_args__ = (UniqueConstraint("name", "version"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    version: Mapped[int]
    document: Mapped[dict[str, Any]] = mapped_column(JsonB)
    created_by: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class RolloutRow(Base):
    """A version on its way to a group.

    `document` is the policy's text as it was at the start. `generation` rises with each change of
    the row: whoever decides compares and sets it. `wave` is the open wave (-1: none yet);
    `threshold` bounds the positions (`waves.position`) that its percent and count waves have
    opened. `multiplier` and `offset` are the salt. `revision` is the fleet's at the last change of
    what it offers. `paused_by` names who paused it, `failure` is
    the verdict that ended it, `reason` the sentence for people. `traceparent` is the trace that it
    belongs to (`tracing`).
    """

    __tablename__ = "rollouts"
    __table_args__ = (
        CheckConstraint(
            "state IN ('draft', 'awaiting_approval', 'scheduled', 'running', 'paused', "
            "'rolling_back', 'rolled_back', 'completed', 'aborted')",
            name="state",
        ),
        Index(None, "state", "model"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    group_id: Mapped[int] = mapped_column(BigId, ForeignKey("groups.id"), index=True)
    model: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(String(64))
    counter: Mapped[int] = mapped_column(BigInteger)
    policy: Mapped[str] = mapped_column(String(64))
    policy_version: Mapped[int]
    document: Mapped[dict[str, Any]] = mapped_column(JsonB)
    multiplier: Mapped[int] = mapped_column(BigInteger)
    offset: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(String(20))
    generation: Mapped[int] = mapped_column(BigInteger, default=1)
    wave: Mapped[int] = mapped_column(default=-1)
    threshold: Mapped[int] = mapped_column(BigInteger, default=0)
    attempt: Mapped[int] = mapped_column(default=0)
    revision: Mapped[int] = mapped_column(BigInteger, default=0)
    description: Mapped[str] = mapped_column(String(512), default="")
    reason: Mapped[str | None] = mapped_column(String(1024))
    failure: Mapped[dict[str, Any] | None] = mapped_column(JsonB)
    created_by: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    approved_by: Mapped[str | None] = mapped_column(String(200))
    approved_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    paused_by: Mapped[str | None] = mapped_column(String(200))
    start_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    end_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    traceparent: Mapped[str | None] = mapped_column(String(55))


class RolloutWaveRow(Base):
    """A wave that was opened. `soaking_since` is when its devices' outcomes first sufficed."""

    __tablename__ = "rollout_waves"

    rollout_id: Mapped[int] = mapped_column(
        BigId, ForeignKey("rollouts.id", ondelete="CASCADE"), primary_key=True
    )
    wave: Mapped[int] = mapped_column(primary_key=True)
    threshold: Mapped[int] = mapped_column(BigInteger)
    opened_at: Mapped[datetime] = mapped_column(UtcDateTime)
    soaking_since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    closed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    verdict: Mapped[dict[str, Any] | None] = mapped_column(JsonB)


class RolloutDeviceRow(Base):
    """What came of a rollout on one device. There is no row before the device acts.

    `outcome`: leased (may take the version now), switched (in probation), healthy, failed,
    rolled_back, silent (said nothing in time after the switch), expired (a lease that it did not
    use), returned (taken back with the rollout, and well on what it runs now). `slices` are the
    labels and facts that the policy's gates look at. `came_from` is the version that it ran before,
    `left_at` when it was heard to run another again. A failure that it reports under a directive
    older than `counts_from` is one that it was asked to forget.
    """

    __tablename__ = "rollout_devices"
    __table_args__ = (Index(None, "rollout_id", "outcome", "changed_at"),)

    rollout_id: Mapped[int] = mapped_column(
        BigId, ForeignKey("rollouts.id", ondelete="CASCADE"), primary_key=True
    )
    device_id: Mapped[int] = mapped_column(
        BigId, ForeignKey("devices.id", ondelete="CASCADE"), primary_key=True, index=True
    )
    wave: Mapped[int]
    outcome: Mapped[str] = mapped_column(String(16))
    leased_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    switched_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    number: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[str | None] = mapped_column(String(64))
    detail: Mapped[str | None] = mapped_column(String(512))
    slices: Mapped[dict[str, Any]] = mapped_column(JsonB, default=dict)
    came_from: Mapped[str | None] = mapped_column(String(64))
    left_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    counts_from: Mapped[int] = mapped_column(BigInteger, default=0)


class RolloutSampleRow(Base):
    """One window of one device's live metric, as a gate sees it.

    `arm` is `new` or `old`. `value` is the figure itself (in the metric's own unit), `reference`
    the same device's figure on its version before, where there is one. `count` observations. It
    came `at`; by the device's own clock it ended at `ended_at` and is `seconds` long.
    """

    __tablename__ = "rollout_samples"
    __table_args__ = (Index(None, "rollout_id", "metric", "id"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    rollout_id: Mapped[int] = mapped_column(BigId, ForeignKey("rollouts.id", ondelete="CASCADE"))
    device_id: Mapped[int] = mapped_column(BigId, ForeignKey("devices.id", ondelete="CASCADE"))
    metric: Mapped[str] = mapped_column(String(80))
    arm: Mapped[str] = mapped_column(String(4))
    value: Mapped[float]
    reference: Mapped[float | None]
    count: Mapped[int] = mapped_column(BigInteger)
    slices: Mapped[dict[str, Any]] = mapped_column(JsonB, default=dict)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    seconds: Mapped[float | None]


class RolloutSketchRow(Base):
    """All observations of a live metric on one arm of a rollout, merged: for people and pages."""

    __tablename__ = "rollout_sketches"

    rollout_id: Mapped[int] = mapped_column(
        BigId, ForeignKey("rollouts.id", ondelete="CASCADE"), primary_key=True
    )
    arm: Mapped[str] = mapped_column(String(4), primary_key=True)
    metric: Mapped[str] = mapped_column(String(64), primary_key=True)
    sketch: Mapped[dict[str, Any]] = mapped_column(JsonB)


class DecisionRow(Base):
    """What the engine or an operator decided about a rollout, with the numbers and the sentence.

    `generation` is the rollout's before the decision: two engines cannot both decide from it.
    """

    __tablename__ = "rollout_decisions"
    __table_args__ = (UniqueConstraint("rollout_id", "generation"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    rollout_id: Mapped[int] = mapped_column(BigId, ForeignKey("rollouts.id", ondelete="CASCADE"))
    generation: Mapped[int] = mapped_column(BigInteger)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    actor: Mapped[str] = mapped_column(String(200))
    action: Mapped[str] = mapped_column(String(32))
    wave: Mapped[int]
    verdict: Mapped[str | None] = mapped_column(String(16))
    numbers: Mapped[dict[str, Any]] = mapped_column(JsonB, default=dict)
    sentence: Mapped[str] = mapped_column(String(1024))
