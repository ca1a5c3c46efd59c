"""A device's resident half, real code over real HTTP, without the work of a child process."""

from __future__ import annotations

from pathlib import Path

from pilotwave_agent import identity
from pilotwave_agent.check_in.numbering import Sequence
from pilotwave_agent.commands.enrol import EnrolOptions, enrol
from pilotwave_agent.core.journal import Journal, read_state
from pilotwave_agent.core.records import noticed
from pilotwave_agent.core.schedule import Schedule
from pilotwave_agent.core.state import DeviceState
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.resident.session import Session
from pilotwave_agent.settings import config as settings
from pilotwave_agent.work import Job, count
from tests.peers.simulated import SimulatedClock

WALL = 1_770_000_000.0


class Board:
    """An enrolled device that visits its server when a test says so."""

    def __init__(self, url: str, folder: Path, code: str, root: Path) -> None:
        self.config_path = folder / "agent.toml"
        list(
            enrol(
                EnrolOptions(url, folder.name, code=code, root_file=root), self.config_path, folder
            )
        )
        self.config = settings.load(self.config_path)
        self.layout = Layout(folder)
        self.directives: list[bytes] = []
        self.clock = SimulatedClock(WALL)
        self.restart()

    def restart(self) -> None:
        """Start the agent anew on its data folder."""
        if hasattr(self, "talk"):
            self.talk.channel.close()
        self.who = identity.load(self.layout)
        schedule = Schedule(self.who.poll_interval_s, self.who.check_in_interval_s)
        seq = Sequence(Disk(), self.layout.seq)
        self.talk = Session(self.config, self.who, seq, schedule, self.clock)

    def happens(self, detail: str) -> None:
        """Have an event come about."""
        self._journal().append(noticed("tried", at=self.clock.wall(), detail=detail))

    def work(self) -> None:
        """Note in the journal what the child notes there before all else."""
        reporter = self.talk.reporter
        job = Job(acked=reporter.acked, journal=reporter.journal)
        count(self._journal(), job, self.clock.wall())

    def visit(self) -> None:
        """Check in and poll, as the resident agent does."""
        self.clock.sleep(4000.0)
        heard = self.talk.check_in(self.state())
        if heard and heard.renumber:
            self.work()
        heard = self.talk.poll(self.state())
        if heard and heard.directive is not None:
            self.directives.append(heard.directive)
        self.work()

    def _journal(self) -> Journal:
        return Journal(Disk(), self.layout.journal)

    def state(self) -> DeviceState:
        return read_state(self.layout.journal)
