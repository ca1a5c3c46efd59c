"""An agent at rest: its memory (PSS), bytes and requests of an idle poll, CPU, files touched.

Then days of it at several poll intervals, in seconds: the agent's own code and real HTTP to a real
server, under a clock that only waiting moves. A wake-up is a sleep that came to its end, those for
systemd's watchdog included; bytes are HTTP's, both ways; CPU is the agent's thread's.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

from _bench import MODEL, Bench, enrol, main, memory_kb, publish, server

from demo.stage import Stage
from pilotwave_agent.settings import config as settings
from tests.peers.simulated import SimulatedAgent, SimulatedClock

DAY = 86_400.0
# (name, poll interval in seconds, profile, WatchdogSec of the unit)
DAYS = (
    ("1_min", 60, "standard", 300),
    ("5_min", 300, "standard", 300),
    ("15_min", 900, "standard", 300),
    ("15_min_battery", 900, "battery", 7200),
)


class Meter:
    """A TCP relay on loopback that counts the bytes of each direction and keeps what was said."""

    def __init__(self, port: int) -> None:
        self.origin = port
        self.up = self.down = self.requests = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            near, _ = self.listener.accept()
            far = socket.create_connection(("127.0.0.1", self.origin))
            threading.Thread(target=self._pump, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        try:
            while block := source.recv(65536):
                if up:
                    self.up += len(block)
                    self.requests += block.count(b"GET ") + block.count(b"POST ")
                else:
                    self.down += len(block)
                sink.sendall(block)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def newest_write(folder: Path) -> float:
    """Return when a file below a folder was last written, in seconds."""
    return max(p.lstat().st_mtime for p in folder.rglob("*"))


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def a_day(bench: Bench, stage: Stage, meter: Meter, day: tuple[str, int, str, int]) -> None:
    """Let a simulated day pass on a device at rest, and say what it took."""
    name, poll_s, profile, watchdog_s = day
    path = stage.root / "idle-1" / "agent.toml"
    config = replace(settings.load(path), max_poll_interval_s=float(poll_s), profile=profile)
    os.environ["WATCHDOG_USEC"] = str(watchdog_s * 1_000_000)
    clock = SimulatedClock(time.time())
    agent = SimulatedAgent(config, path, clock)
    agent.live(3600)  # until the start's check of all files is over
    up, down, asked = meter.up, meter.down, meter.requests
    woken, cpu = clock.wakeups, time.thread_time()
    agent.live(DAY / 4 if bench.quick else DAY)
    cpu, share = time.thread_time() - cpu, 4 if bench.quick else 1
    time.sleep(0.2)
    agent.close()
    bench.figure(f"day_{name}_wake_ups", (clock.wakeups - woken) * share)
    bench.figure(f"day_{name}_requests", (meter.requests - asked) * share)
    bench.figure(f"day_{name}_kB", (meter.up - up + meter.down - down) * share / 1000)
    bench.figure(f"day_{name}_cpu_s", cpu * share)


def measure(bench: Bench) -> None:
    polls = 10 if bench.quick else 60
    with server(poll_interval_s=1, check_in_interval_s=600) as stage:
        meter = Meter(int(stage.url.rsplit(":", 1)[1]))
        publish(stage, "1.0.0")
        stage.pilotwave("groups", "create", "all", "--selector", "site=bench")
        stage.pilotwave("assign", "--yes", MODEL, "1.0.0", "--group", "all")
        enrol(stage, "idle-1", server_url=meter.url, extra="probation_s = 1")
        agent = stage.start("idle-1", "pilotwave-agent", "run", "--data", "idle-1")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            models = stage.ask("devices", "show", "idle-1")["models"]
            if models and models[0]["state"] == "healthy":
                break
            time.sleep(0.5)
        else:
            raise SystemExit("the agent did not come to rest within 60 s")
        time.sleep(5)
        bench.say("the agent runs one healthy model and polls every second")
        written = newest_write(stage.root / "idle-1")
        up, down, asked, cpu = meter.up, meter.down, meter.requests, cpu_seconds(agent.pid)
        started = time.monotonic()
        while meter.requests - asked < polls and time.monotonic() - started < polls * 3:
            time.sleep(0.1)
        time.sleep(0.5)
        count = meter.requests - asked
        both = (meter.up - up + meter.down - down) / count
        bench.figure("idle_polls", count)
        bench.figure("bytes_up_per_poll", (meter.up - up) / count)
        bench.figure("bytes_down_per_poll", (meter.down - down) / count)
        bench.figure("bytes_per_poll", both, "at most 600", both <= 600)
        bench.figure("cpu_ms_per_poll", (cpu_seconds(agent.pid) - cpu) / count * 1000)
        wrote = newest_write(stage.root / "idle-1") > written
        bench.figure("files_written_while_idle", "yes" if wrote else "none", "none", not wrote)
        pss = memory_kb(agent.pid, "Pss") / 1024
        bench.figure("pss_mb", pss, "at most 32 MB", pss <= 32)
        bench.figure("rss_mb", memory_kb(agent.pid, "VmRSS") / 1024)
        agent.terminate()
        agent.wait()
    # a day goes by in seconds there, so its check-ins come close together here
    wide = {"check_ins_per_minute": 6000}
    with server(poll_interval_s=900, check_in_interval_s=3600, **wide) as stage:
        meter = Meter(int(stage.url.rsplit(":", 1)[1]))
        enrol(stage, "idle-1", server_url=meter.url)
        bench.say("simulated days" + (" (a quarter of each)" if bench.quick else ""))
        for day in DAYS:
            a_day(bench, stage, meter, day)


if __name__ == "__main__":
    main("agent_idle", measure)
