"""`[learn]` of the settings file: whether this device takes part in training plans.

    [learn]
    allow = true

Without it no example is kept and nothing is computed. docs/learning.md says what leaves the device.
"""

from __future__ import annotations

from dataclasses import dataclass

from pilotwave_protocol.fields import Fields


@dataclass(frozen=True)
class LearnSettings:
    """With `allow` examples are kept and rounds answered, with `adapt` as well the device may adapt
    its own answers. Labelled examples take at most `max_mb` of each model, each `max_example_kb`;
    what is learnt is computed on external power, and with `idle` while nothing else wants the
    processor. Updates are sent over unmetered networks alone."""

    allow: bool = False
    adapt: bool = False
    max_mb: int = 64
    max_example_kb: int = 1024
    idle: bool = True


def read_learn(f: Fields) -> LearnSettings:
    """Read the section, or raise what `f` raises."""
    found = LearnSettings(
        allow=f.boolean("allow", default=False),
        adapt=f.boolean("adapt", default=False),
        max_mb=f.integer("max_mb", low=1, high=1 << 16, default=64),
        max_example_kb=f.integer("max_example_kb", low=1, high=1 << 16, default=1024),
        idle=f.boolean("idle", default=True),
    )
    f.done()
    if found.adapt and not found.allow:
        raise f.fail("adapt", "allow = true beside it: without, no example is kept", True)
    return found
