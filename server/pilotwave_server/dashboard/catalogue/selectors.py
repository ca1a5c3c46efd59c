"""What is wrong with a selector."""

from __future__ import annotations

from pilotwave_server.dashboard.words import N_

SENTENCES: tuple[str, ...] = (
    N_("selector, position %(place)s: %(said)s"),
    N_("expected a closing %(quote)s; the text ended first"),
    N_("expected a quote or a backslash after a backslash"),
    N_("expected at most %(most)s characters"),
    N_("expected a value of at most %(most)s characters"),
    N_(
        "`%(selector)s` finds devices, but makes no group: a device would leave it by "
        "updating. Use labels or facts"
    ),
    N_("%(key)s is a version, not a number: expected = != in or notin"),
    N_("expected a number, like 20 or -1.5; got %(shown)s"),
    N_("the end"),
    N_("at most %(most)s conditions"),
    N_("at most %(most)s values"),
    N_("one of = != > >= < <= in notin, or a comma"),
    N_("a model after runs"),
    N_("a value; put odd characters in quotes"),
    N_("the end after * (it already selects every device)"),
    N_("a condition, like site=berlin"),
    N_("( and a list of values"),
    N_("a comma or )"),
)
