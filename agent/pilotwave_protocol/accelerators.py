"""Name the chips that model files are compiled for, and say which requirement keeps a file to them.

A file that names its chip exactly (`hailo8l`, `rk3588`, `ethos-u65-256`) is for one; one that does
not is for the family (`hailo`, `rknpu`, `ethosu`), which a device reports beside the chip.
"""

from __future__ import annotations

_FAMILIES = (("hailo", "hailo"), ("rk", "rknpu"), ("rv", "rknpu"), ("ethos", "ethosu"))

SAME = {"rk3568": "rk3566", "rk3588s": "rk3588"}
"""Chips that run each other's files: those of the first are called by the second."""


def family(accelerator: str) -> str:
    """Return what a chip belongs to: `rk3588` to `rknpu`; one without a family is its own."""
    found = (name for begins, name in _FAMILIES if accelerator.startswith(begins))
    return next(found, accelerator)


def keeps_to(required: str | None, compiled_for: str) -> bool:
    """Say whether no device that has `required` lacks the kind of chip `compiled_for`.

    The family is enough: a publisher may say so of boards that do not tell their chip exactly.
    """
    if required is None:
        return False
    of_family = family(required) == compiled_for
    return required in (compiled_for, family(compiled_for)) or of_family
