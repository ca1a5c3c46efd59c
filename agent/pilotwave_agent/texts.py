"""Read the small text files in which a kernel describes the machine."""

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
