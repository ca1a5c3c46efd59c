"""Tell NVIDIA DeepStream's `nvinfer` by the override file that its `-o` option names.

It watches for the end of a write to that very file, so the file is written in place: a rename would
go unseen. DeepStream acknowledges to its own application only; a second `[[tell]]` may ask that.
"""

from __future__ import annotations

from pilotwave_agent.tell.base import Quiet, Release
from pilotwave_agent.tell.settings import Tell


class DeepStream(Quiet):
    """One override file."""

    def __init__(self, tell: Tell) -> None:
        assert tell.file is not None
        self.within_s, self._file, self._section = tell.timeout_s, tell.file, tell.section

    def activate(self, release: Release) -> None:
        """Name the engine of the version's own folder, a path that was never used before."""
        engine = release.path / release.entrypoint
        text = f"[{self._section}]\nenable=1\nmodel-engine-file={engine}\n"
        with open(self._file, "w", encoding="utf-8") as stream:
            stream.write(text)

    def rollback(self, bad: Release | None, good: Release) -> None:
        """Name the engine before."""
        self.activate(good)
