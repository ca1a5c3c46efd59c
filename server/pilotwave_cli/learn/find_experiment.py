"""Find the experiment with a plan by the plan's name."""

from __future__ import annotations

from typing import Any

from pilotwave_cli.client import Api
from pilotwave_cli.errors import Failed


def newest_experiment(api: Api, model: str, plan: str) -> dict[str, Any] | None:
    """The newest experiment with a plan; None: it has none."""
    rows = api.pages("/learning/experiments", model=model)
    return next((row for row in rows if row["plan"] == plan), None)


def find_experiment(api: Api, model: str, plan: str) -> dict[str, Any]:
    """The newest experiment with a plan. Raises `Failed`."""
    found = newest_experiment(api, model, plan)
    if found is None:
        raise Failed(
            f"plan {plan} of {model} has no experiment; "
            f"`pilotwave learn start {model} {plan} --group GROUP` begins one"
        )
    return dict(found)
