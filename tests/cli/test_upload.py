"""An upload that stands still is given up in the end, and asked for with pauses."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pilotwave_cli.client import Api
from pilotwave_cli.config import Config
from pilotwave_cli.upload import upload_bytes


class ForgetfulServer(ThreadingHTTPServer):
    """Takes every byte and has none of them afterwards, until `keeps` is set."""

    daemon_threads = True

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.keeps = False
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *words: object) -> None:
                return

            def _answer(self, found: dict[str, object]) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", "0")))
                server.asked.append(self.command)
                body = json.dumps(found).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                self._answer({"complete": server.keeps, "offset": 0})

            def do_PATCH(self) -> None:
                self._answer({})

            def do_POST(self) -> None:
                blob = json.loads(self.rfile.peek())["blobs"][0]
                self._answer({"missing": [{"sha256": blob["sha256"], "offset": 0}]})

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture
def forgetful() -> Iterator[ForgetfulServer]:
    server = ForgetfulServer()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_bytes_that_are_taken_and_lost_are_sent_again_with_pauses(
    forgetful: ForgetfulServer, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{forgetful.server_port}"
    with Api(Config(url=url, token="t", keys=tmp_path)) as api:
        sending = threading.Thread(target=upload_bytes, args=(api, b"some bytes"))
        sending.start()
        time.sleep(5)
        assert 2 <= forgetful.asked.count("PATCH") <= 6
        forgetful.keeps = True
        sending.join(20)
    assert not sending.is_alive()
