"""Commands through a load balancer, one of whose hosts dies: it answers 502 for the host, and what
the host was answering stays in progress."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from tests.cli.conftest import DIGITS
from tests.cli.operator import Operator


class Balancer(ThreadingHTTPServer):
    """Passes requests on to `target`; of the first `dying` POSTs, PUTs and DELETEs the answers
    are lost.
    With `stuck`, the host dies of the first POST there, before it has done it or `after`, and it
    stays in progress."""

    def __init__(
        self, target: str, *, dying: int = 0, stuck: str = "", after: bool = False
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target, self.dying, self.posts = target, dying, 0
        self.stuck, self.after, self.keys = stuck, after, set[str]()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Balancer

    def do_GET(self) -> None:
        self._pass_on()

    def do_PUT(self) -> None:
        self.server.posts += 1
        self._pass_on(lost=self.server.posts <= self.server.dying)

    do_DELETE = do_PUT

    def do_POST(self) -> None:
        self.server.posts += 1
        if self.server.stuck and self.path.endswith(self.server.stuck) and self._is_stuck():
            return
        self._pass_on(lost=self.server.posts <= self.server.dying)

    def _pass_on(self, *, lost: bool = False) -> None:
        answer = self._asked()
        if lost:
            self._answer(502, b"<html>502 Bad Gateway</html>", "text/html")
        else:
            self._answer(answer.status_code, answer.content, "application/json")

    def _asked(self) -> httpx.Response:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
        return httpx.request(
            self.command, self.server.target + self.path, content=body, headers=headers
        )

    def _is_stuck(self) -> bool:
        """Answer for a request whose host has died with it; False: it is another request."""
        key = self.headers["Idempotency-Key"]
        first = not self.server.keys
        if not first and key not in self.server.keys:
            return False
        self.server.keys.add(key)
        if first and self.server.after:
            assert self._asked().is_success
        else:
            self.rfile.read(int(self.headers["Content-Length"]))
        if first:
            self._answer(502, b"<html>502 Bad Gateway</html>", "text/html")
        else:
            told = {"code": "request_in_progress", "detail": "the same request is being answered"}
            self._answer(409, json.dumps(told).encode(), "application/problem+json")
        return True

    def _answer(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def balancer(
    target: str, *, dying: int = 0, stuck: str = "", after: bool = False
) -> Iterator[Balancer]:
    with Balancer(target, dying=dying, stuck=stuck, after=after) as server:
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


def test_a_version_is_published_though_a_host_dies_of_it(pw: Operator, model: str) -> None:
    files = ("--no-try", "--variant", f"v={DIGITS / '1.0.0'}")
    pw("publish", model, "1.0.0", *files)  # its files are there now
    with balancer(pw.url, stuck=f"/models/{model}/metadata") as between:
        pw.but(url=between.url)("publish", model, "1.1.0", *files)
    assert len(between.keys) == 1
    assert pw.json("versions", "show", model, "1.1.0")["version"] == "1.1.0"


@pytest.fixture
def group(pw: Operator, model: str, name: str) -> str:
    """An empty group; 1.0.0 of the model is published."""
    pw("publish", model, "1.0.0", "--no-try", "--variant", f"v={DIGITS / '1.0.0'}")
    pw("groups", "create", name, "--selector", f"site={name}")
    return name


@pytest.mark.parametrize("dying", [1, 2])
def test_a_group_is_deleted_though_a_host_dies_of_it(pw: Operator, name: str, dying: int) -> None:
    pw("groups", "create", name, "--selector", "site=x")
    with balancer(pw.url, dying=dying) as between:
        pw.but(url=between.url)("groups", "delete", name, "--yes")
    assert between.posts == dying + 1
    assert "there is no group" in pw.fails("groups", "show", name)
    assert "there is no group" in pw.fails("groups", "delete", name, "--yes")


before_or_after = pytest.mark.parametrize("after", [False, True], ids=["not done", "done"])


def test_a_version_is_assigned_though_a_host_dies_of_it(
    pw: Operator, model: str, group: str
) -> None:
    with balancer(pw.url, dying=2) as between:
        told = pw.but(url=between.url)("assign", model, "1.0.0", "--group", group, "--yes")
    assert f"assigned {model} 1.0.0 to {group}" in told
    events = map(json.loads, pw("audit", "export").splitlines())
    done = [e for e in events if e["verb"] == "baseline.set" and group in json.dumps(e)]
    assert len(done) == 1


@before_or_after
def test_a_rollout_is_created_once_though_a_host_dies_of_it(
    pw: Operator, model: str, group: str, after: bool
) -> None:
    create = ("rollouts", "create", model, "1.0.0", "--group", group, "--allow-empty", "--yes")
    with balancer(pw.url, stuck="/rollouts", after=after) as between:
        made = pw.but(url=between.url).json(*create, "--description", "by night")
    assert len(between.keys) == 1
    (there,) = pw.json("rollouts", "list", "--group", group)
    assert (there["id"], there["description"]) == (made["id"], "by night")
    assert made["warnings"] == []


def test_a_rollout_that_was_there_before_is_not_taken_for_the_new_one(
    pw: Operator, model: str, group: str
) -> None:
    create = ("rollouts", "create", model, "1.0.0", "--group", group, "--allow-empty", "--yes")
    pw(*create)
    with balancer(pw.url, stuck="/rollouts") as between:
        said = pw.but(url=between.url).fails(*create)
    assert "wait until it is over" in said


@before_or_after
@pytest.mark.parametrize("verb", ["start", "abort"])
def test_a_rollout_takes_a_step_once_though_a_host_dies_of_it(
    pw: Operator, model: str, group: str, verb: str, after: bool
) -> None:
    create = ("rollouts", "create", model, "1.0.0", "--group", group, "--allow-empty", "--yes")
    rollout = pw.json(*create)["id"]
    with balancer(pw.url, stuck=f"/{verb}", after=after) as between:
        told = pw.but(url=between.url)("rollouts", verb, rollout, "--yes")
    assert f"{rollout} ({model} 1.0.0 to {group})" in told
    taken = [d["action"] for d in pw.json("rollouts", "decisions", rollout)]
    assert taken.count(verb) == 1
