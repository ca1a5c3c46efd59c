"""A real Mosquitto on loopback: Debian's program, with the access rules of docs/push.md."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"
ACL = Path(__file__).resolve().parent.parent / "examples" / "mosquitto" / "pilotwave.acl"
ABSENT = "Mosquitto is not installed (Debian: apt-get install mosquitto)"


def program(name: str = "mosquitto") -> str | None:
    """Where the program is, None if it is not installed."""
    return shutil.which(name) or shutil.which(name, path=PROGRAMS)


@dataclass
class Broker:
    """One broker, which may be killed and started again on its port and with its users."""

    folder: Path
    port: int
    tls: tuple[Path, Path, Path] | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; it answers when this returns."""
        log = (self.folder / "mosquitto.log").open("ab")
        command = [program() or "mosquitto", "-c", str(self.folder / "mosquitto.conf")]
        self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        log.close()
        ends = time.monotonic() + 30
        while time.monotonic() < ends and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.05)
        raise RuntimeError((self.folder / "mosquitto.log").read_text(errors="replace")[-800:])

    def kill(self) -> None:
        """End it as a power cut does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def running(
    folder: Path,
    users: Mapping[str, str],
    *,
    fleet: str,
    tls: tuple[Path, Path, Path] | None = None,
) -> Iterator[Broker]:
    """A broker that lets these users in (name and password), by the rules of the example.

    `tls` holds the files of its authority, its certificate and its key: devices then need a
    certificate of that authority, whose common name is the user.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    broker = Broker(folder, port, tls)
    acl = folder / "acl"
    acl.write_text(ACL.read_text().replace("acme", fleet))
    acl.chmod(0o600)
    (folder / "mosquitto.conf").write_text(settings(folder, port, tls))
    if not tls:
        passwords = folder / "passwords"
        passwords.write_text("".join(f"{name}:{word}\n" for name, word in users.items()))
        passwords.chmod(0o600)
        hasher = program("mosquitto_passwd") or "mosquitto_passwd"
        subprocess.run([hasher, "-U", str(passwords)], check=True, timeout=60)
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


def settings(folder: Path, port: int, tls: tuple[Path, Path, Path] | None) -> str:
    lines = [
        "user root",
        f"listener {port} 127.0.0.1",
        "allow_anonymous false",
        f"acl_file {folder / 'acl'}",
        "persistence false",
    ]
    if tls:
        lines += [f"cafile {tls[0]}", f"certfile {tls[1]}", f"keyfile {tls[2]}"]
        lines += ["require_certificate true", "use_identity_as_username true"]
    else:
        lines.append(f"password_file {folder / 'passwords'}")
    return "\n".join(lines) + "\n"
