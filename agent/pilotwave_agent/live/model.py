"""`LiveModel`: one model, always its current version, from any thread or coroutine.

A call is answered by one version from beginning to end. While another version is loaded and tried
beside it, calls go on; the swap happens between two calls; a version that cannot be loaded is
reported to the agent and the one before goes on serving.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pilotwave_agent.live.capture import Capture
from pilotwave_agent.live.errors import LiveError, LoadFailed, NoVersion
from pilotwave_agent.live.follower import Follower
from pilotwave_agent.live.generation import Answer, Generation, Serving, Version
from pilotwave_agent.live.heartbeat import Heartbeat
from pilotwave_agent.live.input_checks import SCORE, InputChecks
from pilotwave_agent.live.labels import Labels
from pilotwave_agent.live.links import ModelLinks
from pilotwave_agent.live.loader import Check, Feeds, LoadOptions
from pilotwave_agent.live.recorder import Recorder
from pilotwave_agent.live.shadow import Shadow
from pilotwave_agent.live.shadow_orders import Compare, Judges, Score

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from pilotwave_protocol.learning.overlaid import Overlaid

DEFAULT_DATA = "/var/lib/pilotwave"


class LiveModel:
    """One model on this device, kept on its current version.

    `data` is the agent's data folder (default: $PILOTWAVE_DATA, else /var/lib/pilotwave). With no
    version there yet, it waits up to `wait_s` seconds (None: for ever) and raises `NoVersion`; with
    none that can be loaded, `LoadFailed`. `threads` is what the runtime may use for one call,
    `runners` how many calls may run at once where a runtime takes one at a time, `warmup` the
    inputs that a new version is tried on before it serves, `check` a function of its outputs that
    returns False (or raises) to refuse it, `load_timeout_s` how long a load may take. `compare` is
    given the outputs of the serving version and of one that is tried in shadow, and returns whether
    they agree (default: as the manifest says); `score` is given those of either, and returns how
    good they are, of which the difference is reported.
    """

    def __init__(
        self,
        model: str,
        *,
        data: str | os.PathLike[str] | None = None,
        app: str = "",
        wait_s: float | None = 0.0,
        threads: int = 1,
        runners: int = 1,
        devices: Sequence[str] = (),
        warmup: Feeds | None = None,
        check: Check | None = None,
        load_timeout_s: float = 60.0,
        compare: Compare | None = None,
        score: Score | None = None,
        heartbeat_s: float = 15.0,
        inotify: bool = True,
    ) -> None:
        root = Path(data or os.environ.get("PILOTWAVE_DATA", DEFAULT_DATA)).absolute()
        self.model, self.data = model, root
        self._links = ModelLinks(root, model)
        self._load_options = LoadOptions(
            threads, max(runners, 1), tuple(devices), warmup, check, load_timeout_s
        )
        self._capture = Capture(self._links.desk)
        self._judges = Judges(compare, score)
        self._shadow: Shadow | None = None
        self._checks = InputChecks()
        self._labels = Labels(self._links.desk)
        self._app = app or os.path.basename(sys.argv[0] or "python")
        self._heartbeat_s, self._inotify, self._wait_s = heartbeat_s, inotify, wait_s
        self._closed = False
        self._left_behind: list[object] = []
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._keeper: Follower | None = None
        _all.add(self)
        try:
            self._ready(wait_s)
        except BaseException:
            self.close()
            raise

    # --- calling

    def run(self, feeds: Mapping[str, Any]) -> Answer:
        """Return the outputs for one set of inputs by name; `.version` of it made them all.

        What the runtime raises comes through and counts as an error of that version.
        """
        keeper = self._keeper or self._ready(self._wait_s)
        serving = keeper.serving
        generation = serving.enter()
        try:
            return self._call(generation, feeds, generation.overlay)
        finally:
            serving.leave(generation)

    async def arun(self, feeds: Mapping[str, Any]) -> Answer:
        """Do the same in a thread, so that the event loop goes on."""
        import asyncio

        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads(), self.run, feeds)

    @contextmanager
    def pin(self) -> Iterator[Pinned]:
        """Keep one version for several calls: no switch comes between them."""
        keeper = self._keeper or self._ready(self._wait_s)
        serving = keeper.serving
        generation = serving.enter()
        try:
            yield Pinned(self, generation, generation.overlay)
        finally:
            serving.leave(generation)

    def _call(
        self, generation: Generation, feeds: Mapping[str, Any], overlay: Overlaid | None
    ) -> Answer:
        """Answer a call. What is counted, compared and captured is the version's own answer: it is
        versions that gates and references are about."""
        version = generation.version
        inputs = self._capture.copied(feeds) or self._labels.copied(feeds)
        begun = time.perf_counter()
        try:
            outputs = generation.run(feeds)
        except BaseException:
            self._recorder.call(version, 0.0, failed=True)
            raise
        ms = (time.perf_counter() - begun) * 1000
        self._recorder.call(version, ms, failed=False)
        if self._checks.answered(self._recorder, version, outputs):
            self._capture.unsure(version, feeds, outputs)
        if self._shadow is not None:
            self._shadow.called(generation, feeds, outputs, ms)
        self._capture.called(version, feeds, outputs)
        return Answer(outputs, version, inputs).overlaid_by(overlay)

    # --- saying how good the answers are

    def score(self, value: float, answer: Answer | None = None, *, metric: str = SCORE) -> None:
        """Report how good an answer was (a confidence, a share of right ones), or another number.

        It is counted for the version that made `answer`, or for the one that serves now; as
        `overlay_METRIC` where that answer was this device's own (docs/learning.md). Where the
        device captures low scores, the inputs of `answer` may be kept (docs/captures.md). Raises
        `ValueError` for NaN, an infinity, or a metric's name that is none.
        """
        version = answer.version if answer is not None else self.version
        overlaid = bool(answer.overlay) if answer is not None else bool(self._front().overlay)
        self._recorder.value(version, metric, value, overlaid=overlaid)
        unsure = False
        if not overlaid:  # references are about what the version itself answers
            unsure = self._checks.number(self._recorder, version, metric, value)
        if metric == SCORE and answer is not None:
            self._capture.scored(version, answer.inputs, answer.base, value, unsure=unsure)

    def observe(self, name: str, value: float) -> None:
        """Report a number about an input, such as its brightness. Where the version's reference has
        edges for it, numbers outside are counted, and many of them are drift (docs/drift.md).
        Raises `ValueError` as `score` does.
        """
        version = self.version
        self._recorder.value(version, name, value)
        self._checks.number(self._recorder, version, name, value)

    def label(self, answer: Answer, y: int, *, source: str = "") -> bool:
        """Keep the inputs of an answer as an example of class `y`, counted from 0, for training
        plans (docs/learning.md). `source` says what the label comes from, as `operator`: plans may
        ask for some. False where the device's owner allows none, or nothing was kept. Raises
        `ValueError` for a source that is no name.
        """
        return answer.inputs is not None and self._labels.keep(answer.inputs, int(y), source)

    # --- describing

    @property
    def version(self) -> Version:
        """The version that answers the next call."""
        return self._front().version

    @property
    def inputs(self) -> Sequence[Any]:
        """Its inputs: name, dtype and shape, where -1 may vary."""
        return self._front().inputs

    @property
    def outputs(self) -> Sequence[Any]:
        """Its outputs, likewise."""
        return self._front().outputs

    @property
    def refused(self) -> dict[str, str]:
        """Why versions that the links name are not serving here: sentences by folder name."""
        keeper = self._keeper
        return {n: r.sentence for n, r in dict(keeper.refused).items()} if keeper else {}

    def _front(self) -> Generation:
        keeper = self._keeper or self._ready(self._wait_s)
        front = keeper.serving.front
        if front is None:
            raise NoVersion(f"{self.model}: no version is loaded")
        return front

    # --- beginning and ending

    def wait_for(self, version: str, timeout_s: float) -> bool:
        """Wait until that version serves here; False if it does not in time."""
        keeper = self._keeper or self._ready(self._wait_s)

        def serves() -> bool:
            front = keeper.serving.front
            return front is not None and front.version.version == version

        with keeper.changed:
            return keeper.changed.wait_for(serves, timeout_s)

    def _ready(self, wait_s: float | None) -> Follower:
        """Return the keeper of this process with a version loaded; start it if need be."""
        with self._lock:
            if self._closed:
                raise LiveError(f"{self.model}: closed")
            if self._keeper is None:
                desk = Heartbeat(self._links.desk, self._app, self._heartbeat_s)
                self._recorder = Recorder(self._links.desk, desk.id)
                self._shadow = Shadow(
                    self._links, self._load_options, desk.id, self._judges, self._capture
                )
                self._keeper = Follower(
                    self._links,
                    self._load_options,
                    desk,
                    self._recorder,
                    self._shadow,
                    inotify=self._inotify,
                )
                _close_with_worker()
            keeper = self._keeper
        self._wait(keeper, wait_s)
        return keeper

    def _wait(self, keeper: Follower, wait_s: float | None) -> None:
        ends = None if wait_s is None else time.monotonic() + wait_s
        with keeper.changed:
            keeper.changed.wait_for(lambda: keeper.looked)
            while keeper.serving.front is None and not self._closed:
                left = None if ends is None else ends - time.monotonic()
                if left is not None and left <= 0 and not keeper.busy:
                    raise self._nothing(keeper)
                keeper.changed.wait(1.0 if left is None or left <= 0 else min(left, 1.0))

    def _nothing(self, keeper: Follower) -> LiveError:
        if keeper.refused:
            sentence = next(iter(keeper.refused.values())).sentence
            return LoadFailed(f"{self.model}: no version here can be loaded: {sentence}")
        return NoVersion(f"{self.model}: {self._links.folder} has no version yet")

    def _threads(self) -> ThreadPoolExecutor:
        from concurrent.futures import ThreadPoolExecutor

        with self._lock:
            if self._pool is None:
                count = max(self._load_options.runners, min(os.cpu_count() or 1, 4))
                self._pool = ThreadPoolExecutor(count, thread_name_prefix=f"live-{self.model}")
            return self._pool

    def close(self, state: str = "stopped") -> None:
        """End it: calls in flight finish, later ones raise `LiveError`."""
        with self._lock:
            self._closed = True
            keeper, self._keeper = self._keeper, None
            pool, self._pool = self._pool, None
        if pool:
            pool.shutdown(wait=True)
        if keeper:
            keeper.stop(state)
            keeper.serving.swap(None)
            keeper.serving.close_drained()
        self._capture.close()  # last: what is tried in shadow may add a case until it ends

    def __enter__(self) -> LiveModel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _forked(self) -> None:
        """In a child after a fork: threads are gone and a runtime's own may be; begin anew.

        What the parent loaded is kept but not touched: to tear it down here could hang.
        """
        self._left_behind += [self._keeper, self._pool]
        self._keeper = self._pool = None
        if self._shadow is not None:
            self._shadow.forget()
        self._shadow = None
        self._lock = threading.Lock()
        self._recorder = Recorder(self._links.desk, "left-behind")
        self._capture = Capture(self._links.desk)


class Pinned:
    """One version, held for several calls."""

    def __init__(self, model: LiveModel, generation: Generation, overlay: Overlaid | None) -> None:
        self._model, self._generation, self._overlay = model, generation, overlay

    @property
    def version(self) -> Version:
        """The version that is held."""
        return self._generation.version

    def run(self, feeds: Mapping[str, Any]) -> Answer:
        """Call it, as `LiveModel.run` does."""
        return self._model._call(self._generation, feeds, self._overlay)

    async def arun(self, feeds: Mapping[str, Any]) -> Answer:
        """Do the same in a thread."""
        import asyncio

        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._model._threads(), self.run, feeds)


# --- processes: forks and ends

_all: weakref.WeakSet[LiveModel] = weakref.WeakSet()
_held: list[Serving] = []


def _before_fork() -> None:
    for model in list(_all):
        keeper = model._keeper
        if keeper:
            keeper.serving.lock.acquire()
            _held.append(keeper.serving)


def _after_fork() -> None:
    while _held:
        _held.pop().lock.release()


def _after_fork_in_child() -> None:
    _after_fork()
    for model in list(_all):
        model._forked()


def _at_exit() -> None:
    # a process that ends by an exception which nobody caught did not end well
    ended_well = getattr(sys, "last_value", None) is None
    for model in list(_all):
        model.close("stopped" if ended_well else "crashed")


def _close_with_worker() -> None:
    """The workers of `multiprocessing` end without `atexit`."""
    util = sys.modules.get("multiprocessing.util")
    if util:
        util.Finalize(None, _at_exit, exitpriority=10)


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child
)
atexit.register(_at_exit)
