"""Every command that a hint, an error, a page or a document prints is one that is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tools import printed_commands
from tools.printed_commands import Printed, fault


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
