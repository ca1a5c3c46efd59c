"""How a gate's error is shared out among the whole and its slices, and how it is told."""

from __future__ import annotations


def for_whole(alpha: float, slices: int) -> float:
    """Return the whole's part: all of it, or half where slices are judged too."""
    return alpha / 2 if slices else alpha


def for_slice(alpha: float, slices: int) -> float:
    """Return the part of one of `slices` slices.

    Slices appear as devices do. While there are m of them each is judged at alpha / ((m+1)(m+2)),
    so the one that appeared as the r-th never at more than alpha / ((r+1)(r+2)); over all r,
    however many may still appear, these add up to alpha / 2.
    """
    return alpha / ((slices + 1) * (slices + 2))


def in_words(alpha: float) -> str:
    """Say how seldom a gate of this error is wrong: `1 in 100 rollouts`."""
    return f"1 in {round(1 / alpha):,} rollouts"


def stopped_by_chance(alpha: float) -> str:
    """Return the sentence that a FAIL ends with."""
    return f"A good version would be stopped by chance in fewer than {in_words(alpha)}"


def counted(number: int, one: str, more: str) -> str:
    """Return a number with its noun: `1 device`, `2 devices`."""
    return f"{number:,} {one if number == 1 else more}"


def percent(share: float) -> str:
    """Write a share with as many digits as matter: 5%, 0.5%, 12%, 0.01%."""
    if 0 < abs(share) < 0.001:
        return f"{100 * share:.4f}".rstrip("0").removesuffix(".") + "%"
    return f"{100 * share:.{1 if abs(share) < 0.1 else 0}f}".removesuffix(".0") + "%"


def lasting(seconds: float) -> str:
    """Write a length of time as people say it: `40 s`, `30 min`, `5 h`."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{max(0, round(seconds))} s"
    return f"{minutes} min" if minutes < 120 else f"{round(minutes / 60)} h"
