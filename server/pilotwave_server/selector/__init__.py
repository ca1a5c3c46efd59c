"""Selectors: one grammar, parsed once, compiled to a Python predicate and to SQL.

    selector  = "*" | condition { "," condition }          a comma means AND
    condition = key                                        the key is set
              | "!" key                                    the key is not set
              | key ( "=" | "==" | "!=" ) value
              | key ( "in" | "notin" ) "(" value { "," value } ")"
              | key ( ">" | ">=" | "<" | "<=" ) number
              | [ "!" ] "runs" model                         where devices are looked for,
              | "runs" model operator version                not for a group
    key       = a label's, or "fact." and a fact's
    value     = a word, or text in "…" or '…' with \\ before a quote or a backslash

What each means for a device (both compilers follow this, and are tested against each other):

- `site` is a label, what operators say of a device; `fact.arch` is a fact, what the device says of
  itself. Neither is ever looked up among the other: a device chooses its facts, and so its groups
  by fact, as it likes.
- A key is *set* when it is there and does not say false (the fact `false` or the text "false").
- `=` and `in` compare text exactly, letter by letter; a true/false fact reads as the text "true" or
  "false"; a number fact equals every value that writes the same number (`cpu_count=4`, `=4.0`).
- `!=` and `notin` are the opposite of `=` and `in`, so they hold for a device without the key.
- `>`, `>=`, `<`, `<=` compare numbers (as 64-bit floats). They apply to number facts, and to text
  that is a plain decimal number (`-12.5`, at most 16 characters); for anything else, and for a
  missing key, they do not hold. Versions are not numbers, so `fact.runtime.*` keys refuse them.
- `runs detector<1.2` compares the version that the device runs of a model by the order of versions
  (1.10 is above 1.9, and 1.2rc1 below 1.2). Every comparison, `!=` and `notin` too, holds only for
  devices that run the model; `!runs detector` finds the others. It finds devices and makes no
  group: a device would leave such a group by updating, in the middle of a rollout to it. The two
  compilers refuse it; `inventory/finding.py` alone compiles it.
"""

from __future__ import annotations

from pilotwave_server.selector.ast import Condition, Op, Runs, Selector
from pilotwave_server.selector.parse import BadSelector, parse
from pilotwave_server.selector.predicate import Predicate, compile_predicate
from pilotwave_server.selector.sql import compile_sql

__all__ = [
    "BadSelector",
    "Condition",
    "Op",
    "Predicate",
    "Runs",
    "Selector",
    "compile_predicate",
    "compile_sql",
    "parse",
]
