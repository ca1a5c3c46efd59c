"""A program whose extra is not installed says so in one sentence."""

from __future__ import annotations

import subprocess
import sys

import pytest

# what a machine without the extra lacks
WITHOUT = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("typer", "fastapi", "sqlalchemy", "httpx"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Nothing())
from %s import main
main()
"""


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("pilotwave_cli.start", "pilotwave: typer is missing; pip install 'pilotwave[cli]'"),
        (
            "pilotwave_server.start",
            "pilotwave-server: typer is missing; pip install 'pilotwave[server]'",
        ),
    ],
)
def test_a_missing_extra_is_one_sentence(module: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT % module, "--version"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.strip()) == (1, "", said)
