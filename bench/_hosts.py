"""Several hosts of one fleet: a data folder each, one PostgreSQL, nginx before them.

Their blobs are in a bucket, or in a folder that all mount.
"""

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
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
from _bench import MODEL

from demo.stage import BIN, Stage
from tests import postgres
from tests.buckets import Bucket, running_ceph
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
        location = /device/v1/push {{
            proxy_pass http://hosts;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_read_timeout 1h;
        }}
    }}
}}
"""


class Hosts(Stage):
    """A stage with several servers; its `url` is the load balancer's."""

    def __init__(
        self, root: Path, database: str, *, bucket: Bucket | None, **settings: object
    ) -> None:
        super().__init__(root)
        self.bucket = bucket
        self.ports = {name: free_port() for name in NAMES}
        self.servers: dict[str, subprocess.Popen[bytes]] = {}
        given = {
            "database_url": database,
            "key_encryption_key": base64.b64encode(secrets.token_bytes(32)).decode(),
            "delta_processes": 0,
            "trusted_proxies": "127.0.0.1",
            **settings,
        }
        if bucket is not None:
            given["blobs"] = bucket.url
            self.settings.update(bucket.server.environment)
        self.settings.update({f"PILOTWAVE_{k.upper()}": str(v) for k, v in given.items()})

    def set_up(self) -> None:
        """Make the fleet, start every host and nginx, and make keys and a model through it."""
        (self.root / "blobs").mkdir()
        for name in NAMES:
            (self.root / name).mkdir()
            if self.bucket is None:
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

    def start_host(self, name: str) -> tuple[float, float]:
        """Start a host; return the seconds until it says that it can serve, and the processor's."""
        port, began = self.ports[name], time.monotonic()
        # a session of its own: Linux shares processors by session first, and so whoever loads the
        # hosts takes no more from one than from another machine
        words = ("setsid", str(BIN / "pilotwave-server"), "run", "--data", name)
        self.servers[name] = self._start(f"server-{name}", *words, "--port", str(port))
        wait_for(port)
        while httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=60).status_code != 200:
            time.sleep(0.1)
        return time.monotonic() - began, cpu_s(self.servers[name].pid)

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
def hosts(folder: Path, *, bucket: bool, **settings: object) -> Iterator[tuple[Hosts, str]]:
    """Run them on a PostgreSQL of their own, and a radosgw where wanted; yields them and the
    database's URL."""
    binaries = postgres.find_binaries()
    if binaries is None or not NGINX:
        sys.exit("this bench needs PostgreSQL and nginx (Debian: nginx-light, postgresql)")
    with ExitStack() as stack:
        url = stack.enter_context(postgres.running_server(binaries))
        made = stack.enter_context(running_ceph()).bucket() if bucket else None
        stage = Hosts(folder, url, bucket=made, **settings)
        stack.callback(stage.close)
        stage.set_up()
        yield stage, url


def cpu_s(pid: int) -> float:
    """Seconds of processor that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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
