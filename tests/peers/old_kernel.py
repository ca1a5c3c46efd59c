"""Run an interpreter as on a kernel, or in a container, that refuses some calls.

    python old_kernel.py unshare,landlock,seccomp ARGUMENTS…

A filter that cannot be taken off answers those calls with "no permission" or "not implemented".
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

# what to refuse: number of the call on x86_64 and aarch64, and the error
CALLS = {
    "unshare": (272, 97, errno.EPERM),
    "landlock": (444, 444, errno.ENOSYS),
}
_SECCOMP = (157, 167)  # prctl, whose first argument 22 installs a filter


def main() -> None:
    """Refuse, then go on as the interpreter."""
    column = 0 if os.uname().machine == "x86_64" else 1
    names = [name for name in sys.argv[1].split(",") if name]
    code = [(0x20, 0, 0, 0)]
    for name in names:
        if name in CALLS:
            number, error = CALLS[name][column], CALLS[name][2]
            code += [(0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | error)]
    if "seccomp" in names:
        refuse = (0x06, 0, 0, 0x00050000 | errno.EINVAL)
        code += [(0x15, 0, 4, _SECCOMP[column]), (0x20, 0, 0, 16), (0x15, 0, 1, 22), refuse]
        code += [(0x06, 0, 0, 0x7FFF0000)]
    code += [(0x06, 0, 0, 0x7FFF0000)]
    raw = b"".join(struct.pack("=HBBI", *i) for i in code)
    held = ctypes.create_string_buffer(raw, len(raw))
    libc = ctypes.CDLL(None)
    libc.prctl(38, 1, 0, 0, 0)
    words = struct.pack("@HP", len(code), ctypes.addressof(held))
    if libc.prctl(22, 2, words, 0, 0) != 0:
        raise SystemExit("this system takes no filter")
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])


if __name__ == "__main__":
    main()
