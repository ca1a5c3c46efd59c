"""Who sends no traces imports nothing for them."""

from __future__ import annotations

import subprocess
import sys

import pytest

MODULES = ["pilotwave_server.app", "pilotwave_cli.main", "pilotwave_agent.resident.run"]
# a library of the server's looks for the API; it is the SDK that costs
COSTLY = "('opentelemetry.sdk', 'opentelemetry.exporter')"
SAID = f"import sys, {{module}}; print([m for m in sys.modules if m.startswith({COSTLY})])"


@pytest.mark.parametrize("module", [*MODULES, "pilotwave_agent.work"])
def test_what_sends_spans_is_not_imported(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SAID.format(module=module)], capture_output=True, text=True
    )
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
