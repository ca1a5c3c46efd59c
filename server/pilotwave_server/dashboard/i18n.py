"""The languages of the page: gettext catalogues, read from their texts when the server starts."""

from __future__ import annotations

import io
from functools import cache
from gettext import GNUTranslations, NullTranslations
from pathlib import Path

from babel import Locale
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

LOCALE = Path(__file__).parent / "locale"
LANGUAGES = {"en": "English", "zh-Hans": "简体中文"}
CATALOGUES = {"zh-Hans": "zh_CN"}
DEFAULT = "en"


@cache
def translations(language: str) -> NullTranslations:
    """The catalogue of a language; English needs none."""
    folder = CATALOGUES.get(language)
    if folder is None:
        return NullTranslations()
    with (LOCALE / folder / "LC_MESSAGES" / "pilotwave.po").open("rb") as text:
        catalogue = read_po(text, locale=folder)
    compiled = io.BytesIO()
    write_mo(compiled, catalogue)
    compiled.seek(0)
    return GNUTranslations(compiled)


def choose(wanted: str | None, accepted: str) -> str:
    """The language that somebody chose, else the first that the browser asks for and we have."""
    if wanted in LANGUAGES:
        return str(wanted)
    for part in accepted.split(",")[:10]:
        tag = part.partition(";")[0].strip().lower()
        if tag.startswith("zh"):
            return "zh-Hans"
        if tag.startswith("en"):
            return "en"
    return DEFAULT


def locale_of(language: str) -> Locale:
    """How numbers are written there."""
    return Locale.parse(CATALOGUES.get(language, language))
