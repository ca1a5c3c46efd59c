"""Find the experiment with a plan by the plan's name."""

from __future__ import annotations

from typing import Any

from pilotwave_cli.client import Api
from pilotwave_cli.errors import Failed


def find_experiment(api: Api, model: str, plan: str) -> dict[str, Any]:
    """The newest experiment with a plan. Raises `Failed`."""
    rows = api.pages("/learning/experiments", model=model)
    found = next((row for row in rows if row["plan"] == plan), None)
    if found is None:
        raise Failed(
            f"plan {plan} of {model} has no experiment; "
            f"`pilotwave learn start {model} {plan} --group GROUP` begins one"
        )
    return dict(found)
