"""What is wrong with one typed value."""

from __future__ import annotations

from pilotwave_server.dashboard.words import N_

SENTENCES: tuple[str, ...] = (
    N_("%(what)s: expected %(said)s; got %(shown)s"),
    N_("%(what)s: expected one that does not begin with '%(shown)s'; got %(shown2)s"),
    N_("device name"),
    N_("fact key"),
    N_("fleet name"),
    N_("group name"),
    N_("label key"),
    N_("label value"),
    N_("metric"),
    N_("model name"),
    N_("name"),
    N_("variant name"),
    N_("version"),
    N_("small letters and digits, joined by single '.', '_' or '-', at most 64 characters"),
    N_("a small letter first, then small letters and digits joined by '.', '_' or '-', <= 64"),
    N_("a small letter, then small letters, digits, '_' and '.', at most 64 characters"),
    N_("1 to 128 printable characters"),
    N_("PEP 440 or SemVer, like 1.4.0 or 2.0.0-rc.1"),
    N_("Field required"),
    N_("String should have at most %(most)s characters"),
    N_("String should have at least %(least)s characters"),
    N_("String should have at least %(least)s character"),
    N_("Value error, %(said)s"),
    N_("expected text without control characters"),
    N_("expected a time that UTC can express"),
    N_("Input should be a valid datetime, %(text)s"),
    N_("Input should be a valid integer, unable to parse string as an integer"),
    N_("PEP 440 or SemVer, like 1.4.0 or 2.0.0-rc.1, at most 64 characters"),
)
