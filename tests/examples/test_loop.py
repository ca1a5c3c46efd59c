"""The example of the whole loop comes round: real programs, from a bad camera to a better model."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from demo.stage import REPO


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_model_that_was_trained_with_captured_cases_is_better_in_use() -> None:
    told = [sys.executable, "-m", "examples.loop"]
    done = subprocess.run(told, capture_output=True, text=True, timeout=850, cwd=REPO)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "loop: ok"
    before, after = re.findall(r"([\d.]+)% were right in use before, ([\d.]+)% after", done.stdout)[
        0
    ]
    assert float(after) > float(before) + 5
