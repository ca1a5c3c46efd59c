"""Triton itself, where it is installed: PILOTWAVE_TRITON names its `tritonserver`, or
`make test-all` has made .venv-triton.

`pip install nvidia-pytriton` brings one, in pytriton/tritonserver/bin; its build there has the
`python` backend only.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MADE = (Path(__file__).parents[2] / ".venv-triton").glob(
    "lib/*/*/pytriton/tritonserver/bin/*server"
)
PROGRAM = os.environ.get("PILOTWAVE_TRITON") or next(map(str, _MADE), "")
PACKAGES = str(Path(PROGRAM).parents[3]) if PROGRAM else ""
"""The wheel's own: its `python` backend gives out nothing with numpy 2, and some of them look for
numpy where the interpreter has it, whatever PYTHONPATH says."""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def running_triton(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Run it in EXPLICIT mode; give its URL and its model repository."""
    repository = tmp_path / "repository"
    repository.mkdir()
    home = Path(PROGRAM).parent.parent
    # the wheel keeps the backend and the stub for each Python apart; Triton wants them together
    backends = tmp_path / "backends"
    shutil.copytree(home / "backends", backends)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = home / "python_backend_stubs" / python / "triton_python_backend_stub"
    shutil.copy(stub, backends / "python")
    port = free_port()
    command = [
        PROGRAM,
        f"--model-repository={repository}",
        "--model-control-mode=explicit",
        f"--backend-directory={backends}",
        "--http-address=127.0.0.1",
        f"--http-port={port}",
        "--exit-timeout-secs=2",
        "--allow-grpc=false",
        "--allow-metrics=false",
    ]
    python_home = Path(sys.executable).resolve().parent.parent
    libraries = os.pathsep.join(
        [str(home.parent.parent / "nvidia_pytriton.libs"), str(python_home / "lib")]
    )
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": libraries,
        "PYTHONPATH": PACKAGES,
    }
    url, log = f"http://127.0.0.1:{port}", tmp_path / "triton.log"
    with running(command, f"{url}/v2/health/ready", log, environment):
        yield url, repository


@contextmanager
def running(
    command: list[str], ready: str, log: Path, environment: dict[str, str] | None = None
) -> Iterator[None]:
    """Run a model server from when its URL `ready` answers."""
    with log.open("wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
        try:
            _wait_until_ready(ready, server, log)
            yield
        finally:
            server.terminate()
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait(30)


def _wait_until_ready(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        assert server.poll() is None, log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(log.read_text()[-2000:])
