"""Put one of the agent's sockets where applications find it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from pilotwave_agent.apps import heartbeats
from pilotwave_agent.host.shared_folder import SharedFolder


def bind_in(live: Path, made: socket.socket, name: str, group: str) -> None:
    """Bind a socket in the folder `live`, in place of one that a killed agent left; members of
    `group` may write to it. One that cannot be bound is closed. May raise `OSError`."""
    try:
        heartbeats.prepare(live, "", group)
        with SharedFolder(live) as folder:
            _bind(folder, made, name, group)
    except OSError:
        made.close()
        raise


def _bind(folder: SharedFolder, made: socket.socket, name: str, group: str) -> None:
    folder.remove(name)
    # its mode from the first moment on, whatever the umask lets through
    os.fchmod(made.fileno(), 0o600)
    # by way of /proc: a socket's own path may have 107 bytes only
    made.bind(f"/proc/self/fd/{folder.fd}/{name}")
    if group:
        import grp

        gid = grp.getgrnam(group).gr_gid
        os.chown(name, -1, gid, dir_fd=folder.fd, follow_symlinks=False)
        os.chmod(name, 0o660, dir_fd=folder.fd)  # nobody else may write in this folder
