"""What a device says of itself, in the form in which it is stored and compared."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from pilotwave_protocol.fields import Scalar
from pilotwave_protocol.messages.facts import (
    AGENT_COMPARES,
    AGENT_HIDES,
    AGENT_MANIFEST,
    AGENT_SHADOWS,
    AGENT_TIES,
    AGENT_UPDATES,
)
from pilotwave_protocol.names import FACT

SMALLEST = 1e-300
_CAPABILITY_KEYS = frozenset(
    {
        *("arch", "memory_mb", "allow_unsafe_formats", "max_models", "removes_models"),
        *(AGENT_COMPARES, AGENT_HIDES, AGENT_MANIFEST, AGENT_SHADOWS, AGENT_TIES, AGENT_UPDATES),
    }
)
_CAPABILITY_PREFIXES = ("runtime.", "accelerator.", "cpu.")


def normal_number(value: float) -> float:
    """Round to 15 significant digits, which every database reads back as the same number."""
    rounded = float(f"{value:.15g}")
    return 0.0 if abs(rounded) < SMALLEST else rounded


def normal_facts(facts: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Return the facts as they are stored."""
    return {k: normal_number(v) if isinstance(v, float) else v for k, v in facts.items()}


def told_by(labels: Mapping[str, str], facts: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Return what gates may ask a device by: its labels, and its facts as `fact.arch`."""
    return {**{f"{FACT}{key}": value for key, value in facts.items()}, **labels}


def capabilities(
    facts: Mapping[str, Scalar], asked: Collection[str] = ()
) -> tuple[tuple[str, Scalar], ...]:
    """Return the facts that can decide what the device is told, ordered: which variant fits it
    (`trust.variant_fits`), of which class it is, how many models it takes, whether it takes
    removals, ties, comparisons or shadows. `asked` are those that versions ask for by name. Equal
    tuples are told the same."""
    return tuple(sorted((k, v) for k, v in facts.items() if k in asked or _is_capability(k)))


def _is_capability(key: str) -> bool:
    return key in _CAPABILITY_KEYS or key.startswith(_CAPABILITY_PREFIXES)


def allows_unsafe(facts: Iterable[tuple[str, Scalar]] | Mapping[str, Scalar]) -> bool:
    """Say whether the device may be offered formats that can run code when loaded.

    A device that does not say is offered them: it checks again by its own configuration.
    """
    said = dict(facts).get("allow_unsafe_formats")
    return said is None or said != 0  # SQLite gives a JSON false as 0
