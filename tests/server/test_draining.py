"""A server that is told to end says so to load balancers first, and serves meanwhile."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import httpx
import pytest

from tests.servers import ServerProcess

DRAIN_S = 3


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_told_to_end_serves_until_others_have_taken_over(
    server_factory: Callable[..., ServerProcess], workers: int
) -> None:
    server = server_factory(drain_s=DRAIN_S, workers=workers, delta_processes=0)
    assert httpx.get(f"{server.url}/readyz", timeout=30).status_code == 200
    assert server.process is not None
    began = time.monotonic()
    os.kill(server.process.pid, signal.SIGTERM)
    answer = httpx.get(f"{server.url}/readyz", timeout=30)
    while answer.status_code == 200:
        assert time.monotonic() < began + DRAIN_S
        answer = httpx.get(f"{server.url}/readyz", timeout=30)
    assert (answer.status_code, answer.json()["code"]) == (503, "draining")
    assert httpx.get(f"{server.url}/livez", timeout=30).status_code == 200
    assert httpx.get(f"{server.url}/tuf/metadata/1.root.json", timeout=30).status_code == 404
    assert server.process.end(seconds=30) == 0
    server.process = None
    assert time.monotonic() - began >= DRAIN_S
