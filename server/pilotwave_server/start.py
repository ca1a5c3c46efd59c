"""Start the program, or say in one sentence which extra it needs."""

from __future__ import annotations

import sys

from pilotwave_server.imports import uncollected


def main() -> None:
    """Run `pilotwave-server`."""
    try:
        with uncollected():
            from pilotwave_server.cli import main as run
    except ModuleNotFoundError as e:
        if (e.name or "").startswith("pilotwave"):
            raise
        sys.exit(f"pilotwave-server: {e.name} is missing; pip install 'pilotwave[server]'")
    run()
