"""Applying deltas on a device: memory above imports, and CPU per 100 MB, at 10 MB, 100 MB, 1 GB.

Each run is a process of its own. Pairs are made-up float16 weights with the changes of a
fine-tune in every block; the large ones repeat a 10 MB delta's blocks, so every block costs what
a real one does.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

from _bench import ROOT, Bench, main

from pilotwave_agent.resident.child import environment
from pilotwave_deltas.generate import generate
from pilotwave_protocol.delta import HEADER_BYTES, Header
from tests.deltas.pairs import tuned, weights

MB = 1_000_000
CHILD = """
import io, resource, sys, time
sys.path.insert(0, sys.argv[1])
if sys.argv[5] == "stdlib":
    sys.modules["numpy"] = None
from pilotwave_protocol.delta import Applier
from pilotwave_protocol.delta.blocks import arithmetic
arithmetic()
peak = lambda: int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1])
before, begun = peak(), time.process_time()
delta, old, new = (open(p, m) for p, m in zip(sys.argv[2:5], ("rb", "rb", "wb")))
with delta, old, new:
    Applier(delta, old, new.write).run()
print(time.process_time() - begun, peak() - before)
"""


def repeated(folder: Path, times: int) -> int:
    """Write a pair that is the first one many times over; return the new file's size."""
    head = Header.parse((folder / "delta").read_bytes()[:HEADER_BYTES])
    body = (folder / "delta").read_bytes()[HEADER_BYTES:]
    digests = []
    for name in ("old", "new"):
        hasher, data = hashlib.sha256(), (folder / name).read_bytes()
        with (folder / f"many.{name}").open("wb") as out:
            for _ in range(times):
                hasher.update(data)
                out.write(data)
        digests.append(hasher.hexdigest())
    sizes = head.old_size * times, head.new_size * times
    whole = Header(head.mode, digests[0], sizes[0], digests[1], sizes[1], head.block_size)
    with (folder / "many.delta").open("wb") as out:
        out.write(whole.pack())
        for _ in range(times):
            out.write(body)  # distances are relative, so the same blocks serve again
    return sizes[1]


def apply(folder: Path, kind: str) -> tuple[float, int]:
    """Apply in a process of its own; return CPU seconds and kB of memory above imports."""
    files = [str(folder / f"many.{name}") for name in ("delta", "old", "out")]
    command = [sys.executable, "-c", CHILD, str(ROOT / "agent"), *files, kind]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment())
    said = done.stdout.split()
    return float(said[0]), int(said[1])


def measure(bench: Bench) -> None:
    sizes = (10,) if bench.quick else (10, 100, 1000)
    with tempfile.TemporaryDirectory(prefix="pilotwave-apply-") as temp:
        folder = Path(temp)
        for dtype, step in (("float16", 1e-4), ("float32", 1e-4), ("int8", 0)):
            old = weights(10 * MB // {"float16": 2, "float32": 4, "int8": 1}[dtype], 1, dtype)
            (folder / "old").write_bytes(old.tobytes())
            (folder / "new").write_bytes(tuned(old, 2, step).tobytes())
            made = generate(folder / "old", folder / "new", folder / "delta")
            bench.say(f"{dtype}: the delta is {made.size / 1e5:.1f} % of the file")
            for megabytes in sizes if dtype == "float16" else sizes[:2]:
                full = repeated(folder, megabytes // 10)
                for kind, goal in (("stdlib", 10), ("numpy", 3)):
                    cpu, memory = apply(folder, kind)
                    name = f"{dtype}_{megabytes}mb_{kind}"
                    per = cpu / full * 1e8
                    bench.figure(f"{name}_cpu_s_per_100mb", per, f"at most {goal}", per <= goal)
                    if kind == "stdlib":
                        met = memory <= 8192
                        bench.figure(f"{name}_memory_mib", memory / 1024, "at most 8", met)


if __name__ == "__main__":
    main("delta_apply", measure)
