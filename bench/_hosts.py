"""Several hosts of one fleet: a data folder each, one PostgreSQL, nginx before them."""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from _bench import MODEL

from demo.stage import Stage
from tests import postgres
from tests.server.device_api.peer import FLEET

NAMES = "ABC"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin") or ""
# whoever does not answer is left out for a second, and the next one is asked
CONFIGURATION = """
daemon off;
{user}
pid {root}/nginx.pid;
error_log {root}/nginx-error.log warn;
worker_processes 1;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {root}/nginx-body;
    proxy_temp_path {root}/nginx-proxy;
    fastcgi_temp_path {root}/nginx-fastcgi;
    uwsgi_temp_path {root}/nginx-uwsgi;
    scgi_temp_path {root}/nginx-scgi;
    upstream hosts {{ {servers} }}
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 0;
        location / {{
            proxy_pass http://hosts;
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_connect_timeout 2s;
            proxy_next_upstream error timeout http_503;
        }}
    }}
}}
"""


class Hosts(Stage):
    """A stage with several servers; its `url` is the load balancer's."""

    def __init__(self, root: Path, database: str, **settings: object) -> None:
        super().__init__(root)
        self.ports = {name: free_port() for name in NAMES}
        self.servers: dict[str, subprocess.Popen[bytes]] = {}
        given = {
            "database_url": database,
            "key_encryption_key": base64.b64encode(secrets.token_bytes(32)).decode(),
            "delta_processes": 0,
            "trusted_proxies": "127.0.0.1",
            **settings,
        }
        self.settings.update({f"PILOTWAVE_{k.upper()}": str(v) for k, v in given.items()})

    def set_up(self) -> None:
        """Make the fleet, start every host and nginx, and make keys and a model through it."""
        (self.root / "blobs").mkdir()
        for name in NAMES:
            (self.root / name).mkdir()
            # as hosts that mount one folder have it
            (self.root / name / "blobs").symlink_to(self.root / "blobs")
            words = ["init", "--data", name, "--fleet", FLEET]
            first = ["--token-file", "admin.token"] if name == NAMES[0] else []
            self.run("pilotwave-server", *words, *first)
        for name in NAMES:
            self.start_host(name)
        self.start_nginx()
        self.pilotwave("keys", "init", "--dir", "keys", "--plain")
        self.pilotwave("models", "create", MODEL, "--publisher", "keys/publisher.pem")

    def start_host(self, name: str) -> None:
        """Start a host and wait until it takes connections."""
        port = self.ports[name]
        words = ("run", "--data", name, "--port", str(port))
        self.servers[name] = self.start(f"server-{name}", "pilotwave-server", *words)
        wait_for(port)

    def kill_host(self, name: str) -> None:
        self.servers[name].send_signal(signal.SIGKILL)
        self.servers[name].wait()

    def start_nginx(self) -> None:
        port = free_port()
        servers = " ".join(
            f"server 127.0.0.1:{p} max_fails=1 fail_timeout=1s;" for p in self.ports.values()
        )
        user = "user root;" if os.geteuid() == 0 else ""
        text = CONFIGURATION.format(root=self.root, port=port, servers=servers, user=user)
        (self.root / "nginx.conf").write_text(text)
        self._start("nginx", NGINX, "-p", str(self.root), "-c", str(self.root / "nginx.conf"))
        wait_for(port)
        self.url = f"http://127.0.0.1:{port}"


@contextmanager
def hosts(folder: Path, **settings: object) -> Iterator[tuple[Hosts, str]]:
    """Run them on a PostgreSQL of their own; yields them and its URL."""
    binaries = postgres.find_binaries()
    if binaries is None or not NGINX:
        sys.exit("this bench needs PostgreSQL and nginx (Debian: nginx-light, postgresql)")
    with postgres.running_server(binaries) as url:
        stage = Hosts(folder, url, **settings)
        try:
            stage.set_up()
            yield stage, url
        finally:
            stage.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
