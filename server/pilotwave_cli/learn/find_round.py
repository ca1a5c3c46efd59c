"""Find the round of a plan by the plan's name."""

from __future__ import annotations

from typing import Any

from pilotwave_cli.client import Api
from pilotwave_cli.errors import Failed


def find_round(api: Api, model: str, plan: str) -> dict[str, Any]:
    """The newest round of a plan. Raises `Failed`."""
    found = next((r for r in api.pages("/learning/rounds", model=model) if r["plan"] == plan), None)
    if found is None:
        raise Failed(
            f"plan {plan} of {model} has no round; "
            f"`pilotwave learn start {model} {plan} --group GROUP` begins one"
        )
    return dict(found)
