"""Tell NVIDIA DeepStream's `nvinfer` by the override file that its `-o` option names.

It watches for the end of a write to that very file, so the file is written in place: a rename would
go unseen. DeepStream acknowledges to its own application only; a second `[[tell]]` may ask that.
"""

from __future__ import annotations

import errno
import os
import stat

from pilotwave_agent.settings.tell import Tell
from pilotwave_agent.tell.base import Quiet, Release


class DeepStream(Quiet):
    """One override file."""

    def __init__(self, tell: Tell) -> None:
        assert tell.file is not None
        self.within_s, self._file, self._section = tell.timeout_s, tell.file, tell.section

    def activate(self, release: Release) -> None:
        """Name the engine of the version's own folder, a path that was never used before."""
        engine = release.path / release.entrypoint
        text = f"[{self._section}]\nenable=1\nmodel-engine-file={engine}\n"
        # a link here could lead to a file of the agent's own, a FIFO would wait for a reader
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(self._file, flags, 0o644)
        with os.fdopen(fd, "w", encoding="utf-8") as stream:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                raise OSError(errno.EINVAL, "expected a regular file", str(self._file))
            os.ftruncate(fd, 0)
            stream.write(text)

    def rollback(self, bad: Release | None, good: Release) -> None:
        """Name the engine before."""
        self.activate(good)
