"""Real nginx on a configuration that the project gives out, on a free port: a site's gateway, or
what stands before a server."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
TEMPLATE = REPO / "docker" / "site-gateway.conf.template"
FRONT = REPO / "docker" / "front.conf.template"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin") or ""
MAIN = """
daemon off;
{user}
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
worker_processes 2;
events {{ worker_connections 1024; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""


class Gateway:
    """nginx before the server at `origin` (a URL), and where `others` are given, before those too;
    it keeps what it caches in `folder`."""

    def __init__(
        self, origin: str, folder: Path, *, others: Sequence[str] = (), template: Path = TEMPLATE
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port = folder, _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        scheme, _, host = origin.partition("://")
        hosts = [host, *(other.partition("://")[2] for other in others)]
        words = {
            "PILOTWAVE_ORIGIN": "; server ".join(f"{h} fail_timeout=1s" for h in hosts),
            "PILOTWAVE_ORIGIN_NAME": host,
            "PILOTWAVE_ORIGIN_SCHEME": scheme,
            "PILOTWAVE_LISTEN": f"127.0.0.1:{self.port}",
            "PILOTWAVE_CACHE": str(folder / "cache"),
            "PILOTWAVE_CACHE_SIZE": "1g",
        }
        text = template.read_text()
        for word, value in words.items():
            text = text.replace("${" + word + "}", value)
        assert "${" not in text, "a word of the configuration is not filled in"
        (folder / "site.conf").write_text(text)
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(MAIN.format(folder=folder, user=user))
        self.start()

    @property
    def url(self) -> str:
        """Where devices ask."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, or start it again on the same port and cache."""
        self._process = subprocess.Popen(
            [NGINX, "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                log = self.folder / "error.log"
                said = log.read_text() if log.exists() else ""
                assert self._process.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.05)

    def stop(self) -> None:
        """End it, with all connections."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
        self._process = None

    def poison(self) -> int:
        """Change the last byte of each file in the cache; return how many there were."""
        files = [p for p in (self.folder / "cache").rglob("*") if p.is_file()]
        for path in files:
            with path.open("r+b") as file:
                file.seek(-1, os.SEEK_END)
                last = file.read(1)[0]
                file.seek(-1, os.SEEK_END)
                file.write(bytes([last ^ 1]))
        return len(files)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
