"""Runs under the generator's own Python: calls a generated client as stdin says, a line a call.

    {"operation": "models.get_version", "path": ["detector", "1.0.0"], "body": ["Name", {…}]}

Each answer is a line too: what the document's model of the answer holds.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any


def call(client: Any, package: str, asked: dict[str, Any]) -> Any:
    operation = importlib.import_module(f"{package}.api.{asked['operation']}")
    if asked.get("only_look"):
        return callable(operation.sync_detailed)
    words = {}
    if "body" in asked:
        name, fields = asked["body"]
        words["body"] = getattr(importlib.import_module(f"{package}.models"), name).from_dict(
            fields
        )
    answer = operation.sync_detailed(*asked.get("path", ()), client=client, **words)
    if answer.status_code >= 400:
        raise SystemExit(f"{asked['operation']}: {answer.status_code} {answer.content!r}")
    return None if answer.parsed is None else answer.parsed.to_dict()


def main(package: str, url: str, token: str) -> None:
    sys.path.insert(0, "")
    made = importlib.import_module(package).AuthenticatedClient(
        base_url=url, token=token, raise_on_unexpected_status=True
    )
    for line in sys.stdin:
        print(json.dumps(call(made, package, json.loads(line))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
