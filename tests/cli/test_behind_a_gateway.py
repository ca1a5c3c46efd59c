"""Commands through a load balancer, one of whose hosts dies: it answers 502 for the host."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from tests.cli.operator import Operator


class Balancer(ThreadingHTTPServer):
    """Passes requests on to `target`; of the first `dying` POSTs the answers are lost."""

    def __init__(self, target: str, *, dying: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target, self.dying, self.posts = target, dying, 0
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Balancer

    def do_GET(self) -> None:
        self._pass_on()

    def do_POST(self) -> None:
        self.server.posts += 1
        self._pass_on(lost=self.server.posts <= self.server.dying)

    def _pass_on(self, *, lost: bool = False) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
        answer = httpx.request(
            self.command, self.server.target + self.path, content=body, headers=headers
        )
        status, content, kind = answer.status_code, answer.content, "application/json"
        if lost:
            status, content, kind = 502, b"<html>502 Bad Gateway</html>", "text/html"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def balancer(target: str, *, dying: int) -> Iterator[Balancer]:
    with Balancer(target, dying=dying) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("dying", [1, 2])
def test_what_a_dying_host_did_is_not_done_twice(pw: Operator, dying: int) -> None:
    name = f"dying-{dying}"  # a second one of that name would be refused
    with balancer(pw.url, dying=dying) as between:
        pw.but(url=between.url)("groups", "create", name, "--selector", "site=x")
    assert between.posts == dying + 1
    assert pw.json("groups", "show", name)["name"] == name


def test_hosts_that_all_stay_away_are_said_to_be(pw: Operator) -> None:
    with balancer(pw.url, dying=9) as between:
        said = pw.but(url=between.url).fails("groups", "create", "away", "--selector", "site=x")
    assert "502" in said
    assert "does not answer" in said
