"""Start the program, or say in one sentence which extra it needs."""

from __future__ import annotations

import sys


def main() -> None:
    """Run `pilotwave`."""
    try:
        from pilotwave_cli.main import app
    except ModuleNotFoundError as e:
        if (e.name or "").startswith("pilotwave"):
            raise
        sys.exit(f"pilotwave: {e.name} is missing; pip install 'pilotwave[cli]'")
    app()
