"""Schemathesis makes requests from the server's own OpenAPI document, good ones and bad ones: none
may end in a 5xx, and every answer has to be one that the document declares."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ServerFactory

CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
]


def fuzz(url: str, token: str, folder: Path, *, examples: int) -> None:
    command = [
        *[sys.executable, "-m", "schemathesis.cli", "run", f"{url}/api/v1/openapi.json"],
        *["--header", f"Authorization: Bearer {token}"],
        *["--checks", ",".join(CHECKS)],
        *["--max-examples", str(examples), "--generation-deterministic", "--no-color"],
    ]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_no_request_of_its_own_document_upsets_the_server(
    server_factory: ServerFactory, empty_database_url: str, tmp_path: Path
) -> None:
    server = server_factory(database_url=empty_database_url, log_level="warning")
    fuzz(server.url, server.admin_token, tmp_path, examples=5)
    assert server.stop() == 0
    assert "Traceback" not in server.log.read_text()


@pytest.mark.slow
def test_no_request_of_its_own_document_upsets_the_server_in_a_long_run(
    server_factory: ServerFactory, empty_database_url: str, tmp_path: Path
) -> None:
    server = server_factory(database_url=empty_database_url, log_level="warning")
    fuzz(server.url, server.admin_token, tmp_path, examples=200)
    assert server.stop() == 0
