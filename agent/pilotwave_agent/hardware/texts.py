"""Read the small text files in which a kernel describes the machine; make text fit to be sent."""

from __future__ import annotations

from pathlib import Path


def text(path: Path) -> str | None:
    """Return a file's text without what surrounds it; None if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip(" \t\r\n\0")
    except OSError:
        return None


def names(folder: Path) -> list[str]:
    """Return the names in a folder in order; none if it cannot be read."""
    try:
        return sorted(p.name for p in folder.iterdir())
    except OSError:
        return []


def clean(words: str, limit: int) -> str:
    """Return text that UTF-8 and every database can hold: no NUL, no half of a surrogate pair."""
    return words.replace("\0", "").encode("utf-8", "replace").decode("utf-8")[:limit]
