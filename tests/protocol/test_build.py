"""The build: the same code gives the same digits, and any change gives others."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pilotwave_agent
from pilotwave_protocol.build import build_of

SAY = "from pilotwave_protocol.build import build_of; print(build_of('pilotwave_agent'))"


def build_in(folder: Path) -> str:
    """The digits of the package in `folder`, as a process says them that finds it there first."""
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); {SAY}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_copy_is_the_same_build_and_one_byte_makes_another(tmp_path: Path) -> None:
    package = tmp_path / "pilotwave_agent"
    shutil.copytree(Path(pilotwave_agent.__file__).parent, package)
    assert build_in(tmp_path) == build_of("pilotwave_agent")
    shutil.rmtree(package / "__pycache__", ignore_errors=True)
    assert build_in(tmp_path) == build_of("pilotwave_agent")
    with (package / "work.py").open("a") as file:
        file.write("#")
    assert build_in(tmp_path) != build_of("pilotwave_agent")


@pytest.mark.parametrize("change", ["rename", "remove", "add"])
def test_names_count_too(tmp_path: Path, change: str) -> None:
    package = tmp_path / "pilotwave_agent"
    shutil.copytree(Path(pilotwave_agent.__file__).parent, package)
    if change == "rename":
        (package / "work.py").rename(package / "werk.py")
    elif change == "remove":
        (package / "work.py").unlink()
    else:
        (package / "new.py").touch()
    assert build_in(tmp_path) != build_of("pilotwave_agent")


def test_packages_in_any_order_are_one_build() -> None:
    one, other = (
        ("pilotwave_agent", "pilotwave_protocol"),
        ("pilotwave_protocol", "pilotwave_agent"),
    )
    assert build_of(*one) == build_of(*other)
