"""The thread behind a `LiveModel`: follow the links, load beside, swap, drain, tell the agent.

It sleeps until the kernel says that a link was set anew, a load has ended or a sign of life is due.
No call waits for it, except the first ones before any version is loaded.
"""

from __future__ import annotations

import threading
import time

from pilotwave_agent.live.generation import Serving
from pilotwave_agent.live.heartbeat import Heartbeat, RefusedVersion, uptime
from pilotwave_agent.live.links import CURRENT, PREVIOUS, ModelLinks
from pilotwave_agent.live.loader import Loading, LoadOptions, words_of
from pilotwave_agent.live.overlays import Overlays
from pilotwave_agent.live.recorder import Recorder
from pilotwave_agent.live.shadow import Shadow
from pilotwave_agent.live.watch import FolderWatch

_FIRST_RETRY_S, _LAST_RETRY_S = 2.0, 60.0


class Follower:
    """Keeps one process on the version that `current` names."""

    def __init__(
        self,
        place: ModelLinks,
        wish: LoadOptions,
        desk: Heartbeat,
        recorder: Recorder,
        shadow: Shadow,
        *,
        inotify: bool,
    ) -> None:
        self.watch = FolderWatch(place.folder, inotify=inotify)
        self.serving = Serving(self.watch.wake)
        self.refused: dict[str, RefusedVersion] = {}
        self.changed = threading.Condition()
        self.looked = False
        self._links, self._load_options, self._heartbeat = place, wish, desk
        self._recorder, self._shadow = recorder, shadow
        self._target: str | None = None
        self._last: RefusedVersion | None = None
        self._loading: Loading | None = None
        self._overlays = Overlays(place)
        self._retry_at, self._retry_s = 0.0, _FIRST_RETRY_S
        self._end: str | None = None
        self._thread = threading.Thread(target=self._run, name="pilotwave-live", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Say whether a version is being loaded, or is to be."""
        return self._loading is not None

    def stop(self, state: str, timeout_s: float = 5.0) -> None:
        """End the thread; `state` is the last word to the agent."""
        self._end = self._end or state
        self.watch.wake()
        self._thread.join(timeout_s)

    # --- the thread

    def _run(self) -> None:
        try:
            while self._end is None:
                self._turn()
                if self.watch.wait(self._sleep_s(), CURRENT):
                    self.refused.clear()  # the link was set anew: whatever it names is tried
        finally:
            if self._loading:
                self._loading.give_up()
            self.serving.close_drained()
            self._shadow.stop()
            self._recorder.flush()
            self._tell(self._end or "crashed")
            self.watch.close()

    def _turn(self) -> None:
        self.watch.arm()
        with self.changed:
            self._follow()
            front = self.serving.front
            if front is not None:
                front.overlay = self._overlays.of(front.version)
            self._shadow.follow(front.version if front else None)
            if self._heartbeat.due_s() == 0:
                self._recorder.flush()
                self._shadow.flush()
            self._tell("serving" if self.serving.front else "waiting")
            self.looked = True
            self.changed.notify_all()
        self.serving.close_drained()

    def _follow(self) -> None:
        target = self._links.named_by(CURRENT)
        if target != self._target:
            self._target = target
            self.refused.clear()
        if self._loading:
            self._attend(self._loading, self._wanted())
        wanted, front = self._wanted(), self.serving.front
        if self._loading is None and wanted and (front is None or front.version.name != wanted):
            self._loading = Loading(self._links, wanted, self._load_options, self.watch.wake)

    def _wanted(self) -> str | None:
        """Name the version to serve: what `current` names; if that was refused and none serves
        yet, what `previous` names; then again the first, after a while."""
        target = self._target
        if target is None or target not in self.refused:
            return target
        if self.serving.front is not None:
            return None
        previous = self._links.named_by(PREVIOUS)
        if previous and previous not in self.refused:
            return previous
        return target if time.monotonic() >= self._retry_at else None

    def _attend(self, loading: Loading, wanted: str | None) -> None:
        """See to a load: take what it made, or give it up."""
        if loading.name != wanted and loading.name != self._target:
            loading.give_up()
        elif loading.ended and loading.generation is not None:
            self.refused.pop(loading.name, None)
            self._retry_s = _FIRST_RETRY_S
            loading.generation.overlay = self._overlays.of(loading.generation.version)
            self.serving.swap(loading.generation)
        elif loading.ended:
            self._failed(loading)
        elif time.monotonic() >= loading.deadline:
            loading.give_up()
            self._refuse(loading.name, f"not loaded within {self._load_options.timeout_s:g} s")
        else:
            return
        self._loading = None

    def _failed(self, loading: Loading) -> None:
        gone = isinstance(loading.no, (FileNotFoundError, NotADirectoryError))
        if gone and self._links.named_by(CURRENT) != loading.name:
            return  # it was removed because something newer is there
        self._refuse(loading.name, words_of(loading.no) if loading.no else "not loaded")

    def _refuse(self, name: str, sentence: str) -> None:
        self._last = self.refused[name] = RefusedVersion(name, round(uptime(), 2), sentence)
        self._retry_at = time.monotonic() + self._retry_s
        self._retry_s = min(self._retry_s * 2, _LAST_RETRY_S)

    def _tell(self, state: str) -> None:
        front = self.serving.front
        name = front.version.name if front else None
        self._heartbeat.tell(
            state=state, serving=name, refused=self._last, shadow=self._shadow.said
        )

    def _sleep_s(self) -> float:
        left = [self._heartbeat.due_s()]
        if self._loading:
            left.append(self._loading.deadline - time.monotonic())
        if self.serving.front is None and self.refused:
            left.append(self._retry_at - time.monotonic())
        return max(min(left), 0.01)
