"""Open a version beside the one that serves, try it, and give up on one that takes too long.

Each load has a thread of its own: a runtime that hangs in it hangs nobody else. What it made is
handed over once, or closed if nobody waits for it any more.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pilotwave_agent.live.generation import Generation, Version, close
from pilotwave_agent.live.links import About, ModelLinks

if TYPE_CHECKING:
    from pilotwave_agent.runtimes import Options, Runner

Feeds = Mapping[str, Any]
Check = Callable[[Mapping[str, Any]], object]


@dataclass(frozen=True)
class LoadOptions:
    """How an application wants its versions opened.

    `runners` is how many calls a runtime without concurrency may work on at once, `warmup` the
    inputs that a new version is tried on (default: its first golden case, else zeros), `check` a
    function of the outputs that returns False or raises to refuse the version.
    """

    threads: int = 1
    runners: int = 1
    devices: tuple[str, ...] = ()
    warmup: Feeds | None = None
    check: Check | None = None
    timeout_s: float = 60.0


class LoadRefused(Exception):
    """The version was opened, and what it answers will not do."""


class Loading:
    """One attempt to open a version; `done` is called from its thread when it has ended."""

    def __init__(
        self, place: ModelLinks, name: str, wish: LoadOptions, done: Callable[[], None]
    ) -> None:
        self.name = name
        self.deadline = time.monotonic() + wish.timeout_s
        self.ended = False
        self.generation: Generation | None = None
        self.no: BaseException | None = None
        self.took_s = 0.0
        self._links, self._load_options, self._done = place, wish, done
        self._lock = threading.Lock()
        self._given_up = False
        self._runners: list[Runner] = []
        threading.Thread(target=self._work, name=f"pilotwave-load-{name}", daemon=True).start()

    def _work(self) -> None:
        begun = time.monotonic()
        made, no = None, None
        try:
            made = self._open()
        except BaseException as e:  # a runtime may raise anything
            no = e
            for runner in self._runners:
                close(runner)
        with self._lock:
            self.took_s = time.monotonic() - begun
            self.generation, self.no, self.ended = made, no, True
            unwanted = self._given_up
        if unwanted and made:
            made.close()
        self._done()

    def _open(self) -> Generation:
        from pilotwave_agent import runtimes

        about = self._links.about(self.name)
        folder = self._links.files(self.name)
        count = self._load_options.runners
        while len(self._runners) < count:
            runner = runtimes.load(
                folder,
                entrypoint=about.entrypoint,
                runtime=about.runtime,
                options=_options(about, self._load_options, self._links.engines),
            )
            self._runners.append(runner)
            if getattr(runner, "concurrent", False):
                count = 1
            self._warm(runner, about)
        return Generation(version_of(about, self.name, self._links), self._runners)

    def _warm(self, runner: Runner, about: About) -> None:
        feeds, finite = self._load_options.warmup, True
        if not feeds and about.cases:
            feeds, finite = _first_case(self._links, self.name, about, runner)
        if not feeds and not self._load_options.check:
            # made up: that a model refuses it, or answers with NaN, says nothing against it
            with contextlib.suppress(Exception):
                runner.run(_zeros(runner))
            return
        feeds = feeds or _zeros(runner)
        runner.run(feeds)  # it pays for what later calls find ready
        outputs = runner.run(feeds)
        if finite:
            _check_finite(outputs)
        if self._load_options.check and self._load_options.check(dict(outputs)) is False:
            raise LoadRefused("the application's check refused its answer")

    def give_up(self) -> None:
        """Want nothing of it any more; a call that hangs is broken off where the runtime can."""
        with self._lock:
            self._given_up = True
            made = self.generation
        if made:
            made.close()
        for runner in list(self._runners):
            cancel = getattr(runner, "cancel", None)
            if cancel and not self.ended:
                cancel()


def version_of(about: About, name: str, place: ModelLinks) -> Version:
    """Return the words by which answers say whose they are."""
    return Version(about.model, about.version, about.variant, about.sha256, name, place.files(name))


def _options(about: About, wish: LoadOptions, engines: Path) -> Options:
    from pilotwave_agent.runtimes import Options, Tensor

    def tensors(specs: tuple[Mapping[str, Any], ...]) -> tuple[Tensor, ...]:
        return tuple(Tensor(t["name"], t["dtype"], tuple(t["shape"])) for t in specs)

    return Options(
        threads=wish.threads,
        devices=wish.devices,
        inputs=tensors(about.inputs),
        outputs=tensors(about.outputs),
        cache=engines,
        precision=about.precision,
        timeout_s=wish.timeout_s,
    )


def _first_case(place: ModelLinks, name: str, about: About, runner: Runner) -> tuple[Feeds, bool]:
    """Return the first golden inputs, and whether the answer to them is finite."""
    import numpy as np

    from pilotwave_agent.runtimes import golden

    cases = golden.read_cases(place.files(name) / (about.cases or ""))
    feeds, part = next(golden.feeds_of(cases, list(runner.inputs)))
    floats = (a[part] for a in cases.outputs.values() if a.dtype.kind in "fc")
    return feeds, all(bool(np.isfinite(a).all()) for a in floats)


def _zeros(runner: Runner) -> Feeds:
    from pilotwave_agent.runtimes import base

    return {t.name: base.zeros(t) for t in runner.inputs}


def _check_finite(outputs: Mapping[str, Any]) -> None:
    import numpy as np

    for name, found in outputs.items():
        array = np.asarray(found)
        if array.dtype.kind in "fc" and not np.isfinite(array).all():
            raise LoadRefused(f"output {name} holds NaN or infinity")


def words_of(e: BaseException) -> str:
    """Return what an exception says, on one line; a runtime's may itself be undecodable."""
    try:
        said = " ".join(str(e).split())
    except Exception:
        said = ""
    return f"{type(e).__name__}: {said}"[:400] if said else type(e).__name__
