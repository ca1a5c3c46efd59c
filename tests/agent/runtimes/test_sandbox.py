"""A hostile model under test, where its format may run code: what it tries, it tries in vain.

The programs below run in real self-tests. Attacks leave their marks inside the test's own folders.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pilotwave_agent.apps import heartbeats
from pilotwave_agent.apps.mailbox import Mailbox
from pilotwave_agent.runtimes import cgroup, confine
from pilotwave_agent.runtimes.supervise import descendants
from pilotwave_agent.selftest import SelfTestFigures, SelfTestFolders, TestLimits, run_selftest
from pilotwave_agent.settings.config import RuntimeSettings
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.manifest import FileEntry, Variant
from pilotwave_protocol.states import Reason
from tests.agent.runtimes.samples import lay_out
from tests.peers.users import EYE, ROOT, as_user, open_folder

LIMITS = TestLimits(timeout_s=60, memory_mb=256)
HEAD = """#!/usr/bin/python3
import ctypes, errno, json, mmap, os, signal, socket, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def tried(what):
    try:
        what()
    except BaseException as e:
        return type(e).__name__
    return "done"
def called(number, *arguments):
    ctypes.set_errno(0)
    return "done" if libc.syscall(number, *arguments) >= 0 else errno.errorcode[ctypes.get_errno()]
"""


def program(folder: Path, script: str) -> Variant:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run").write_text(HEAD + script)
    return Variant("v", "command", "run", (FileEntry("run", 1, "0" * 64),), unsafe_format=True)


def outcome(
    data: Path, script: str, limits: TestLimits = LIMITS
) -> tuple[SelfTestFigures | None, RefusedError | None]:
    variant = program(data / "v", script)
    try:
        return run_selftest(data / "v", variant, limits, place=SelfTestFolders(own=data)), None
    except RefusedError as no:
        return None, no


def said(data: Path, script: str, limits: TestLimits = LIMITS) -> Any:
    """Return what a program found, which it says with its last word."""
    _, no = outcome(data, script + "\nprint('found', json.dumps(found)); sys.exit(1)", limits)
    assert no is not None
    assert "found " in no.sentence, no.sentence
    return json.loads(no.sentence.partition("found ")[2])


def running(mark: str) -> list[str]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                words = Path(f"/proc/{name}/cmdline").read_bytes()
            except OSError:
                continue
            if mark.encode() in words:
                found.append(name)
    return found


# --- what outlives the test

DAEMON = """
mark = MARK
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(120)", mark])
    os._exit(0)
time.sleep(0.5)
"""


@pytest.mark.parametrize("calls", [(), ("unshare",)], ids=["own world", "no namespaces"])
@pytest.mark.parametrize("end", ["", "sys.exit(3)", "os.abort()", "time.sleep(120)"])
def test_nothing_outlives_the_test(tmp_path: Path, end: str, calls: tuple[str, ...]) -> None:
    mark = f"pw-{os.urandom(8).hex()}"
    with contextlib.suppress(RefusedError):
        less(tmp_path, DAEMON.replace("MARK", repr(mark)) + end, *calls, timeout_s=6)
    assert running(mark) == []


def test_a_model_cannot_end_who_watches_it(tmp_path: Path) -> None:
    mark = f"pw-{os.urandom(8).hex()}"
    others = (1, os.getpid(), -1)
    script = f"""
found = [tried(lambda pid=pid: os.kill(pid, signal.SIGKILL)) for pid in {others}]
os.kill(os.getppid(), signal.SIGKILL)
time.sleep(30)
"""
    _, no = outcome(tmp_path, DAEMON.replace("MARK", repr(mark)) + script)
    assert no is not None
    assert running(mark) == []


@pytest.mark.parametrize("calls", [(), ("unshare",)], ids=["own world", "no namespaces"])
def test_a_killed_agent_takes_the_test_with_it(tmp_path: Path, calls: tuple[str, ...]) -> None:
    """The kernel forgets whom to follow when a process leaves for a world of its own."""
    mark = f"pw-{os.urandom(8).hex()}"
    child = os.fork()
    if child == 0:
        less(tmp_path, DAEMON.replace("MARK", repr(mark)) + "time.sleep(120)", *calls)
        os._exit(0)
    until = time.monotonic() + 60
    while not running(mark) and time.monotonic() < until:
        time.sleep(0.05)
    below = descendants(child)
    os.kill(child, 9)
    os.waitpid(child, 0)
    until = time.monotonic() + 20
    while (running(mark) or any(map(_alive, below))) and time.monotonic() < until:
        time.sleep(0.05)
    assert running(mark) == []
    assert [pid for pid in below if _alive(pid)] == []


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


# --- whom it can speak to


def test_no_report_is_forged_on_the_agents_socket(tmp_path: Path) -> None:
    with open_folder() as data:
        (data / "live" / "detector").mkdir(parents=True)
        mailbox = Mailbox(data / "live", "")
        words = {"schema": "pilotwave/app/1", "id": "forged", "model": "detector"}
        script = f"""
