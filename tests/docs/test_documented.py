"""What is in the code is in the docs, and links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pilotwave_protocol.states import Reason
from tools import reference

REPO = Path(__file__).parent.parent.parent
PAGES = [REPO / "README.md", *sorted((REPO / "docs").glob("*.md"))]


def test_the_reference_is_what_the_code_says() -> None:
    hint = "run .venv/bin/python -m tools.reference"
    assert reference.PAGE.read_text() == reference.page(), hint


def test_each_reason_is_in_the_protocol_page() -> None:
    text = (REPO / "docs" / "protocol.md").read_text()
    missing = [str(reason) for reason in Reason if f"`{reason}`" not in text]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
