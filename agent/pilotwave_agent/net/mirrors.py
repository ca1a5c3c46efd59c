"""Which sources of files there are beside the server, and which of them are left alone for now.

A mirror is a cache of what the server has, near the device. It is believed in nothing. One that is
dead, slow or gives out wrong bytes is left alone for a while, which doubles each time, and the
server is asked instead. That is remembered on disk, as the agent's work is done in short-lived
processes. How one file is fetched from them is `sources`'s to say.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.log import say
from pilotwave_agent.net.download_hosts import find_host
from pilotwave_agent.net.http import Channel

DEAD_S = 30.0
WRONG_S = 600.0
LONGEST_S = 6 * 3600.0


@dataclass(frozen=True)
class Health:
    """How often in a row a mirror has failed, until when (epoch seconds) it is left alone, why."""

    failures: int = 0
    until: float = 0.0
    why: str = ""

    def well(self, now: float) -> bool:
        """Say whether it may be asked; a clock that was set back keeps nobody away for ever."""
        return not now < self.until <= now + LONGEST_S


class Mirrors:
    """A device's mirrors in the order of its settings. Not safe for threads."""

    def __init__(
        self,
        urls: Sequence[str] = (),
        *,
        hosts: Sequence[str] = (),
        disk: Disk | None = None,
        path: Path | None = None,
        connect: Callable[[str], Channel] = Channel,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`path` is where health is kept; without it, it is forgotten with this object. `connect`
        makes the channel to a mirror. `hosts` are object stores that the server may name for a
        file (`download_hosts`); they are left alone like mirrors."""
        self.urls, self.hosts = tuple(urls), tuple(hosts)
        self.direct_bytes: Counter[str] = Counter()  # by host, for the report
        self._disk, self._path, self._clock = disk or Disk(), path, clock
        self._connect = connect
        self._channels: dict[str, Channel] = {}
        self._health = self._read() if urls or hosts else {}

    def usable(self) -> list[str]:
        """Return the mirrors that may be asked now, the best first."""
        return [url for url in self.urls if self.is_well(url)]

    def is_well(self, url: str) -> bool:
        """Say whether a mirror or a host may be asked now."""
        return self.health(url).well(self._clock())

    def any_host(self) -> bool:
        """Say whether there is an object store that may be asked now."""
        return any(map(self.is_well, self.hosts))

    def usable_host(self, url: object) -> tuple[str, str] | None:
        """Return the host of the settings that a URL is at, and what to ask it for; None where it
        is none of them, or is left alone."""
        found = find_host(url, self.hosts)
        return found if found is not None and self.is_well(found[0]) else None

    def health(self, url: str) -> Health:
        """Return how a mirror is."""
        return self._health.get(url, Health())

    def channel(self, url: str) -> Channel:
        """Return the connection to a mirror."""
        if url not in self._channels:
            self._channels[url] = self._connect(url)
        return self._channels[url]

    def close(self) -> None:
        """Close all connections."""
        for channel in self._channels.values():
            channel.close()

    def failed(self, url: str, why: str, *, wrong: bool = False) -> None:
        """Leave a mirror alone for a while; for longer if it gave out `wrong` bytes."""
        before = self.health(url)
        first_s = WRONG_S if wrong else DEAD_S
        alone_s = min(first_s * 2 ** min(before.failures, 20), LONGEST_S)
        self._note(url, Health(before.failures + 1, self._clock() + alone_s, why[:200]))
        say(f"mirror {url} is left alone for {alone_s:.0f} s: {why}", level="warning")

    def served(self, url: str) -> None:
        """A mirror gave a whole file that is the right one."""
        if self.health(url).failures:
            self._note(url, Health())
            say(f"mirror {url} serves again")

    @property
    def _all(self) -> tuple[str, ...]:
        return (*self.urls, *self.hosts)

    def _note(self, url: str, health: Health) -> None:
        self._health[url] = health
        if self._path is None:
            return
        kept = {url: asdict(h) for url, h in self._health.items() if url in self._all}
        with contextlib.suppress(OSError):  # a full disk: it is known here, and found out again
            self._disk.make_dirs(self._path.parent)
            self._disk.write_atomic(self._path, json.dumps(kept).encode())

    def _read(self) -> dict[str, Health]:
        """Read what was known before; what makes no sense is forgotten, and found out again."""
        if self._path is None:
            return {}
        try:
            found = json.loads(self._disk.read(self._path))
            health = {url: Health(**found[url]) for url in self._all if url in found}
            for each in health.values():
                each.well(self._clock() + each.failures)
                each.why.encode()
        except (OSError, ValueError, TypeError, AttributeError):
            return {}
        return {url: replace(h, failures=min(max(h.failures, 0), 20)) for url, h in health.items()}
