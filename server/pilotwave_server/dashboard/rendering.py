"""Templates: Jinja2 with everything escaped, one environment a language, and a few filters."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from babel.dates import format_timedelta
from babel.numbers import format_decimal
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from pilotwave_server.dashboard import i18n, sentences, static, words

TEMPLATES = Path(__file__).parent / "templates"
UNITS = ("B", "kB", "MB", "GB", "TB")


@cache
def environment(language: str) -> Environment:
    """The templates in a language."""
    env = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n", "jinja2.ext.do"],
        auto_reload=False,
    )
    found = i18n.translations(language)
    env.install_gettext_translations(found, newstyle=True)  # type: ignore[attr-defined]  # by the extension
    locale = i18n.locale_of(language)

    def number(value: float) -> str:
        return format_decimal(value, locale=locale)

    def figure(value: float | None, unit: str = "") -> str:
        if value is None:
            return "–"
        shown = format_decimal(float(f"{value:.4g}"), locale=locale)
        return f"{shown} {unit}" if unit in ("ms", "%") else str(shown)

    def word(state: str) -> str:
        return str(found.gettext(words.word_of(state)))

    def chip(state: str) -> Markup:
        shown = words.sign(state)
        return Markup('<span class="chip {}">{}{}</span>').format(
            shown.tone, icon(shown.icon), word(state)
        )

    def wave_name(name: str) -> str:
        """A name that nobody chose in the reader's language; what a person wrote stays."""
        count, _, unit = name.partition(" ")
        if unit == "devices" and count.isdecimal():
            told = found.ngettext("device", "devices", int(count))
            return f"{format_decimal(int(count), locale=locale)} {told}"
        return str(found.gettext(name)) if name in words.WAVE_NAMES else name

    def say(sentence: str | None) -> Markup:
        return sentences.shown(sentence, found.gettext, language)

    def because(detail: str | None, reason: str | None) -> Markup:
        return sentences.because(detail, reason, found.gettext, language)

    def ago(value: datetime | None, now: datetime | None = None) -> Markup:
        if value is None:
            return Markup('<span class="dim">–</span>')
        passed = (now or datetime.now(timezone.utc)) - value
        text = format_timedelta(
            -passed if abs(passed) > timedelta(seconds=1) else -timedelta(seconds=1),
            add_direction=True,
            locale=locale,
        )
        return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(
            value.isoformat(), value.strftime("%Y-%m-%d %H:%M:%S"), text
        )

    env.filters.update(
        number=number,
        figure=figure,
        word=word,
        chip=chip,
        ago=ago,
        when=when,
        say=say,
        because=because,
        size=size,
        pretty=pretty,
        wave_name=wave_name,
    )
    env.globals.update(static=static.url, icon=icon, with_query=with_query, timedelta=timedelta)
    return env


def icon(name: str) -> Markup:
    """An icon of the sprite, silent for screen readers: the word beside it speaks."""
    return Markup('<svg class="icon" aria-hidden="true"><use href="{}#{}"/></svg>').format(
        static.url("icons.svg"), name
    )


def when(value: datetime | None) -> Markup:
    """A time; the browser shows it in the viewer's zone."""
    if value is None:
        return Markup('<span class="dim">–</span>')
    utc = value.astimezone(timezone.utc)
    return Markup('<time datetime="{}" data-local>{}</time>').format(
        utc.isoformat(), utc.strftime("%Y-%m-%d %H:%M UTC")
    )


_TEXT = re.compile(r"(?<!data-local)>([^<]* UTC[^<]*)")
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d)(:\d\d)? UTC")


def in_one_zone(html: str) -> str:
    """Let the times that sentences name be shown in the viewer's zone, as the times beside them."""

    def sentence(found: re.Match[str]) -> str:
        return ">" + _MOMENT.sub(moment, found[1])

    def moment(found: re.Match[str]) -> str:
        at = f"{found[1]}T{found[2]}{found[3] or ':00'}+00:00"
        return f'<time datetime="{at}" data-local>{found[0]}</time>'

    return _TEXT.sub(sentence, html)


def size(count: float | None) -> str:
    """A number of bytes, for people."""
    if count is None:
        return "–"
    value = float(count)
    for unit in UNITS:
        if value < 1000 or unit == UNITS[-1]:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("the last unit takes everything")


def pretty(value: Any) -> Markup:
    """A JSON value as text of several lines."""
    return escape(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def with_query(path: str, **values: Any) -> str:
    """A path with those of the values that are there."""
    given = {key: value for key, value in values.items() if value not in (None, "")}
    return f"{path}?{urlencode(given)}" if given else path
