"""Schemathesis makes requests from the server's own OpenAPI document, good ones and bad ones: none
may end in a 5xx, and every answer has to be one that the document declares."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import KINDS
from tests.server.fleet_fixtures import Fleet

CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
]
# With made-up names most requests end at "not found"; with these they get further.
NAMES_THAT_EXIST = """
[parameters]
"path.model" = "detector"
"path.version" = "1.1.0"
"path.device" = "cam-1"
"path.group" = "all"
"path.role" = "targets"
"path.file" = "timestamp.json"
"""


# `coverage` tries each constraint of each parameter, which takes most of the time
PHASES = "examples,coverage,fuzzing"


def fuzz(
    fleet: Fleet, token: str, folder: Path, *, examples: int, config: str, phases: str = PHASES
) -> None:
    fleet.group("all", "site=berlin")
    fleet.device("cam-1", site="berlin")
    fleet.assign("all", "1.1.0")
    (folder / "schemathesis.toml").write_text(config)
    url = f"{str(fleet.client.base_url).rstrip('/')}/api/v1/openapi.json"
    command = [
        *[sys.executable, "-m", "schemathesis.cli", "run", url],
        *["--header", f"Authorization: Bearer {token}"],
        *["--checks", ",".join(CHECKS), "--phases", phases],
        # it has no end
        *["--exclude-path", "/api/v1/events/stream"],
        *["--max-examples", str(examples), "--generation-deterministic", "--no-color"],
    ]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.parametrize(
    ("database_kind", "config"),
    [(KINDS[0], ""), (KINDS[-1], NAMES_THAT_EXIST)],
    ids=["any names", "names that exist"],
    indirect=["database_kind"],
)
def test_no_request_of_its_own_document_upsets_the_server(
    fleet: Fleet, admin_token: str, tmp_path: Path, config: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        fuzz(fleet, admin_token, tmp_path, examples=2, config=config, phases="examples,fuzzing")
    assert caplog.text == ""


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("config", ["", NAMES_THAT_EXIST], ids=["any names", "names that exist"])
def test_no_request_of_its_own_document_upsets_the_server_in_a_long_run(
    fleet: Fleet, admin_token: str, tmp_path: Path, config: str
) -> None:
    fuzz(fleet, admin_token, tmp_path, examples=200, config=config)