path, words = {str(data / "live" / "agent.sock")!r}, {json.dumps(words).encode()!r}
def datagram(kind=socket.SOCK_DGRAM):
    s = socket.socket(socket.AF_UNIX, kind); s.sendto(words, path)
def pair():
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); one.sendto(words, path)
def connected():
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.connect(path); s.send(words)
def streamed():
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM); s.sendto(words, path)
found = [tried(w) for w in (datagram, pair, connected, streamed)]
"""
        found = said(data, script)
        mailbox.empty()
        mailbox.close()
        assert "done" not in found
        assert heartbeats.read(data / "live" / "detector") == []


def test_no_other_programs_sockets_are_open(tmp_path: Path) -> None:
    with open_folder() as outside, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(outside / "s"))
        listener.listen()
        (outside / "s").chmod(0o777)
        abstract = socket.socket(socket.AF_UNIX)
        abstract.bind("\0" + outside.name)
        abstract.listen()
        script = f"""
def connect(path):
    for kind in (1, 5):
        s = socket.socket(socket.AF_UNIX, kind)
        if s.connect_ex(path) == 0:
            return
    raise OSError
found = [tried(lambda p=p: connect(p)) for p in ({str(outside / "s")!r}, "\\0{outside.name}")]
for family, kind in ((2, 1), (2, 2), (10, 1), (17, 3), (38, 5), (40, 1), (31, 5), (1, 2)):
    found.append(tried(lambda: socket.socket(family, kind)))
"""
        found = said(tmp_path, script)
        abstract.close()
    assert "done" not in found


# --- what it takes

SHARED = """
held = []
for _ in range(40):
    m = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
    for at in range(0, 64 << 20, 4096):
        m[at] = 1
    held.append(m)
time.sleep(1)
"""
CHILDREN = """
for _ in range(20):
    if os.fork() == 0:
        held = bytearray(100 << 20)
        for at in range(0, len(held), 4096):
            held[at] = 1
        time.sleep(30); os._exit(0)
time.sleep(5)
"""
MANY_SHARED_FILES = """
for number in range(60):
    with open(f"/dev/shm/pw-{number}", "wb") as f:
        f.write(bytes(60 << 20))
time.sleep(1)
"""


@pytest.mark.parametrize("script", [SHARED, CHILDREN], ids=["shared", "children"])
def test_memory_of_every_kind_counts(tmp_path: Path, script: str) -> None:
    begun = time.monotonic()
    figures, no = outcome(tmp_path, script)
    assert figures is None
    assert no is not None
    assert no.reason in (Reason.SELFTEST_MEMORY, Reason.SELFTEST_CRASH)
    assert time.monotonic() - begun < 20


def test_files_in_shared_memory_are_bounded_and_gone_afterwards(tmp_path: Path) -> None:
    before = set(os.listdir("/dev/shm"))
    figures, no = outcome(tmp_path, MANY_SHARED_FILES)
    assert (figures, no is not None) == (None, True)
    assert set(os.listdir("/dev/shm")) <= before


def test_no_memory_can_be_had_that_nobody_counts(tmp_path: Path) -> None:
    numbers = "(319, 447, 29)" if os.uname().machine == "x86_64" else "(279, 447, 194)"
    script = f"""
found = [called(n, b"x" if n != 29 and n != 194 else 0, 1 << 20, 0o1600) for n in {numbers}]
"""
    assert "done" not in said(tmp_path, script)


FORKS = """
made = 0
try:
    for _ in range(600):
        if os.fork() == 0:
            time.sleep(60); os._exit(0)
        made += 1
