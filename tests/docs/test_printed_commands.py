"""Every command that a hint, an error, a page or a document prints is one that is taken."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tools import printed_commands
from tools.printed_commands import REPO, Printed, fault


@pytest.mark.parametrize(
    ("source", "named_is_enough", "least"),
    [
        (printed_commands.in_code, False, 30),
        (printed_commands.in_pages, False, 5),
        (printed_commands.in_docs, True, 80),
    ],
)
def test_each_printed_command_is_taken_as_it_is_printed(
    source: Callable[[], Iterator[Printed]], named_is_enough: bool, least: int
) -> None:
    printed = sorted(set(source()))
    assert len(printed) >= least
    faults = [
        f"{where}: {line}: {why}"
        for where, line in printed
        if (why := fault(line, named_is_enough=named_is_enough))
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    "line",
    [
        "pilotwave keys rotate publisher --no-such MODEL",
        "pilotwave keys rotat",
        "pilotwave models create NAME",
        "pilotwave-server init",
        "pilotwave-agent enrol",
        "pilotwave devices rollback cam-1",
    ],
)
def test_command_that_would_be_refused_is_found(line: str) -> None:
    assert fault(line, named_is_enough=False)


OPENED = re.compile(r"(?:^|[\s/`(])(pilotwave(?:-server|-agent)? [a-z][a-z-]+)", re.MULTILINE)


def commands_of(program: str) -> set[str]:
    if program == "pilotwave-agent":
        actions = printed_commands.parser()._actions
        return {name for a in actions for name in (a.choices or {}) if isinstance(a.choices, dict)}
    return set(printed_commands.PROGRAMS[program].commands)


def test_no_command_in_a_block_to_be_copied_escapes() -> None:
    """Whatever stands before it: sudo, a path, a prompt, a loop, a block of another language."""
    found = [line for _, line in printed_commands.in_docs()]
    for path in [REPO / "README.md", *(REPO / "docs").rglob("*.md")]:
        text = path.read_text()
        blocks = re.findall(r"^ *```(?:sh|bash)?\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)
        for start in OPENED.findall("\n".join(blocks)):
            program, command = start.split()
            if path.name == "reference.md" or command not in commands_of(program):
                continue
            assert any(line.startswith(start) for line in found), f"{path.name}: {start}"


def test_each_make_target_that_a_page_names_exists() -> None:
    known = set(re.findall(r"^([.a-z-]+):", (REPO / "Makefile").read_text(), re.MULTILINE))
    named: set[tuple[str, str]] = set()
    for path in [REPO / "README.md", *(REPO / "docs").rglob("*.md")]:
        text = path.read_text()
        ticks = re.findall(r"`make ([a-z][a-z-]*)", text)
        lines = re.findall(r"^\s*make ([a-z][a-z-]*)", text, re.MULTILINE)
        named |= {(path.name, target) for target in [*ticks, *lines]}
    assert len(named) > 5
    assert not {(where, target) for where, target in named if target not in known}


@pytest.mark.parametrize(
    "text",
    [
        "say it at the device: `sudo -u pilotwave pilotwave-agent rollback --data DIR`",
        "by its path: `.venv/bin/pilotwave-agent rollback --data DIR`",
        "it ends with: pilotwave-agent rollback --data DIR",
        "pilotwave-agent rollback --data DIR",
    ],
)
def test_a_command_is_found_whatever_stands_before_it(text: str) -> None:
    patterns = (printed_commands._TICKS, printed_commands._AFTER_COLON, printed_commands._WHOLE)
    found = [line for pattern in patterns for line in pattern.findall(text)]
    assert found == ["pilotwave-agent rollback --data DIR"]


def test_a_block_of_another_language_does_not_hide_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(
        "```toml\na = 1\n```\nThen\n```sh\n$ sudo pilotwave-agent statu --data DIR\n```\n"
    )
    monkeypatch.setattr(printed_commands, "REPO", tmp_path)
    assert [line for _, line in printed_commands.in_docs()] == ["pilotwave-agent statu --data DIR"]
