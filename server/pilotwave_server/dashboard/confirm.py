"""Ask before an act that cannot be undone or concerns many devices: a page with the same form.

    sure(page, form, page.told(REVOKE, device=device))

The question is a page of its own, so it works without JavaScript; its button sends the same fields
again with `sure=yes`, which a form of ours never has at first.
"""

from __future__ import annotations

from collections.abc import Mapping


class Asked(Exception):
    """A person has to say yes first. `wants_reason`: and why."""

    def __init__(self, consequence: str, *, wants_reason: bool = False) -> None:
        super().__init__(consequence)
        self.consequence = consequence
        self.wants_reason = wants_reason


def sure(form: Mapping[str, str], consequence: str, *, wants_reason: bool = False) -> None:
    """Go on where the question was answered; Asked otherwise."""
    answered = form.get("sure") == "yes"
    if not answered or (wants_reason and not form.get("reason", "").strip()):
        raise Asked(consequence, wants_reason=wants_reason)
