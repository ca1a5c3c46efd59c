"""Work in a folder where other users may write, as those of applications are.

Whatever lies there is theirs: a name may be a link, a FIFO, a folder or another's file, and may be
another thing a moment later. So the folder is held by a descriptor, no link is followed, what is
made is made anew, and no more is listed than a folder should hold.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from itertools import chain, islice, zip_longest
from pathlib import Path

MAX_SEEN = 4096
"""So many entries of a folder are looked at; `tidy` removes what is beyond."""
MAX_EACH = 1024
"""So many entries may one user have in a folder."""
_OLD_TEMP_S = 3600.0
_MOST_TIDIED = 200_000
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DEEPEST = 32
_ROUNDS = 256
_ASIDE = ".gone-"


class SharedFolder:
    """One folder, held open. Names are single components; every method may raise `OSError`."""

    def __init__(self, path: Path, *, within: int | None = None) -> None:
        """Open it. Raises `OSError` for a link and for what is no folder."""
        self.fd = os.open(path, _DIRECTORY, dir_fd=within)

    def __enter__(self) -> SharedFolder:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self.fd)

    def stat(self, name: str) -> os.stat_result | None:
        """Return what a name stands for, itself and not what it leads to; None for nothing."""
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def names(self, ending: str, most: int) -> list[str]:
        """Return visible names of one ending in order. Beyond `most`, each owner has a turn."""
        with os.scandir(self.fd) as items:
            seen = islice(items, MAX_SEEN)
            found = sorted(i.name for i in seen if i.name.endswith(ending) and i.name[0] != ".")
        return found if len(found) <= most else self._fair(found, most)

    def _fair(self, names: list[str], most: int) -> list[str]:
        of: dict[int, list[str]] = {}
        for name in names:
            found = self.stat(name)
            if found:
                of.setdefault(found.st_uid, []).append(name)
        turns = chain.from_iterable(zip_longest(*of.values()))
        return sorted(islice((n for n in turns if n is not None), most))

    def read(self, name: str, limit: int) -> tuple[bytes, int] | None:
        """Return a small file's bytes and its owner; None for what is no file of one name, or is
        larger than `limit`."""
        fd = os.open(name, _READ, dir_fd=self.fd)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 or found.st_size > limit:
                return None
            return os.read(fd, limit), found.st_uid
        finally:
            os.close(fd)

    def replace(self, name: str, data: bytes, *, sync: bool = False) -> None:
        """Replace a file at one stroke; without `sync` it does not wait for the medium."""
        temp = self._write_new(name, data, sync)
        try:
            try:
                os.rename(temp, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
            except IsADirectoryError:
                self.remove(name)
                os.rename(temp, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temp, dir_fd=self.fd)
            raise
        if sync:
            os.fsync(self.fd)

    def _write_new(self, name: str, data: bytes, sync: bool) -> str:
        """Write a file that nobody else has made, and return its name."""
        temp = f".{name[:200]}.{os.urandom(8).hex()}.new"
        fd = os.open(temp, _NEW, 0o644, dir_fd=self.fd)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if sync:
                os.fsync(fd)
        except OSError:
            os.unlink(temp, dir_fd=self.fd)  # a full disk needs the room
            raise
        finally:
            os.close(fd)
        return temp

    def remove(self, name: str) -> None:
        """Remove whatever a name stands for. A folder with something in it is not emptied, since
        others may go on filling it: it is out of the way under a hidden name."""
        try:
            os.unlink(name, dir_fd=self.fd)
            return
        except FileNotFoundError:
            return
        except (IsADirectoryError, PermissionError):
            found = self.stat(name)
            if found is None or not stat.S_ISDIR(found.st_mode):
                raise
        if not name.startswith(_ASIDE):
            aside = f"{_ASIDE}{os.urandom(8).hex()}"
            os.rename(name, aside, src_dir_fd=self.fd, dst_dir_fd=self.fd)
            name = aside
        with contextlib.suppress(OSError):
            os.rmdir(name, dir_fd=self.fd)

    def tidy(self, now: float, *, keep_s: float, but: str = "") -> bool:
        """Remove old files (not changed for `keep_s` seconds before `now`, temporary ones for an
        hour) `but` one, and what one user has beyond `MAX_EACH`. Say whether the folder can be
        used: False where too much is left that this user cannot remove."""
        count: dict[int, int] = {}
        with os.scandir(self.fd) as items:
            for item in islice(items, _MOST_TIDIED):
                with contextlib.suppress(OSError):
                    found = item.stat(follow_symlinks=False)
                    count[found.st_uid] = count.get(found.st_uid, 0) + 1
                    hidden = item.name[0] == "."
                    age = now - found.st_mtime
                    old = age > (_OLD_TEMP_S if hidden else keep_s) and item.name != but
                    if old or count[found.st_uid] > MAX_EACH:
                        self.remove(item.name)
        with os.scandir(self.fd) as items:
            return sum(1 for _ in islice(items, MAX_SEEN + 1)) <= MAX_SEEN


def remove_tree(name: str | Path, *, within: int | None = None) -> None:
    """Remove a folder with all that is in it. No link is followed whatever is swapped meanwhile;
    folders that keep their owner out are opened, and deep ones are brought up, so that neither
    stops it. Raises `OSError` for what cannot be removed."""
    top = _opened(name, within)
    try:
        _empty(top, top, 0)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=within)


def _opened(name: str | Path, within: int | None) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=within)
    except PermissionError:
        handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=within)
        try:
            os.chmod(f"/proc/self/fd/{handle}", stat.S_IRWXU)
            return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        finally:
            os.close(handle)


def _empty(folder: int, top: int, depth: int) -> None:
    """Remove what is in a folder; a folder that lies too deep is moved to the top first."""
    with contextlib.suppress(PermissionError):
        os.fchmod(folder, stat.S_IRWXU)
    for _ in range(_ROUNDS):
        names = list(_names(folder))
        if not names:
            return
        for name in names:
            try:
                os.unlink(name, dir_fd=folder)
            except FileNotFoundError:
                continue
            except (IsADirectoryError, PermissionError):
                _drop_folder(folder, name, top, depth)


def _drop_folder(folder: int, name: str, top: int, depth: int) -> None:
    if depth >= _DEEPEST:
        os.rename(name, f".deep-{os.urandom(8).hex()}", src_dir_fd=folder, dst_dir_fd=top)
        return
    inner = _opened(name, folder)
    try:
        _empty(inner, top, depth + 1)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=folder)


def _names(folder: int) -> Iterator[str]:
    with os.scandir(folder) as items:
        for item in islice(items, MAX_SEEN):
            yield item.name
