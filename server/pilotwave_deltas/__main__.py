"""`python -m pilotwave_deltas OLD NEW OUT`: write a delta, prove it by applying it.

Standard input is held open by the process that wants the delta; where it ends, this one does.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pilotwave_deltas import lifeline
from pilotwave_deltas.generate import generate
from pilotwave_protocol.delta import apply_delta


def main() -> None:
    """Write the delta from OLD to NEW into OUT; any fault ends in a traceback and status 1."""
    lifeline.hold()
    os.nice(10)
    old, new, out = (Path(word) for word in sys.argv[1:4])
    generate(old, new, out)
    with out.open("rb") as delta, old.open("rb") as source:
        apply_delta(delta, source, len)


if __name__ == "__main__":
    main()
