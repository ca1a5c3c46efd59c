"""A genuine S3 server for the tests: Ceph's radosgw, with one monitor and one store in memory.

It is in Debian (ceph-mon, ceph-osd, radosgw, ceph-common), and takes about 20 seconds to start.
"""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

PROGRAMS = ("ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw")
PR_SET_PDEATHSIG = 1
# With cephx off radosgw never connects.
CONFIG = """[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon},v1:127.0.0.1:{mon1}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
run dir = {folder}
admin socket = {folder}/$name.asok
log file = {folder}/$name.log
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 6442450944
mon allow pool size one = true
mon data avail warn = 1
mon data avail crit = 1
osd max object name len = 256
keyring = {folder}/keyring
[mon.a]
mon data = {folder}/mon
mon pg warn min per osd = 0
[osd.0]
osd data = {folder}/osd
[client.admin]
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw thread pool size = 16
rgw enable usage log = false
rgw dns name = 127.0.0.1
"""


def is_here() -> bool:
    return all(shutil.which(name) for name in PROGRAMS)


@contextlib.contextmanager
def running_radosgw(access: str, secret: str) -> Iterator[str]:
    """Start it with one user; yields its URL."""
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="pw-ceph-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        cluster = _Cluster(folder, stack)
        cluster.start()
        cluster.run(
            "radosgw-admin -n client.admin user create --uid=test --display-name=test "
            f"--access-key={access} --secret-key={secret}"
        )
        yield cluster.url


class _Cluster:
    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self._port, self._mon, self._mon1 = _free_ports(3)
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        fsid, config = uuid.uuid4(), self._folder / "ceph.conf"
        keys, address = (
            self._folder / "keyring",
            f"v2:127.0.0.1:{self._mon},v1:127.0.0.1:{self._mon1}",
        )
        config.write_text(
            CONFIG.format(
                fsid=fsid, folder=self._folder, port=self._port, mon=self._mon, mon1=self._mon1
            )
        )
        for name in ("mon", "osd"):
            (self._folder / name).mkdir()
        _run(
            [
                "ceph-authtool",
                "--create-keyring",
                keys,
                "--gen-key",
                "-n",
                "mon.",
                "--cap",
                "mon",
                "allow *",
            ]
        )
        caps = [word for part in ("mon", "osd", "mgr") for word in ("--cap", part, "allow *")]
        _run(["ceph-authtool", keys, "--gen-key", "-n", "client.admin", *caps])
        _run(
            [
                "monmaptool",
                "--create",
                "--fsid",
                fsid,
                "--addv",
                "a",
                f"[{address}]",
                self._folder / "monmap",
            ]
        )
        self.run(f"ceph-mon --mkfs -i a --monmap {self._folder}/monmap --keyring {keys}")
        self._start("ceph-mon -i a -f")
        _until(lambda: self._says("ceph mon stat", ""))
        number = uuid.uuid4()
        self.run(f"ceph osd new {number} 0")
        caps = ["--cap", "mon", "allow profile osd", "--cap", "osd", "allow *"]
        _run(["ceph-authtool", keys, "--gen-key", "-n", "osd.0", *caps])
        self.run(f"ceph auth import -i {keys}")
        self.run(f"ceph-osd -i 0 --mkfs --osd-uuid {number}")
        self._start("ceph-osd -i 0 -f")
        _until(lambda: self._says("ceph osd stat", "1 up"))
        self._start("radosgw -n client.admin -f")
        _until(self._answers)

    def run(self, line: str) -> str:
        program, *words = line.split()
        return _run([program, "-c", self._folder / "ceph.conf", *words])

    def _says(self, line: str, what: str) -> bool:
        try:
            return what in self.run(line)
        except (AssertionError, subprocess.TimeoutExpired):
            return False

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(self.url, timeout=5).close()
        except urllib.error.HTTPError as answer:
            answer.close()
        except OSError:
            return False
        return True

    def _start(self, line: str) -> None:
        program, *words = line.split()
        log = self._stack.enter_context((self._folder / f"{program}.out").open("wb"))
        process = subprocess.Popen(
            [program, "-c", str(self._folder / "ceph.conf"), *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=end_with_parent,
        )
        self._stack.callback(process.wait, 20)
        self._stack.callback(process.kill)


def end_with_parent() -> None:
    """Have a program end when the tests are killed; only Linux knows how."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _run(words: list[object]) -> str:
    done = subprocess.run(
        [str(word) for word in words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _until(done: Callable[[], bool], *, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "Ceph did not start"
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in held]
