"""Who was asked to measure variants, and what of their answers is believed."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from pilotwave_protocol.figures import VariantFigures
from pilotwave_protocol.messages.check_in import Installed, ModelReport
from pilotwave_protocol.states import ModelState, Reason
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.rollouts.assignments.baselines import set_baseline
from pilotwave_server.rollouts.choice.store import Answer, Wish, ask, read_trials, take
from pilotwave_server.rollouts.choice.trial import ANSWER_WITHIN, asked_of, voices_of
from pilotwave_server.rollouts.outcomes import Stand, sign_of
from pilotwave_server.rollouts.policies.choose import Choose
from tests.server.rollouts.worlds_db import AUTHOR, World

SHA = "ab" * 32
OLD, NEW = "0123456789abcdef", "fedcba9876543210"
FOUND = VariantFigures(p05_ms=0.29, peak_mb=19.0)
FAILED = VariantFigures(failed="selftest_mismatch")


def device_id(session: Session, name: str) -> int:
    return session.scalars(select(DeviceRow.id).where(DeviceRow.name == name)).one()


def test_only_who_was_asked_is_believed_and_only_once(world: World) -> None:
    now = world.now()
    with world.db.write() as session:
        asked, other = (device_id(session, f"cam-{n}") for n in (0, 1))
        wish = Wish(asked, OLD, SHA, ("fp32", "int8"))
        ask(session, [wish], now=now)
        ask(session, [wish], now=now)  # another process asked at the same moment
        answers = [
            Answer(asked, OLD, SHA, "int8", FOUND),
            Answer(asked, OLD, SHA, "fp32", FAILED),
            # again, of another class, of a variant that was not asked for, of another device
            Answer(asked, OLD, SHA, "int8", VariantFigures(p05_ms=0.01)),
            Answer(asked, NEW, SHA, "int8", FOUND),
            Answer(asked, OLD, SHA, "tiny", FOUND),
            Answer(other, OLD, SHA, "int8", FOUND),
        ]
        assert take(session, answers, now=now)
        assert not take(session, answers, now=now)
    with world.db.read() as session:
        trials = read_trials(session, {SHA})
        assert read_trials(session, set()) == {}
    assert list(trials) == [(OLD, SHA)]
    (voice,) = voices_of(trials[OLD, SHA])
    assert voice.device == "cam-0"
    assert voice.found == {"int8": FOUND, "fp32": FAILED}


def test_who_does_not_answer_counts_for_an_hour(world: World) -> None:
    now = world.now()
    with world.db.write() as session:
        ask(session, [Wish(device_id(session, "cam-0"), OLD, SHA, ("fp32",))], now=now)
        trials = read_trials(session, {SHA})[OLD, SHA]
    soon, later = now + timedelta(minutes=59), now + ANSWER_WITHIN
    assert [a.device for a in asked_of(trials, soon)] == ["cam-0"]
    assert asked_of(trials, later) == []
    assert voices_of(trials) == []


def test_a_baseline_goes_on_choosing_as_the_rollout_did(world: World) -> None:
    given = {"group": "cams", "model": "detector", "version": "1.0.0", "actor": AUTHOR}
    choose = Choose("memory", {"top1": ">=0.9"}, 0.2)
    with world.db.write() as session:
        snapshot = world.snapshot(session)
        set_baseline(session, snapshot, **given, now=world.now(), choose=choose)  # type: ignore[arg-type]  # by name
    with world.db.read() as session:
        snapshot = world.snapshot(session)
        groups = frozenset({world.the_group(session).id})
    assert snapshot.chooses
    assert snapshot.choose_of(groups, "detector", "1.0.0") == choose
    assert snapshot.choose_of(groups, "detector", "1.1.0") is None
    assert snapshot.choose_of(frozenset(), "detector", "1.0.0") is None
    with world.db.write() as session:
        set_baseline(session, snapshot, **given, now=world.now())  # type: ignore[arg-type]  # by name
    with world.db.read() as session:
        assert not world.snapshot(session).chooses


def test_a_device_is_well_on_a_version_of_which_another_variant_failed(world: World) -> None:
    runs, tried = (Installed("1.1.0", SHA, name, 2) for name in ("fp32", "int8"))
    told = {"reason": str(Reason.SELFTEST_MISMATCH)}
    report = ModelReport("detector", ModelState.FAILED, current=runs, candidate=tried, **told)
    assert sign_of(report, [], "1.1.0", now=world.now()).stand is Stand.WELL
    same = ModelReport("detector", ModelState.FAILED, current=runs, candidate=runs, **told)
    assert sign_of(same, [], "1.1.0", now=world.now()).stand is Stand.FAILED
