"""Choose a variant by what devices of one class measured. Pure: no clock, no database.

Each device has one voice. Variants are compared within a device, by the ratio of what it measured
of both, and a variant takes the place of another only where the middle device (of an even number,
the worse of the two in the middle) finds it better by `keep`. So one device that lies among three
moves nothing beyond what an honest one found, and one of two can keep a change from coming, but not
bring one about. A single device's voice counts for itself alone.

The voices are heard in the order in which they came, and what was chosen after each stands until
the next shows something better: no decision is stored, and none flips by noise.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from pilotwave_protocol.figures import VariantFigures
from pilotwave_server.rollouts.policies.choose import BYTES, ENERGY, LATENCY, MEMORY, Bound, Choose

VOICES = 3
"""So many devices of a class measure each variant; the others are told what came of it."""


@dataclass(frozen=True)
class Voice:
    """What one device found of each variant that it was asked to compare."""

    device: str
    found: Mapping[str, VariantFigures]


@dataclass(frozen=True)
class Option:
    """A variant that fits the device, with its size and what the publisher signed of it."""

    name: str
    size: int
    signed: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """The variant (None: nothing decides, the publisher's order holds) and the numbers for it."""

    variant: str | None
    sentence: str = ""


def admitted(options: Sequence[Option], choose: Choose) -> list[Option]:
    """Return those that keep the bounds on what the publisher signed. What was not signed of a
    variant is not known to hold."""
    bounds = [b for b in choose.bounds if not b.measured]
    return [o for o in options if all(_signed_holds(o, bound) for bound in bounds)]


def _signed_holds(option: Option, bound: Bound) -> bool:
    number = float(option.size) if bound.figure == BYTES else option.signed.get(bound.figure)
    return number is not None and bound.holds(number)


def decide(
    device: str,
    options: Sequence[Option],
    voices: Sequence[Voice],
    choose: Choose,
    failed: Collection[str] = (),
) -> Choice:
    """Return what `device` is to run of `options`, which are in the publisher's order.

    Where the chosen one has `failed` there, that is the best of the others that devices of its
    class say run within the bounds, then the next of those that none has tried; where there is
    none, it stays the chosen one.
    """
    left = admitted(options, choose)
    if not left:
        return Choice(None, f"no variant keeps {_signed(choose)}, so the publisher's order holds")
    if len(left) == 1 < len(options):
        only = left[0].name
        return Choice(only, f"of the variants that fit, {only} alone keeps {_signed(choose)}")
    heard = [v for v in voices if v.device == device] if len(voices) < 2 else list(voices)
    choice = _chosen(left, heard, choose)
    if choice.variant not in failed:
        return choice
    said = {o.name: Ballot(choose, {}).balance(heard, o.name) for o in left}
    rest = [o for o in left if o.name not in failed and said[o.name] >= 0]
    if not rest:
        return choice
    second = _chosen([o for o in rest if said[o.name] > 0] or rest, heard, choose)
    return Choice(second.variant, f"{choice.variant} failed on this device; {second.sentence}")


def _signed(choose: Choose) -> str:
    return ", ".join(str(b) for b in choose.bounds if not b.measured)


def _chosen(left: Sequence[Option], heard: Sequence[Voice], choose: Choose) -> Choice:
    ballot = Ballot(choose, {o.name: o for o in left})
    chosen = left[0].name
    for count in range(min(2, len(heard)), len(heard) + 1):
        chosen = ballot.after(heard[:count], chosen)
    return Choice(chosen, ballot.told(heard, chosen, first=left[0].name))


@dataclass(frozen=True)
class Ballot:
    """One choice among `options`, by name in the publisher's order."""

    choose: Choose
    options: Mapping[str, Option]

    def after(self, voices: Sequence[Voice], held: str) -> str:
        """Return what is chosen after these voices where `held` was chosen before."""
        if not voices:
            return held
        good = [name for name in self.options if name != held and self.balance(voices, name) > 0]
        if self.balance(voices, held) < 0:
            found = [(m, name) for name in good if (m := self.middle(voices, name)) is not None]
            return min(found, default=(0.0, held), key=lambda one: one[0])[1]
        ratios = [(r, name) for name in good if (r := self._ratio(voices, name, held)) is not None]
        best = min(ratios, default=(1.0, held), key=lambda one: one[0])
        return best[1] if best[0] < 1 - self.choose.keep else held

    def balance(self, voices: Sequence[Voice], name: str) -> int:
        """How many more devices say that the variant runs within the bounds than that it does not;
        above 0 it may be chosen, below it is out."""
        said = [v.found[name] for v in voices if name in v.found]
        good = sum(self._holds(figures) for figures in said)
        return good - (len(said) - good)

    def _holds(self, figures: VariantFigures) -> bool:
        if figures.failed is not None:
            return False
        bounds = (b for b in self.choose.bounds if b.measured)
        found = [(b, getattr(figures, b.figure)) for b in bounds]
        return all(number is not None and bound.holds(number) for bound, number in found)

    def _ratio(self, voices: Sequence[Voice], name: str, held: str) -> float | None:
        """Return how `name` does against `held` on the middle device; None where too few compared
        both."""
        value = self._value(voices)
        pairs = [(value(v, name), value(v, held)) for v in voices]
        ratios = sorted(a / b for a, b in pairs if a is not None and b)
        if len(ratios) < min(2, len(voices)):
            return None
        return ratios[len(ratios) // 2]

    def middle(self, voices: Sequence[Voice], name: str) -> float | None:
        """Return the median over devices of what is to be small."""
        value = self._value(voices)
        found = [n for v in voices if (n := value(v, name)) is not None]
        return median(found) if found else None

    def _value(self, voices: Sequence[Voice]) -> Callable[[Voice, str], float | None]:
        figure = self._figure(voices)

        def value(voice: Voice, name: str) -> float | None:
            figures = voice.found.get(name)
            if figures is None or figures.failed is not None:
                return None
            if figure == BYTES:
                return float(self.options[name].size)
            number: float | None = getattr(figures, figure)
            return number

        return value

    def _figure(self, voices: Sequence[Voice]) -> str:
        """Energy is counted by few boards: where not all did, the CPU time of a call stands in."""
        if self.choose.minimise != ENERGY:
            return _FIGURES[self.choose.minimise]
        said = [f for v in voices for n, f in v.found.items() if n in self.options and not f.failed]
        return "energy_mj" if said and all(f.energy_mj for f in said) else "cpu_ms"

    def told(self, voices: Sequence[Voice], chosen: str, *, first: str) -> str:
        """Say the numbers that chose, as `onnx-int8: 0.29 ms (median of 3 devices of this class),
        41 % less than onnx-fp32`."""
        mine = self.middle(voices, chosen)
        if mine is None:
            return (
                "too few devices of this class have measured it yet, so the publisher's order holds"
            )
        of = sum(chosen in v.found for v in voices)
        whom = f"median of {of} devices of this class" if of > 1 else "measured on this device"
        figure = self._figure(voices)
        sentence = f"{chosen}: {show(mine, figure)} ({whom})"
        rest = [n for n in self.options if n != chosen]
        middles = [(m, n) for n in rest if (m := self.middle(voices, n)) is not None]
        if chosen != first and (theirs := self.middle(voices, first)):
            return f"{sentence}, {100 * (1 - mine / theirs):.0f} % less than {first}"
        if chosen != first:
            return f"{sentence}; {first} does not run within the bounds here"
        if not middles:
            return f"{sentence}; no other variant was measured"
        least, other = min(middles)
        keep = f"{100 * self.choose.keep:.0f} %"
        return f"{sentence}; none is {keep} better: {other} takes {show(least, figure)}"


_FIGURES = {LATENCY: "p05_ms", MEMORY: "peak_mb", BYTES: BYTES}
_UNITS = {
    "p05_ms": "ms",
    "cpu_ms": "ms of CPU time",
    "energy_mj": "mJ",
    "peak_mb": "MB",
    BYTES: "bytes",
}


def show(number: float, figure: str) -> str:
    """Write a number with its unit."""
    text = f"{number:.0f}" if number >= 100 or figure == BYTES else f"{number:.3g}"
    return f"{text} {_UNITS[figure]}"


@dataclass(frozen=True)
class Asked:
    """A device of a class that was asked to measure a variant."""

    device: str
    variant: str


def to_ask(
    device: str, runs: str, options: Sequence[str], asked: Sequence[Asked]
) -> tuple[str, ...]:
    """Return which variants a device is asked to compare, among them the one that it is to run; at
    most two are others. Nothing where enough of its class were asked, or it was asked before.

    `asked` are those of its class that count: whoever does not answer counts for a while.
    """
    if len(options) < 2 or any(a.device == device for a in asked):
        return ()
    voices = {name: sum(a.variant == name for a in asked) for name in options}
    wanted = sorted((n for n in options if voices[n] < VOICES), key=lambda n: voices[n])
    first = options[0]
    if not any(name != first for name in wanted) and first not in wanted:
        return ()
    named = dict.fromkeys([runs, first, *wanted, *options])
    return tuple(list(named)[:3])