except OSError:
    pass
time.sleep(1)
found = made
"""


def test_six_hundred_forks_come_to_an_end(tmp_path: Path) -> None:
    before = len(os.listdir("/proc"))
    script = FORKS + "print('found', json.dumps(found)); sys.exit(1)"
    _, no = outcome(tmp_path, script)
    assert no is not None
    if "found" in no.sentence:
        assert int(no.sentence.partition("found ")[2]) <= cgroup.MOST_PROCESSES
    assert len(os.listdir("/proc")) < before + 100


def test_scratch_is_gone_however_it_was_left(tmp_path: Path, monkeypatch: Any) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    script = """
os.chdir(os.environ["TMPDIR"])
for n in range(300):
    os.mkdir("d" * 20); os.chdir("d" * 20)
os.chdir(os.environ["TMPDIR"])
os.mkdir("closed"); open("closed/x", "w").close(); os.chmod("closed", 0); os.chmod(".", 0o500)
found = 0
"""
    said(tmp_path / "data", script)
    assert os.listdir(scratch) == []


def test_what_reaches_into_other_processes_is_refused(tmp_path: Path) -> None:
    x86 = os.uname().machine == "x86_64"
    calls = {
        "ptrace": (101, 117),
        "process_vm_readv": (310, 270),
        "pidfd_open": (434, 434),
        "io_uring_setup": (425, 425),
        "unshare": (272, 97),
        "setns": (308, 268),
        "keyctl": (250, 219),
        "bpf": (321, 280),
        "perf_event_open": (298, 241),
        "userfaultfd": (323, 282),
        "mount": (165, 40),
    }
    numbers = {name: pair[0 if x86 else 1] for name, pair in calls.items()}
    script = f"found = {{name: called(n, 0, 0, 0, 0, 0) for name, n in {numbers!r}.items()}}\n"
    script += "found['32 bit'] = called(0x40000000 + 39)\n" if x86 else ""
    script += "import resource\nparent = os.getppid()\n"
    script += "found['limits'] = tried(lambda: resource.prlimit(parent, 7, (1, 1)))"
    found = said(tmp_path, script)
    assert set(found.values()) <= {"EPERM", "ENOSYS", "PermissionError"}, found


def test_a_library_s_runtime_starts_no_process(tmp_path: Path) -> None:
    """A model that is opened in a library has no business with programs: it cannot start one."""
    script = """
import os, subprocess, sys, json, threading
sys.path.insert(0, sys.argv[1])
from pilotwave_agent.runtimes import confine, seccomp
confine.confine(confine.Confinement(0, 60), {"own_processes"})
taken = seccomp.forbid_processes()
found = []
for deed in (os.fork, lambda: subprocess.run(["true"]), lambda: os.execv("/bin/true", ["true"])):
    try:
        deed(); found.append("done")
    except OSError as e:
        found.append(type(e).__name__)
t = threading.Thread(target=lambda: found.append("thread")); t.start(); t.join()
print(json.dumps([taken, found]))
"""
    here = Path(confine.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script, here], capture_output=True, check=True)
    taken, found = json.loads(done.stdout)
    assert taken
    assert found == ["PermissionError", "PermissionError", "PermissionError", "thread"]


# --- where less can be had


def settings_of(tmp_path: Path, *calls: str) -> Any:
    python = tmp_path / "python"
    peer = Path(__file__).parents[2] / "peers" / "old_kernel.py"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {peer} {",".join(calls)} "$@"\n')
    python.chmod(0o755)
    return RuntimeSettings(python=str(python))


def less(tmp_path: Path, script: str, *calls: str, **limits: Any) -> SelfTestFigures:
    variant = program(tmp_path / "data" / "v", script)
    return run_selftest(
        tmp_path / "data" / "v",
        variant,
        TestLimits(**{"timeout_s": 60, "memory_mb": 256, **limits}),
        settings_of(tmp_path, *calls),
        SelfTestFolders(own=tmp_path / "data"),
    )


def test_all_that_is_needed_holds_here(tmp_path: Path) -> None:
    figures, _ = outcome(tmp_path, "")
    assert figures is not None
    assert confine.lacking(figures.confined) == []


def test_a_container_without_namespaces_confines_enough(tmp_path: Path) -> None:
    mark = f"pw-{os.urandom(8).hex()}"
    figures = less(tmp_path, DAEMON.replace("MARK", repr(mark)), "unshare")
    assert "own_processes" not in figures.confined
    assert confine.lacking(figures.confined) == []
    assert running(mark) == []


def test_an_old_kernel_hides_the_agents_files_by_mounts(tmp_path: Path) -> None:
    """As Linux 4.9 on a Jetson, which has no Landlock."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "device.key").write_text("secret")
    script = f"sys.exit(os.path.exists({str(tmp_path / 'data' / 'device.key')!r}))"
    figures = less(tmp_path, script, "landlock")
    assert "no_files" in figures.confined
    assert confine.lacking(figures.confined) == []


