"""Pages by ear and by keyboard alone: headers with a scope, boxes that take the focus."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pilotwave_server.dashboard.rendering import TEMPLATES

PAGES = sorted(TEMPLATES.glob("*.html"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_header_has_a_scope_and_a_text(page: Path) -> None:
    text = page.read_text()
    for tag in re.findall(r"<th(?![a-z])[^>]*", text):
        assert 'scope="' in tag, tag
    assert not re.search(r"<th[^>]*></th>", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_box_that_scrolls_takes_the_focus_and_says_what_it_is(page: Path) -> None:
    text = page.read_text()
    for tag in re.findall(r"<pre[^>]*>|<div class=\"scroll\"[^>]*>", text):
        assert 'tabindex="0"' in tag, tag
        assert 'role="region"' in tag, tag
        assert "aria-label=" in tag, tag
