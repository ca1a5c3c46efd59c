#!/usr/bin/env python3
"""A model that is a program, and tries to get out of its self-test. It passes if nothing works.

`where.txt` beside it holds lines: HOST PORT of the server, the agent's data folder.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

LEFT_BEHIND = "987654"


def connect(host: str, port: str) -> None:
    socket.create_connection((host, int(port)), timeout=5).close()


def send(host: str, port: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b"x", (socket.gethostbyname(host), int(port)))


def knock(data: Path) -> None:
    found = next(path for path in data.rglob("*") if path.is_socket())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.connect(str(found))


def read_keys(data: Path) -> None:
    found = [path for path in (data / "identity").iterdir() if path.is_file()]
    found[0].read_bytes()


def write_beside(data: Path) -> None:
    (data / "left-behind").write_text("x")


def end_the_agent() -> None:
    for name in os.listdir("/proc"):
        words = b""
        if name.isdigit() and int(name) != os.getpid():
            words = Path(f"/proc/{name}/cmdline").read_bytes()
        if b"pilotwave-agent" in words and b"worker" not in words:
            with contextlib.suppress(PermissionError):
                os.kill(int(name), signal.SIGTERM)
                return
    raise ProcessLookupError("it is not seen")


def main() -> int:
    subprocess.Popen(["sleep", LEFT_BEHIND], start_new_session=True)  # it must not stay
    where, folder = (Path(__file__).parent / "where.txt").read_text().splitlines()
    host, port = where.split()
    data = Path(folder)
    actions: dict[str, Callable[[], object]] = {
        "reached the server": lambda: connect(host, port),
        "sent a datagram": lambda: send(host, port),
        "reached the agent's socket": lambda: knock(data),
        "read the agent's key": lambda: read_keys(data),
        "wrote into the agent's folder": lambda: write_beside(data),
        "ended the agent": end_the_agent,
    }
    done = []
    for name, action in actions.items():
        try:
            action()
            done.append(name)
        except (OSError, StopIteration, IndexError) as e:
            print(f"{name}: {type(e).__name__} {e}", file=sys.stderr)
    print("it " + ", ".join(done) if done else '{"cases": 0}')
    return 1 if done else 0


if __name__ == "__main__":
    sys.exit(main())