@pytest.mark.parametrize(
    ("calls", "words"),
    [
        (("unshare", "landlock"), "the agent's files"),
        (("seccomp",), "sockets of other programs"),
        (("unshare", "landlock", "seccomp"), "the network, the agent's files, sockets of"),
    ],
)
def test_what_cannot_be_confined_is_refused_unless_the_owner_says_otherwise(
    tmp_path: Path, calls: tuple[str, ...], words: str
) -> None:
    with pytest.raises(RefusedError) as caught:
        less(tmp_path, "", *calls)
    assert caught.value.reason is Reason.UNSAFE_FORMAT
    assert words in caught.value.sentence
    assert "allow_unconfined = true" in caught.value.sentence
    figures = less(tmp_path, "", *calls, allow_unconfined=True)
    assert words.split(",")[0] in figures.confinement


def test_a_driver_that_needs_other_calls_can_have_them(tmp_path: Path) -> None:
    """With the owner's leave: the filter is off, the rest holds, and the report says so."""
    variant = lay_out(tmp_path / "v", "mlp.onnx")
    limits = TestLimits(60, 512, filter_calls=False)
    figures = run_selftest(tmp_path / "v", variant, limits, place=SelfTestFolders(own=tmp_path))
    assert "no_files" in figures.confined
    assert "no_sockets" not in figures.confined
    assert figures.confinement == "without: sockets of other programs"
    with pytest.raises(RefusedError, match="sockets of other programs"):
        less(tmp_path, "", filter_calls=False)


def test_a_safe_format_is_tried_anywhere(tmp_path: Path) -> None:
    variant = lay_out(tmp_path / "v", "mlp.onnx")
    settings = settings_of(tmp_path, "unshare", "landlock", "seccomp")
    figures = run_selftest(tmp_path / "v", variant, LIMITS, settings, SelfTestFolders(own=tmp_path))
    assert figures.confinement.startswith("without: the network")


@pytest.mark.skipif(not ROOT, reason="only root can act as another user")
@pytest.mark.parametrize("calls", [(), ("unshare",)])
def test_the_agent_of_another_user_than_root_confines_as_well(calls: tuple[str, ...]) -> None:
    with open_folder() as folder:
        folder.chmod(0o777)

        def agent() -> None:
            mark = f"pw-{os.urandom(8).hex()}"
            figures = less(folder, DAEMON.replace("MARK", repr(mark)), *calls)
            assert confine.lacking(figures.confined) == []
            assert running(mark) == []

        assert as_user(EYE, agent) == ""


# --- control groups


def test_a_box_is_made_where_it_was_delegated(tmp_path: Path) -> None:
    """In the form of the second version; the files stand in for the kernel's."""
    own = tmp_path / "system.slice" / "agent"
    own.mkdir(parents=True)
    (tmp_path / "cgroup.controllers").write_text("memory pids")
    proc = tmp_path / "cgroup"
    proc.write_text("0::/system.slice/agent\n")
    box = cgroup.make(100, root=tmp_path, proc=proc)
    assert box.took == set()  # a folder that is no control group has none of its files
    assert os.listdir(own) == []


def test_no_group_is_left_behind(tmp_path: Path) -> None:
    outcome(tmp_path, "")
    left = [path.name.split("-")[1] for path in Path("/sys/fs/cgroup").rglob("pilotwave-*")]
    assert [pid for pid in left if not _alive(int(pid))] == []
