"""Make a version current, have the application take it, and go back where it does not."""

from __future__ import annotations

from pilotwave_agent import health, version_folder
from pilotwave_agent.core import outcomes
from pilotwave_agent.core.records import Record
from pilotwave_agent.core.state import ModelSlot
from pilotwave_agent.effects.base import TRANSIENT, EffectsBase, disk_says_no, rules_of
from pilotwave_agent.tell.base import Release, Teller
from pilotwave_agent.tell.choose import tellers_of
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.messages import Installed
from pilotwave_protocol.states import ModelState, Reason


class Switching(EffectsBase):
    """The effects that change what runs."""

    def _switch(self, slot: ModelSlot) -> None:
        version, _ = self._candidate(slot)
        if not version_folder.intact(self.disk, self.layout, slot.model, version, deep=False):
            self.relink(slot)
            self.record(outcomes.lost(slot, self.now()))
            return
        after = _previous_in(outcomes.switched(slot, self.now()))
        tellers = self._tellers(slot.model)
        if not tellers:
            with disk_says_no():
                self._point(slot.model, version, after)
            self._switched(slot, version)
            return
        within_s = max(teller.within_s for teller in tellers)
        try:
            slot = self._begin_to_tell(slot, within_s)
            release = self._release(slot, version, ModelState.PROBATION)
            with disk_says_no():
                for teller in tellers:
                    teller.stage(release)
                self._point(slot.model, version, after)
                for teller in tellers:
                    teller.activate(release)
        except RefusedError as no:
            if no.reason in TRANSIENT:
                raise
            self.record(outcomes.not_taken(slot, no, self.now()))
            return
        self.record(outcomes.told(slot, self.now(), within_s))

    def _begin_to_tell(self, slot: ModelSlot, within_s: float) -> ModelSlot:
        """Journal that this boot's try begins, so that a version that takes the machine down while
        it is loaded is counted, and taken back."""
        now, telling = self.now(), slot.telling
        if telling is None or telling.boot != now.boot:
            if telling and telling.boots >= rules_of(self.config).boots:
                words = f"the device restarted {telling.boots} times while it was to be taken"
                raise RefusedError(Reason.APP_REFUSED, words)
            self.record(outcomes.telling(slot, now, within_s))
        return self._slot(slot.model)

    def _switched(self, slot: ModelSlot, version: Installed) -> None:
        subject = self._subject(slot.model, version, ModelState.PROBATION)
        restarts = health.restarts(self.config.probe, subject)
        self.record(outcomes.switched(slot, self.now(), restarts))

    def _confirm(self, slot: ModelSlot, *, last: bool) -> None:
        version, _ = self._candidate(slot)
        now, telling = self.now(), slot.telling
        self.asked[slot.model] = now.uptime
        release = self._release(slot, version, ModelState.PROBATION)
        since = telling.begun if telling else now.uptime
        try:
            tellers = self._tellers(slot.model)
            if all(teller.confirm(release, since) for teller in tellers):
                self._switched(slot, version)
            elif last:
                within_s = telling.within_s if telling else 0.0
                words = f"no application said within {within_s:g} s that it took {version.version}"
                raise RefusedError(Reason.APP_SILENT, words)
        except RefusedError as no:
            self.record(outcomes.not_taken(slot, no, self.now()))

    def _restore(self, slot: ModelSlot, ways: tuple[Installed, ...]) -> None:
        for way in ways:
            if not version_folder.intact(self.disk, self.layout, slot.model, way, deep=True):
                continue
            with disk_says_no():
                self._point(slot.model, way, outcomes.behind(slot, way))
            note = self._tell_back(slot, way)
            subject = self._subject(slot.model, way, ModelState.ROLLED_BACK)
            restarts = health.restarts(self.config.probe, subject)
            self.record(outcomes.restored(slot, way, note, self.now(), restarts))
            return
        self.relink(slot)
        self.record(outcomes.nowhere_to_go(slot, self.now()))

    def _tell_back(self, slot: ModelSlot, way: Installed) -> str:
        """Tell the application that an earlier version is current again; what it minds, it says in
        a note: the links are right already, and nothing else is left to do."""
        good = self._release(slot, way, ModelState.ROLLED_BACK)
        notes = []
        for teller in reversed(self._tellers(slot.model)):
            try:
                bad = None
                if slot.current:
                    bad = self._release(slot, slot.current, ModelState.ROLLED_BACK)
                with disk_says_no():
                    teller.rollback(bad, good)
            except RefusedError as no:
                notes.append(f" (told so, {no.sentence})")
        return "".join(notes)

    def _tellers(self, model: str) -> list[Teller]:
        config = self.config
        return tellers_of(config.tell, model, self.disk, self.layout.live, config.app_users)

    def _release(self, slot: ModelSlot, version: Installed, state: ModelState) -> Release:
        build = version_folder.build_of(self.disk, self.layout, version)
        others = (slot.current, slot.previous, slot.last_healthy)
        return Release(
            slot.model,
            version.version,
            version.variant,
            slot.number_of(version),
            self.layout.version(slot.model, version),
            build.variant.entrypoint,
            str(state),
            tuple(slot.number_of(v) for v in others if v),
        )


def _previous_in(record: Record) -> Installed | None:
    found = record["set"]["previous"]
    return Installed(**found) if found else None
