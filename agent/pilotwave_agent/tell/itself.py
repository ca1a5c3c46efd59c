"""Tell the agent's own service of a new agent: it restarts, and the new one must prove itself.

Whoever asks here may be the old agent or the new one: what either knows is in the note of the trial
(`self_update`), and in what this process has done so far.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from pilotwave_agent.facts import agent_version
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.self_update import slots
from pilotwave_agent.tell.base import Quiet, Release, refused, silent
from pilotwave_protocol.names import is_version_of_agent

_WORDS = {
    "check_in": "no check-in was accepted",
    "poll": "no poll was answered",
    "directive": "no directive was verified",
}


@dataclass
class Itself(Quiet):
    """The agent's own service. `proved` is what this process has done of `slots.PROOF`, `trouble`
    what kept it from more, `uptime` the clock of deadlines."""

    disk: Disk
    layout: Layout
    within_s: float
    proved: Collection[str]
    trouble: str
    uptime: Callable[[], float]

    def stage(self, release: Release) -> None:
        """Note the trial: the link is moved after that, so that no start of it is uncounted."""
        if not slots.running():
            raise refused("this agent cannot replace itself: no launcher started it")
        slots.begin(self.disk, self.layout, release.name, release.number, self.within_s)

    def activate(self, release: Release) -> None:
        """This process sees that another is to run, and ends (`slots.must_restart`)."""
        self._check(release)

    def confirm(self, release: Release, since: float) -> bool:
        """Say whether the new agent runs, is the one that it says it is, and has proved itself."""
        self._check(release)
        missing = [words for word, words in _WORDS.items() if word not in self.proved]
        trial = slots.trial_of(self.layout.root, release.name)
        late = self.uptime() >= since + self.within_s
        if slots.running() != release.name or trial is None:
            if late:
                raise silent(f"{release.version} was not started within {self.within_s:g} s")
            return False
        mine = agent_version()
        if not is_version_of_agent(mine, release.version):
            raise refused(f"{release.version} says that it is {mine}")
        if missing and late:
            said = f": {self.trouble}" if self.trouble else ""
            raise silent(f"within {self.within_s:g} s {', '.join(missing)}{said}")
        if missing:
            return False
        slots.take(self.disk, self.layout, trial)
        return True

    def _check(self, release: Release) -> None:
        trial = slots.trial_of(self.layout.root, release.name)
        if trial is None or trial.failed:
            why = trial.failed if trial else "the note of its trial cannot be read"
            raise refused(f"{release.version} was taken back: {why}")

    def rollback(self, bad: Release | None, good: Release) -> None:
        """The link is right again; whoever runs sees by it whether it has to end."""
