"""Put a model under test into a control group of its own, where this process may make one.

That bounds memory of every kind (shared and file-backed as well) and the number of processes. Both
versions of control groups are known: the second where it was delegated (`Delegate=yes`), the first
where this process may write to it. https://docs.kernel.org/admin-guide/cgroup-v2.html
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
MOST_PROCESSES = 256
_NAME = "pilotwave-"
_ROOM_MB = 64  # what the libraries' own pages and buffers of the kernel may take beside


class Box:
    """The groups that were made, one for each hierarchy."""

    def __init__(self, folders: list[Path], took: set[str]) -> None:
        self._folders, self.took = folders, took

    def enter(self) -> None:
        """Put this process, and what it starts, into the groups."""
        for folder in self._folders:
            with contextlib.suppress(OSError):
                (folder / "cgroup.procs").write_text("0", encoding="ascii")

    def alive(self) -> bool:
        """Say whether any group is still there."""
        return any(folder.is_dir() for folder in self._folders)

    def remove(self) -> None:
        """Kill what is in them, where the kernel can, and remove them."""
        for folder in self._folders:
            with contextlib.suppress(OSError):
                (folder / "cgroup.kill").write_text("1", encoding="ascii")
            with contextlib.suppress(OSError):
                folder.rmdir()


def make(memory_mb: int, *, root: Path = _ROOT, proc: Path = Path("/proc/self/cgroup")) -> Box:
    """Make what can be made; a box of nothing elsewhere."""
    limit = str((memory_mb + _ROOM_MB) << 20) if memory_mb else None
    folders, took = [], set()
    for folder, words in _wished(limit, root, proc):
        made = _made(folder, words)
        if made is not None:
            folders.append(made)
            took |= {"memory_group" if "memory" in name else "few_processes" for name in words}
    return Box(folders, took)


def _wished(limit: str | None, root: Path, proc: Path) -> list[tuple[Path, dict[str, str]]]:
    """Return own groups, and what is to be set in one below each."""
    own = _own(proc)
    processes = str(MOST_PROCESSES)
    if (root / "cgroup.controllers").is_file():
        words = {"pids.max": processes}
        if limit:
            words |= {"memory.max": limit, "memory.swap.max": "0"}
        return [(root / own.get("", "").lstrip("/"), words)]
    found = []
    if limit and "memory" in own:
        words = {"memory.limit_in_bytes": limit}
        found.append((root / "memory" / own["memory"].lstrip("/"), words))
    if "pids" in own:
        found.append((root / "pids" / own["pids"].lstrip("/"), {"pids.max": processes}))
    return found


def _own(proc: Path) -> dict[str, str]:
    """Return this process's group by controller; "" is the second version's."""
    try:
        lines = proc.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    parts = (line.split(":", 2) for line in lines)
    return {name: p[2] for p in parts if len(p) == 3 for name in p[1].split(",")}


def _clear(folder: Path) -> None:
    """Remove groups of processes that were killed before they could."""
    for group in folder.glob(f"{_NAME}*"):
        pid = group.name.removeprefix(_NAME).split("-")[0]
        if not Path("/proc", pid).exists():
            with contextlib.suppress(OSError):
                group.rmdir()


def _made(folder: Path, words: dict[str, str]) -> Path | None:
    """Make a group below `folder` with these settings; None where that cannot be."""
    _clear(folder)
    group = folder / f"{_NAME}{os.getpid()}-{os.urandom(4).hex()}"
    try:
        group.mkdir()
    except OSError:
        return None
    took = False
    for name, value in words.items():
        with contextlib.suppress(OSError):
            if (group / name).exists():
                (group / name).write_text(value, encoding="ascii")
                took = True
    if took and all((group / name).exists() for name in words if "swap" not in name):
        return group
    with contextlib.suppress(OSError):
        group.rmdir()
    return None
