"""Let the kernel refuse system calls that no model under test needs (seccomp, from Linux 3.5).

Kept from the model: sockets that reach anybody else, signals to and looks into other processes,
memory that no limit counts, new namespaces, mounts and keys. What a filter forbids is forbidden to
children too, and nothing lifts it. https://docs.kernel.org/userspace-api/seccomp_filter.html

A filter is a program of the classic BPF: instructions of 8 bytes (code, jump if true, jump if
false, constant) over the call's number, machine and arguments (`struct seccomp_data`).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
import sys
from collections.abc import Iterator

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _MACHINE, _ARGUMENTS = 0, 4, 16
_X32 = 0x40000000  # a second set of numbers on x86_64
_CLONE_THREAD = 0x00010000
_NAMESPACES = 0x7E020080  # CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET, TIME
_KIND_OF_SOCKET = 0xF
_PAIRABLE = (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)  # these reach the other end alone

_MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# the numbers of a call on x86_64 and aarch64; 0: it is not there
_CALLS = {
    "socket": (41, 198),
    "connect": (42, 203),
    "socketpair": (53, 199),
    "clone": (56, 220),
    "clone3": (435, 435),
    "fork": (57, 0),
    "vfork": (58, 0),
    "execve": (59, 221),
    "execveat": (322, 281),
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "prlimit64": (302, 261),
}
# other processes, and what escapes from a process's limits
_NEVER = {
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "unshare": (272, 97),
    "setns": (308, 268),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "mount": (165, 40),
    "umount2": (166, 39),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "acct": (163, 89),
    "quotactl": (179, 60),
}

_RECENT = ("memfd_create", "memfd_secret", "io_uring_setup", "pidfd_open", "pidfd_send_signal")

Instruction = tuple[int, int, int, int]


class _FilterProgram:
    """Rules for one machine, each of which refuses a call or lets the next rule decide."""

    def __init__(self, column: int, machine: int) -> None:
        self._column = column
        self._code: list[Instruction] = [
            (_LOAD, 0, 0, _MACHINE),
            (_EQUAL, 1, 0, machine),
            (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
            (_LOAD, 0, 0, _NUMBER),
        ]
        if column == 0:
            self._code += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]

    def number(self, call: str) -> int:
        return (_CALLS.get(call) or _NEVER[call])[self._column]

    def refuse(self, call: str, *, error: int = errno.EPERM) -> None:
        """Refuse a call whatever its arguments."""
        if number := self.number(call):
            self._code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | error)]

    def refuse_unless(self, call: str, *tests: Instruction, error: int = errno.EPERM) -> None:
        """Refuse a call unless one of the tests (each jumps by 1 if it holds) is met; a test is
        of what the instructions before it loaded."""
        number = self.number(call)
        if not number:
            return
        body = list(_decided(tests, error))
        self._code += [(_EQUAL, 0, len(body), number), *body]

    def bytes(self) -> bytes:
        code = [*self._code, (_RETURN, 0, 0, _ALLOW)]
        return b"".join(struct.pack("=HBBI", *i) for i in code)


def _decided(tests: tuple[Instruction, ...], error: int) -> Iterator[Instruction]:
    """Yield the tests, then a refusal; a test that holds jumps over all that follows, to where the
    call is allowed."""
    for place, (code, yes, no, constant) in enumerate(tests):
        left = len(tests) - place  # what follows, the refusal included
        if code in (_EQUAL, _ANY_BIT):
            yield code, left if yes else 0, left if no else 0, constant
        else:
            yield code, 0, 0, constant
    yield _RETURN, 0, 0, _ERRNO | error
    yield _RETURN, 0, 0, _ALLOW


def _argument(place: int) -> Instruction:
    return _LOAD, 0, 0, _ARGUMENTS + 8 * place  # its low word: both machines are little-endian


def _is(value: int) -> Instruction:
    return _EQUAL, 1, 0, value


def _has(bits: int) -> Instruction:
    return _ANY_BIT, 1, 0, bits


def _lacks(bits: int) -> Instruction:
    return _ANY_BIT, 0, 1, bits


def _sockets(program: _FilterProgram) -> None:
    """Allow what reaches only this process and its children, and the kernel's own news."""
    stream = (_argument(1), (_AND, 0, 0, _KIND_OF_SOCKET), *map(_is, _PAIRABLE))
    program.refuse_unless("socketpair", *stream, error=errno.EACCES)
    # the family is judged first; a Unix socket has no other end as long as `connect` is refused
    number = program.number("socket")
    body = [
        _argument(0),
        (_EQUAL, 7, 0, int(socket.AF_NETLINK)),
        (_EQUAL, 1, 0, int(socket.AF_UNIX)),
        (_RETURN, 0, 0, _ERRNO | errno.EAFNOSUPPORT),
        _argument(1),
        (_AND, 0, 0, _KIND_OF_SOCKET),
        (_EQUAL, 2, 0, int(socket.SOCK_STREAM)),
        (_EQUAL, 1, 0, int(socket.SOCK_SEQPACKET)),
        (_RETURN, 0, 0, _ERRNO | errno.EACCES),
        (_RETURN, 0, 0, _ALLOW),
    ]
    program._code += [(_EQUAL, 0, len(body), number), *body]


def _base(column: int, machine: int) -> _FilterProgram:
    program = _FilterProgram(column, machine)
    for call in _NEVER:
        # a library that meets an older kernel does without
        program.refuse(call, error=errno.ENOSYS if call in _RECENT else errno.EPERM)
    program.refuse("clone3", error=errno.ENOSYS)  # its flags cannot be seen; libraries use clone
    program.refuse_unless("prlimit64", _argument(0), _is(0), _is(os.getpid()))
    _sockets(program)
    return program


def _no_signals(program: _FilterProgram) -> None:
    for call in ("kill", "tkill", "tgkill"):
        program.refuse_unless(call, _argument(0), _is(os.getpid()))


def filter_calls(*, connects: bool = False, signals: bool = False) -> bool:
    """Refuse what a model needs not; `connects` leaves connections to Unix sockets, `signals` those
    to other processes. Say whether the kernel took it. PR_SET_NO_NEW_PRIVS has to be set before."""
    found = _machine()
    if found is None:
        return False
    program = _base(*found)
    # a clone that makes a namespace is refused, any other is allowed
    program.refuse_unless("clone", _argument(0), _lacks(_NAMESPACES))
    if not connects:
        program.refuse("connect", error=errno.ECONNREFUSED)  # as where nobody listens
    if not signals:
        _no_signals(program)
    return _install(program)


def forbid_processes() -> bool:
    """Refuse new processes and programs from here on; threads go on being made."""
    found = _machine()
    if found is None:
        return False
    program = _FilterProgram(*found)
    program.refuse("clone3", error=errno.ENOSYS)
    program.refuse_unless("clone", _argument(0), _has(_CLONE_THREAD))
    for call in ("fork", "vfork", "execve", "execveat"):
        program.refuse(call)
    return _install(program)


def _machine() -> tuple[int, int] | None:
    """Return the column of this process's numbers and its machine as the kernel names it."""
    name = platform.machine()
    if name not in _MACHINES or struct.calcsize("P") != 8 or sys.byteorder != "little":
        return None
    return list(_MACHINES).index(name), _MACHINES[name]


def _install(program: _FilterProgram) -> bool:
    code = program.bytes()
    held = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: a count and a pointer
    words = struct.pack("@HP", len(code) // 8, ctypes.addressof(held))
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, words, 0, 0) == 0)
