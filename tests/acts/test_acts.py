"""Each act of the three programs, the page and the API asks first, or stands in a table with the
reason why it need not: a new command or route fails here until somebody has thought about it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any

import pytest
import typer

from pilotwave_agent.cli import parser
from pilotwave_cli.main import cli
from pilotwave_server.app import create_app
from pilotwave_server.cli import app as server_cli
from pilotwave_server.settings import Settings
from tests.acts import commands, routes
from tests.acts.commands import listed, reasons
from tests.cli.test_asking import ASKS
from tests.server.dashboard import test_asking_first as page
from tests.server.dashboard.routes import all_acts
from tests.server.fleet_fixtures import only_sqlite

ALWAYS = set(ASKS)
ASKING = ALWAYS | listed(commands.ASKS_SOMETIMES) | listed(commands.LISTS_FIRST)
# acts that are tried in test_asking_first.py by a test of their own, or in test_removal.py (wipe)
TRIED_APART = {
    "/rollouts/new", "/rollouts/*/start", "/rollouts/*/approve", "/rollouts/*/resume",
    "/groups/*/wipe", "/devices/bulk", "/learning/*/end", "/learning/*/stop",
}  # fmt: skip


def found_commands() -> dict[str, bool]:
    """Each command of the three programs, and whether `--yes` answers a question of it."""
    found = _walk(typer.main.get_command(cli), "")
    found |= _walk(typer.main.get_command(server_cli), "server")
    sub = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    return found | {f"agent {name}": False for name in sub.choices}


def _walk(command: Any, path: str) -> dict[str, bool]:
    below = getattr(command, "commands", None)
    if below is None:
        return {path: any("--yes" in param.opts for param in command.params)}
    found: dict[str, bool] = {}
    for name, one in below.items():
        found |= _walk(one, f"{path} {name}".strip())
    return found


def compare(found: set[str], rows: set[str], what: str) -> None:
    new, gone = sorted(found - rows), sorted(rows - found)
    assert not new, f"{what}: let it ask, or say in tests/acts why it need not: {new}"
    assert not gone, f"{what}: there is none any more: {gone}"


def test_each_command_asks_or_stands_in_the_table() -> None:
    found, undone = found_commands(), reasons(commands.CAN_BE_UNDONE)
    reads = listed(commands.READS)
    compare(set(found), ASKING | reads | set(undone), "commands")
    assert {name for name, yes in found.items() if yes} == ASKING
    assert not ASKING & (reads | set(undone))
    assert all(undone.values())


def page_acts(found: set[str]) -> set[str]:
    return {a for a in found if not a.split()[1].startswith(("/api/", "/device/"))}


@pytest.fixture
def acts(settings: Settings) -> set[str]:
    return set(all_acts(create_app(settings).fastapi))


@only_sqlite
def test_each_act_of_the_page_asks_or_stands_in_the_table(acts: set[str]) -> None:
    asks, undone = reasons(routes.PAGE_ASKS), reasons(routes.PAGE_CAN_BE_UNDONE)
    compare(page_acts(acts), asks.keys() | undone.keys(), "the page")
    assert not asks.keys() & undone.keys()
    assert all([*asks.values(), *undone.values()])
    tried = {_plain(path) for path in page.ASKS} | TRIED_APART
    assert {_plain(act.split()[1]) for act in asks} == tried


def _plain(path: str) -> str:
    """The path with a star for each name of a thing: `/groups/*/delete`."""
    names = r"\{[^}]*\}|\br1\b|\bcam-1\b|\bberlin\b|\bdetector\b|\b1\.0\.0\b"
    return re.sub(names, "*", path)


@only_sqlite
def test_each_route_of_the_api_is_asked_about_elsewhere_or_stands_in_the_table(
    acts: set[str],
) -> None:
    rows = reasons(routes.API)
    compare(acts - page_acts(acts), set(rows), "the API")
    assert all(rows.values())
    for route, why in rows.items():
        if why.startswith("asked by "):
            asked = re.split(r", | and ", why.removeprefix("asked by "))
            assert set(asked) <= ASKING, f"{route}: {asked}"


@only_sqlite
def test_the_document_of_the_api_has_no_route_that_is_not_in_the_table(settings: Settings) -> None:
    document = create_app(settings).fastapi.openapi()
    writes = {"post", "put", "patch", "delete"}
    found = {
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method in methods
        if method in writes
    }
    compare(found, found & set(reasons(routes.API)), "the API's document")


def adds_a_command(folder: typer.Typer) -> None:
    folder.command("wipe-all")(lambda: None)


def adds_a_question(folder: typer.Typer) -> None:
    @folder.command("show")
    def show(yes: bool = typer.Option(False, "--yes")) -> None: ...


@pytest.mark.parametrize("change", [adds_a_command, adds_a_question])
def test_a_new_command_without_a_row_is_noticed(change: Callable[[typer.Typer], None]) -> None:
    top, folder = typer.Typer(), typer.Typer()
    change(folder)
    folder.command("list")(lambda: None)
    top.add_typer(folder, name="sites")
    found = _walk(typer.main.get_command(top), "")
    known = {"sites list", "sites show"}
    assert set(found) - known or {name for name, yes in found.items() if yes} - ASKING
