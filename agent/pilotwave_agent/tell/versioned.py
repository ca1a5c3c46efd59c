"""Tell servers that serve the highest number in a folder: TensorFlow Serving looks by itself,
OpenVINO Model Server is asked to look. Both say over REST how each version is."""

from __future__ import annotations

import time
from typing import Any

from pilotwave_agent.host.disk import Disk
from pilotwave_agent.settings.tell import Tell
from pilotwave_agent.tell import web
from pilotwave_agent.tell.base import Release, refused, silent
from pilotwave_agent.tell.folders import Folders

_CALL_S = 10.0
_AGAIN_S = 0.2
_WELL = (None, "", 0, "0", "OK")


class Versioned:
    """One model's folder at such a server; without a URL nobody is asked."""

    def __init__(self, tell: Tell, disk: Disk, model: str) -> None:
        assert tell.folder is not None
        self.within_s, self._url = tell.timeout_s, tell.url
        self._name = tell.name or model
        self._reload = tell.kind == "openvino"
        self._folders = Folders(disk, tell.folder / self._name, rename=self._reload)

    def stage(self, release: Release) -> None:
        """TensorFlow Serving sees the folder as soon as it is there, so `activate` makes it."""

    def activate(self, release: Release) -> None:
        """Make the folder of the highest number, and have the server look where it must be told."""
        self._folders.stage(release)
        if self._reload:
            answer = web.ask("POST", f"{self._url}/v1/config/reload", within_s=self.within_s)
            if answer.status not in (200, 201):
                raise refused(f"the model server cannot reload: {web.words(answer)}")

    def remove(self, release: Release) -> None:
        """Take the folders away that this agent made, and have the server look."""
        self._folders.tidy(set())
        if self._reload:
            web.ask("POST", f"{self._url}/v1/config/reload", within_s=self.within_s)

    def confirm(self, release: Release, since: float) -> bool:
        """Ask how the version is: AVAILABLE is the acknowledgement, END with an error is a no."""
        if not self._url:
            return True
        answer = web.ask("GET", f"{self._url}/v1/models/{self._name}", within_s=_CALL_S)
        found = web.said(answer)
        states = found.get("model_version_status") if isinstance(found, dict) else None
        for line in states if isinstance(states, list) else []:
            if isinstance(line, dict) and str(line.get("version")) == str(release.number):
                return self._is_available(line, release)
        return False

    def _is_available(self, line: dict[str, Any], release: Release) -> bool:
        status = line.get("status")
        code = status.get("error_code") if isinstance(status, dict) else None
        if code not in _WELL and isinstance(status, dict):
            said = f"{code}: {status.get('error_message', '')}"
            raise refused(f"the model server cannot serve {release.version}: {said}")
        return line.get("state") == "AVAILABLE"

    def rollback(self, bad: Release | None, good: Release) -> None:
        """Take the bad number away: the highest one left is the good one."""
        if bad:
            self._folders.remove(bad.number)
        self.activate(good)
        ends = time.monotonic() + self.within_s
        while not self.confirm(good, 0.0):
            if time.monotonic() >= ends:
                raise silent(f"the server does not serve {good.version} after {self.within_s:g} s")
            time.sleep(_AGAIN_S)
