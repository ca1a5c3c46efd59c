"""Tell NVIDIA Triton by the KServe v2 repository protocol, in its EXPLICIT mode.

A load that fails leaves the version before serving. In POLL mode Triton loads by itself, and taking
a folder away while it does so hangs it; that mode is not supported (docs/device.md).
"""

from __future__ import annotations

import time

from pilotwave_agent.host.disk import Disk
from pilotwave_agent.settings.tell import Tell
from pilotwave_agent.tell import web
from pilotwave_agent.tell.base import Release, refused, silent
from pilotwave_agent.tell.folders import CONFIG, Folders

_CALL_S = 10.0
_AGAIN_S = 0.2


class Triton:
    """One Triton server's model repository."""

    def __init__(self, tell: Tell, disk: Disk, model: str) -> None:
        assert tell.folder is not None
        self.within_s, self._url, self._disk = tell.timeout_s, tell.url, disk
        self._name = tell.name or model
        self._base = tell.folder / self._name
        self._folders = Folders(disk, self._base, rename=True)

    def stage(self, release: Release) -> None:
        """Make `<repository>/<model>/<number>/model.<ending>`."""
        self._folders.stage(release)

    def activate(self, release: Release) -> None:
        """Load: Triton takes the highest number beside the one that it serves."""
        config = release.path / CONFIG
        if config.is_file():
            self._disk.write_atomic(self._base / CONFIG, config.read_bytes(), 0o644)
        url = f"{self._url}/v2/repository/models/{self._name}/load"
        answer = web.ask("POST", url, within_s=self.within_s, body={})
        if answer.status != 200:
            raise refused(f"Triton cannot load {release.version}: {web.words(answer)}")

    def confirm(self, release: Release, since: float) -> bool:
        """Ask whether the version is ready; one that Triton gave up is an end."""
        url = f"{self._url}/v2/models/{self._name}/versions/{release.number}/ready"
        if web.ask("GET", url, within_s=_CALL_S).status == 200:
            return True
        index = web.ask("POST", f"{self._url}/v2/repository/index", within_s=_CALL_S, body={})
        for line in web.said(index) or []:
            mine = isinstance(line, dict) and line.get("name") == self._name
            same = mine and str(line.get("version")) == str(release.number)
            if same and line.get("state") == "UNAVAILABLE":
                raise refused(f"Triton gave {release.version} up: {line.get('reason', '')}")
        return False

    def remove(self, release: Release) -> None:
        """Unload it, and take the folders away that this agent made."""
        url = f"{self._url}/v2/repository/models/{self._name}/unload"
        answer = web.ask("POST", url, within_s=self.within_s, body={})
        self._folders.tidy(set())
        if answer.status != 200:
            raise refused(f"Triton cannot unload {self._name}: {web.words(answer)}")

    def rollback(self, bad: Release | None, good: Release) -> None:
        """Take the bad number away and load: the highest one left is the good one."""
        self.stage(good)
        if bad:
            self._folders.remove(bad.number)
        self.activate(good)
        ends = time.monotonic() + self.within_s
        while not self.confirm(good, 0.0):
            if time.monotonic() >= ends:
                raise silent(f"Triton does not serve {good.version} after {self.within_s:g} s")
            time.sleep(_AGAIN_S)
