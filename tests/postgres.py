"""A PostgreSQL server for the tests, started from the binaries that are there: those of the package
pgserver, or an installed PostgreSQL's. It needs no set-up and no network, and keeps nothing.

PostgreSQL refuses to run as root; for root it runs as `nobody`, in a folder of that user's.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import psycopg.conninfo

PR_SET_PDEATHSIG = 1
# The data is thrown away, so nothing is gained by waiting for the disk.
FAST = ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "autovacuum=off"]
SMALL = ["max_connections=300", "shared_buffers=32MB", "max_wal_senders=0", "wal_level=minimal"]


def find_binaries() -> Path | None:
    """The folder that holds `initdb` and `postgres`, or None."""
    package = importlib.util.find_spec("pgserver")
    places = (
        [Path(p) / "pginstall" / "bin" for p in package.submodule_search_locations or []]
        if package
        else []
    )
    on_path = shutil.which("postgres")
    if on_path:
        places.append(Path(on_path).resolve().parent)
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((p for p in places if (p / "initdb").exists()), None)


@contextlib.contextmanager
def running_server(binaries: Path, settings: Sequence[str] = (*FAST, *SMALL)) -> Iterator[str]:
    """Start a server on a socket of its own; yields the URL of its `postgres` database."""
    # Not pytest's own temporary folder: that one is closed to other users, and its path too long.
    folder = Path(tempfile.mkdtemp(prefix="pw-pg-"))
    try:
        user = _other_user(folder)
        if user:
            binaries = _reachable(binaries, folder)
        data = folder / "data"
        initdb = [str(binaries / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust"]
        options: dict[str, Any] = {"cwd": folder, "stdin": subprocess.DEVNULL, **user}
        initdb += ["-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run(initdb, check=True, capture_output=True, **options)
        with (folder / "log").open("wb") as log:
            command = [str(binaries / "postgres"), "-D", str(data), "-k", str(folder), "-h", ""]
            for setting in settings:
                command += ["-c", setting]
            process = subprocess.Popen(
                command, stdout=log, stderr=log, preexec_fn=_end_with_parent, **options
            )
        try:
            url = f"postgresql://postgres@/postgres?host={folder}"
            _wait_for(url, process, folder / "log")
            yield url
        finally:
            process.send_signal(signal.SIGQUIT)
            process.wait(20)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def processes_of(url: str) -> list[int]:
    """Return the processes of a server that runs here, the first its main one."""
    folder = Path(str(psycopg.conninfo.conninfo_to_dict(url)["host"]))
    main = int((folder / "data" / "postmaster.pid").read_text().split()[0])
    children = Path(f"/proc/{main}/task/{main}/children").read_text()
    return [main, *map(int, children.split())]


def _other_user(folder: Path) -> dict[str, Any]:
    """What `subprocess` needs to be told so that the server does not run as root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _reachable(binaries: Path, folder: Path) -> Path:
    """A copy of the binaries where others may not read the original (a checkout under /root)."""
    closed = [p for p in binaries.resolve().parents if not p.stat().st_mode & 0o001]
    if not closed:
        return binaries
    # A wheel keeps the libraries that its programs need beside the package.
    package = binaries.parents[1]
    copy = folder / "install"
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.exists():
            shutil.copytree(part, copy / part.name, symlinks=True)
    owner = folder.stat()
    for path in [copy, *copy.rglob("*")]:
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
    return copy / binaries.relative_to(package.parent)


def _end_with_parent() -> None:
    """Have the server end when the tests are killed; only Linux knows how."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(url, connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {log.read_text()}") from None
            time.sleep(0.05)
