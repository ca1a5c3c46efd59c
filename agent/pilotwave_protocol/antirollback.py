"""What a device never forgets about versions: the guard against being led back.

It stands alone so that the resident agent, which only keeps it, need not load what judges by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pilotwave_protocol.states import Reason

if TYPE_CHECKING:
    from pilotwave_protocol.trust import DirectorKeys, ModelPolicy, ModelReset

MAX_YANKS = 10_000
"""Digests that are remembered for one model; the floor stands for what a role no longer lists."""


@dataclass(frozen=True)
class Ordered:
    """The newest directive of one director key that was accepted: its number and its set."""

    seq: int
    set_digest: str


@dataclass(frozen=True)
class AntiRollback:
    """What a device never forgets, whatever a directive or a lost cache says. It only ever grows,
    but where the targets role resets a model.

    `floors` are the highest release counters below which a model may not go, `yanks` the digests
    of a model's manifests that may not run again, `epochs` the resets that were followed. `yanked`
    was learned by an older agent, which did not keep yanks by model: it counts for every model that
    was never reset.

    `ordered` is by director key: a key's numbers bind for as long as TUF lists that key, so that a
    stolen one cannot use them up for its successor. `directive_seq` and `set_digest` are the last
    accepted directive's; without `ordered`, an older agent kept them and did not say for which key.
    """

    directive_seq: int = 0
    set_digest: str = ""
    floors: Mapping[str, int] = field(default_factory=dict)
    yanked: frozenset[str] = frozenset()
    yanks: Mapping[str, frozenset[str]] = field(default_factory=dict)
    epochs: Mapping[str, int] = field(default_factory=dict)
    ordered: Mapping[str, Ordered] = field(default_factory=dict)

    def under(self, director: DirectorKeys) -> AntiRollback:
        """Return the memory under the director keys that TUF lists now: what belongs to others
        falls. What no key is known for is held against each of them."""
        if not self.ordered and self.set_digest:
            kept = {key: Ordered(self.directive_seq, self.set_digest) for key in director.keys}
            return replace(self, ordered=kept)
        kept = {key: last for key, last in self.ordered.items() if key in director.keys}
        if kept == self.ordered:
            return self
        last = Ordered(self.directive_seq, self.set_digest)
        last = last if last in kept.values() else Ordered(0, "")
        return replace(self, ordered=kept, directive_seq=last.seq, set_digest=last.set_digest)

    def accepted(self, key: str, seq: int, set_digest: str) -> AntiRollback:
        """Return the memory with a directive of this director key as the last accepted one."""
        ordered = {**self.ordered, key: Ordered(seq, set_digest)}
        return replace(self, directive_seq=seq, set_digest=set_digest, ordered=ordered)

    def learned(
        self, model: str, policy: ModelPolicy, reset: ModelReset | None = None
    ) -> AntiRollback:
        """Return a memory that also knows a model's policy, and follows its reset if it is new."""
        known = self
        if reset is not None and reset.epoch > self.epochs.get(model, 0):
            known = self._replaced(model, reset.epoch, reset.floor, reset.yanked)
        return known._grown(model, policy.floor, policy.yanked)

    def merged(self, model: str, other: AntiRollback) -> AntiRollback:
        """Return a memory that also knows what another one knows of a model: what the later reset
        says, or all that both know."""
        mine, theirs = self.epochs.get(model, 0), other.epochs.get(model, 0)
        floor, yanks = other.floors.get(model, 0), other.yanks.get(model, frozenset())
        if mine == theirs:
            return self._grown(model, floor, yanks)
        return self if mine > theirs else self._replaced(model, theirs, floor, yanks)

    def _grown(self, model: str, floor: int, digests: frozenset[str]) -> AntiRollback:
        highest = max(self.floors.get(model, 0), floor)
        floors = {**self.floors, model: highest} if highest else self.floors
        known = self.yanks.get(model, frozenset())
        if digests <= known:
            return replace(self, floors=floors)
        # what is signed now comes first: documents without end must not fill the journal
        old = sorted(known - digests)[: max(MAX_YANKS - len(digests), 0)]
        return replace(self, floors=floors, yanks={**self.yanks, model: digests.union(old)})

    def _replaced(
        self, model: str, epoch: int, floor: int, digests: frozenset[str]
    ) -> AntiRollback:
        floors = {m: known for m, known in self.floors.items() if m != model}
        yanks = {m: known for m, known in self.yanks.items() if m != model}
        fresh = replace(self, floors=floors, yanks=yanks, epochs={**self.epochs, model: epoch})
        return fresh._grown(model, floor, digests)

    def has_yanked(self, model: str, sha256: str) -> bool:
        """Say whether a model's publisher took a version back, by its manifest's digest."""
        if sha256 in self.yanks.get(model, ()):
            return True
        return model not in self.epochs and sha256 in self.yanked

    def forbids(self, model: str, sha256: str, counter: int) -> Reason | None:
        """Say why a version may not run: asked at start and before any way back, too."""
        if self.has_yanked(model, sha256):
            return Reason.YANKED
        return Reason.BELOW_FLOOR if counter < self.floors.get(model, 0) else None
