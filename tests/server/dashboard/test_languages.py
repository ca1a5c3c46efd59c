"""Every text of the page is there in each language, with the same places to fill in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

from pilotwave_server.dashboard import i18n
from pilotwave_server.dashboard.rendering import TEMPLATES, environment
from pilotwave_server.dashboard.words import SIGNS

DASHBOARD = TEMPLATES.parent
METHODS = [("**/templates/**.html", "jinja2.ext:babel_extract"), ("**.py", "python")]
KEYWORDS = {"_": None, "gettext": None, "N_": None, "ngettext": (1, 2)}


def texts() -> set[str]:
    options = {"**/templates/**.html": {"extensions": "jinja2.ext.i18n", "trim_blocks": "true"}}
    found = extract_from_dir(DASHBOARD, METHODS, options, KEYWORDS)
    return {str(message) for _, _, message, _, _ in found}


@pytest.mark.parametrize("folder", sorted(i18n.CATALOGUES.values()))
def test_the_catalogue_has_every_text_and_no_other(folder: str) -> None:
    with (i18n.LOCALE / folder / "LC_MESSAGES" / "pilotwave.po").open("rb") as file:
        catalogue = {str(m.id): str(m.string) for m in read_po(file) if m.id}
    assert set(catalogue) == texts()
    for text, told in catalogue.items():
        assert told, text
        places = set(re.findall(r"%\(\w+\)s", text))
        assert set(re.findall(r"%\(\w+\)s", told)) == places, text


@pytest.mark.parametrize("language", sorted(i18n.LANGUAGES))
def test_every_template_can_be_read_in_every_language(language: str) -> None:
    for path in sorted(TEMPLATES.glob("*.html")):
        environment(language).get_template(path.name)


@pytest.mark.parametrize(
    ("wanted", "accepted", "language"),
    [
        (None, "zh-CN,zh;q=0.9,en;q=0.8", "zh-Hans"),
        (None, "de,en;q=0.5", "en"),
        (None, "", "en"),
        ("zh-Hans", "en", "zh-Hans"),
        ("xx", "en", "en"),
    ],
)
def test_the_language_is_the_one_chosen_else_the_browsers(
    wanted: str | None, accepted: str, language: str
) -> None:
    assert i18n.choose(wanted, accepted) == language


def test_every_icon_of_a_state_is_in_the_sprite() -> None:
    sprite = Path(DASHBOARD / "static" / "icons.svg").read_text()
    for sign in SIGNS.values():
        assert f'id="{sign.icon}"' in sprite


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("canary", "金丝雀"),
        ("everyone", "全部"),
        ("20 devices", "20 台设备"),
        ("5%", "5%"),
        ("berlin first", "berlin first"),  # somebody's own words
        ("many devices", "many devices"),
    ],
)
def test_a_wave_that_nobody_named_is_named_in_the_readers_language(name: str, shown: str) -> None:
    assert environment("zh-Hans").filters["wave_name"](name) == shown
    assert environment("en").filters["wave_name"](name) == name
