"""A million changed deltas: no crash, no byte beyond what was declared, nothing read outside of the
old file, no wrong result accepted. Both ways of reckoning take turns."""

from __future__ import annotations

import io
import random
import resource
import time

from _bench import ROOT, Bench, main

from pilotwave_protocol.delta import Applier, arrays, lanes
from tests.protocol.delta.hostile import mutated, outcome

GOLDEN = ROOT / "tests" / "data" / "deltas"


def cases() -> list[tuple[bytes, bytes, bytes]]:
    """The golden deltas with their old and new files."""
    found = []
    for path in sorted(GOLDEN.glob("*.delta")):
        delta, old = path.read_bytes(), path.with_suffix(".old").read_bytes()
        out = io.BytesIO()
        Applier(io.BytesIO(delta), io.BytesIO(old), out.write).run()
        found.append((delta, old, out.getvalue()))
    return found


def measure(bench: Bench) -> None:
    tries = 20_000 if bench.quick else 1_000_000
    chance = random.Random(1)
    golden = cases()
    refused = failures = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.process_time()
    for i in range(tries):
        delta, old, new = golden[i % len(golden)]
        changed = mutated(delta, chance)
        try:
            refused += not outcome(changed, old, new, (lanes, arrays)[i // len(golden) % 2])
        except Exception as e:
            failures += 1
            if failures <= 10:
                bench.say(f"try {i}: {type(e).__name__}: {e}")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    bench.figure("tries", tries, "1,000,000", tries >= 1_000_000 or bench.quick)
    bench.figure("refused", refused)
    bench.figure("failures", failures, "0", failures == 0)
    bench.figure("memory_grown_mib", grown, "under 64", grown < 64)
    bench.figure("cpu_s", time.process_time() - begun)


if __name__ == "__main__":
    main("delta_fuzz", measure)
