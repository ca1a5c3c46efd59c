"""Every time on a page is in one zone: the viewer's own."""

from __future__ import annotations

import pytest

from pilotwave_server.dashboard.rendering import in_one_zone, when
from tests.conftest import START

SAID = "2026-01-31 09:30:00 UTC"
SHOWN = f'<time datetime="2026-01-31T09:30:00+00:00" data-local>{SAID}</time>'


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        (f"<p>must hold until {SAID} (1 h)</p>", f"<p>must hold until {SHOWN} (1 h)</p>"),
        (f"<p>{SAID} and {SAID}</p>", f"<p>{SHOWN} and {SHOWN}</p>"),
        (
            "<p>2026-01-31 09:30 UTC</p>",
            SHOWN.replace(SAID, "2026-01-31 09:30 UTC").join(["<p>", "</p>"]),
        ),
        (f'<b title="{SAID}">x</b>', None),
        (f"<p>{when(START)}</p>", None),
        ('<p>UTC</p><input value="09:30 UTC">', None),
    ],
)
def test_times_in_sentences_become_the_viewers(html: str, expected: str | None) -> None:
    assert in_one_zone(html) == (html if expected is None else expected)
    assert in_one_zone(in_one_zone(html)) == in_one_zone(html)
