"""What is in the code is in the docs, and links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pilotwave_agent.runtimes import RUNTIMES
from pilotwave_protocol.formats import OPENS
from pilotwave_protocol.states import Reason
from tools import reference

REPO = Path(__file__).parent.parent.parent
PAGES = [REPO / "README.md", *sorted((REPO / "docs").rglob("*.md"))]


def test_the_reference_is_what_the_code_says() -> None:
    hint = "run .venv/bin/python -m tools.reference"
    assert reference.PAGE.read_text() == reference.page(), hint


def test_each_reason_is_in_the_protocol_page() -> None:
    text = (REPO / "docs" / "protocol.md").read_text()
    missing = [str(reason) for reason in Reason if f"`{reason}`" not in text]
    assert not missing


def test_the_table_of_runtimes_has_each_with_formats_that_it_opens() -> None:
    page = (REPO / "docs" / "runtimes.md").read_text()
    table = page.partition("<!-- table")[2].partition("<!-- end")[0]
    for name in [*RUNTIMES, "command"]:
        (row,) = [line for line in table.splitlines() if line.startswith(f"| `{name}` |")]
        formats = set(re.findall(r"`([^`]+)`", row.split("|")[3]))
        assert formats
        assert formats <= {*OPENS.get(name, formats)}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(REPO)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_each_attack_of_the_table_is_tried_and_each_reason_there_exists() -> None:
    """The table's "no"s are the words of the code, and a test expects each of them."""
    table = (REPO / "docs" / "threat-model.md").read_text().splitlines()
    rows = [line.split("|")[3] for line in table if line.startswith("|") and "`" in line]
    said = {word for row in rows for word in re.findall(r"`([a-z_]+)`", row)}
    assert len(said) > 20
    tests = "\n".join(p.read_text() for p in (REPO / "tests").rglob("test_*.py"))
    of_devices = {str(reason) for reason in Reason}
    for word in said:
        tried = f"Reason.{word.upper()}" if word in of_devices else f'"{word}"'
        assert tried in tests, f"{word}: no test expects {tried}"
