"""No process that a server or an agent has started outlives it, not even where it is killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import psutil
import pytest

from pilotwave_protocol.digest import sha256_hex
from pilotwave_server.blobs.filesystem import FileBlobs
from pilotwave_server.db import Database
from pilotwave_server.deltas import jobs
from pilotwave_server.deltas.needs import Pair
from tests.conftest import ServerFactory
from tests.servers import ServerProcess

SIZE = 48 << 20  # 17 s of work


def until(found: Callable[[], bool], *, seconds: float) -> bool:
    """Whether something comes about in time."""
    deadline = time.monotonic() + seconds
    while not found():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def below(pid: int, word: str) -> list[psutil.Process]:
    """The descendants of a process whose command line holds a word."""
    try:
        found = psutil.Process(pid).children(recursive=True)
        return [child for child in found if any(word in part for part in child.cmdline())]
    except psutil.Error:
        return []


def ends(child: psutil.Process) -> bool:
    return not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def want_a_delta(data: Path) -> None:
    """Give a server two blobs between which it makes a delta, for some seconds."""
    luck, blobs, shas = random.Random(7), FileBlobs(data / "blobs"), []
    for _ in range(2):
        raw = luck.randbytes(SIZE)
        shas.append(sha256_hex(raw))
        with blobs.begin(shas[-1], offset=0, length=SIZE, restart=True) as upload:
            upload.write([raw])
            upload.finish()
    database = Database(f"sqlite:///{data / 'pilotwave.db'}")
    with database.write() as session:
        pair = Pair("detector", shas[0], shas[1], SIZE)
        jobs.note(session, [pair], now=datetime.now(timezone.utc))
    database.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_maker_of_deltas_ends_with_a_server_that_is_killed(
    server_factory: ServerFactory, workers: int
) -> None:
    server: ServerProcess = server_factory(workers=workers, host="127.0.0.1")
    want_a_delta(server.data)
    assert server.process is not None
    pid = server.process.pid
    assert until(lambda: bool(below(pid, "pilotwave_deltas")), seconds=30)
    makers = below(pid, "pilotwave_deltas")
    others = psutil.Process(pid).children(recursive=True)
    server.kill()
    assert until(lambda: all(map(ends, makers)), seconds=5)
    assert until(lambda: all(map(ends, others)), seconds=25)


def test_a_maker_ends_with_its_pipe_where_no_kernel_helps(tmp_path: Path) -> None:
    """What another system than Linux does: the pipe's end is the parent's end."""
    reader, writer = os.pipe()
    words = "import sys, time\nfrom pilotwave_deltas import lifeline\nsys.platform = 'other'\n"
    words += "lifeline.hold()\nprint('up', flush=True)\ntime.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", words], stdin=reader, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"up\n"
    os.close(reader)
    os.close(writer)
    assert child.wait(10) == 1
    child.stdout.close()


def test_a_probe_that_hangs_ends_with_an_agent_that_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    words = (
        "import sys\nfrom pathlib import Path\nfrom pilotwave_agent import health\n"
        "about = health.Subject('m', '1', Path('/'), 'probation')\n"
        f"command = ['sh', '-c', 'echo $$ >{pid_file}; exec sleep 60']\n"
        "health.run_program(command, about, timeout_s=60)"
    )
    agent = subprocess.Popen([sys.executable, "-c", words])
    assert until(lambda: pid_file.exists() and bool(pid_file.read_text()), seconds=30)
    probe = psutil.Process(int(pid_file.read_text()))
    agent.send_signal(signal.SIGKILL)
    agent.wait()
    assert until(lambda: ends(probe), seconds=5)
