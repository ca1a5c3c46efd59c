"""Say what a service may do: run in place of it, within the same unit.   probe.py DATA agent|server

Each line of the tables is an action, and whether the sandbox of the unit has to allow it. The
status is 1 if one of them went the other way.
"""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import sys
from collections.abc import Callable
from pathlib import Path

NEWNS, NEWUSER, NEWNET = 0x00020000, 0x10000000, 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)
SCHED_FIFO = 1


def must(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def in_child(action: Callable[[], object]) -> None:
    """Do it in another process, which it may change for good."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
        except OSError as e:
            os._exit(e.errno or 1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        raise OSError(status, os.strerror(abs(status)))


def unshare(what: int) -> None:
    in_child(lambda: must(LIBC.unshare(what)))


def write(path: str) -> None:
    made = Path(path, "written-by-a-probe")
    made.write_text("x")
    made.unlink()


def set_user_id_bit(folder: Path) -> None:
    made = folder / "set-user-id"
    made.touch()
    try:
        made.chmod(0o4755)
    finally:
        made.unlink()


def see_others() -> None:
    if not Path("/proc/1/status").exists():
        raise PermissionError("no /proc/1")


def connect() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    socket.create_connection(listener.getsockname(), timeout=5).close()


def raise_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def actions(data: Path) -> dict[str, Callable[[], object]]:
    kept = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nowhere"))
    return {
        "write to its data folder": lambda: write(str(data)),
        "write to /tmp": lambda: write("/tmp"),  # noqa: S108
        "connect to an address": connect,
        "open netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0),
        "step back behind others": lambda: os.setpriority(os.PRIO_PROCESS, 0, 10),
        "raise its limit of files": raise_files,
        "read its certificate's key": (kept / "tls-key").read_bytes,
        "make a network of its own": lambda: unshare(NEWUSER | NEWNET),
        "make mounts of its own": lambda: unshare(NEWUSER | NEWNS),
        "write to /etc": lambda: write("/etc"),
        "write to /var/lib": lambda: write("/var/lib"),
        "write to its own program": lambda: write(str(Path(sys.executable).parent)),
        "write to shared memory of others": lambda: Path("/dev/mem").open("rb"),
        "read passwords": Path("/etc/shadow").read_bytes,
        "read the key that is root's": Path("/etc/pilotwave/tls/key.pem").read_bytes,
        "read root's home": lambda: os.listdir("/root"),
        "see other processes": see_others,
        "open packets": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0),
        "become root": lambda: in_child(lambda: os.setuid(0)),
        "give a file to root": lambda: os.chown(data, 0, 0),
        "make a file that runs as its owner": lambda: set_user_id_bit(data),
        "mount": lambda: must(LIBC.mount(b"none", b"/tmp", b"tmpfs", 0, None)),
        "run before all others": lambda: os.sched_setscheduler(0, SCHED_FIFO, os.sched_param(1)),
        "read the kernel's log": lambda: Path("/dev/kmsg").open("rb"),
        "name the host": lambda: socket.sethostname("other"),
    }


ALLOWED = {
    "server": (
        "write to its data folder",
        "write to /tmp",
        "connect to an address",
        "step back behind others",
        "raise its limit of files",
        "read its certificate's key",
    ),
    "agent": (
        "write to its data folder",
        "write to /tmp",
        "connect to an address",
        "open netlink",
        "step back behind others",
        "raise its limit of files",
        "make a network of its own",
    ),
}


def main(data: str, who: str) -> int:
    wrong = 0
    for name, action in actions(Path(data)).items():
        try:
            action()
            said = "done"
        except OSError as e:
            said = f"refused ({e.strerror or e})"
        fits = said == "done" if name in ALLOWED[who] else said != "done"
        wrong += not fits
        print(f"{'ok ' if fits else 'BAD'} {name}: {said}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
