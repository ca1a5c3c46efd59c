"""Write the table of docs/runtimes.md from what the tests ran: `python -m tools.runtimes FOLDER`.

FOLDER holds what tests/e2e/test_runtimes.py wrote down of each runtime that passed. Sizes, import
times and memory are measured here, each in a process of its own.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from pilotwave_agent.runtimes import RUNTIMES
from tests.runtimes import TFLITE_PYTHON

REPO = Path(__file__).resolve().parent.parent
PAGE = REPO / "docs" / "runtimes.md"
MODELS = REPO / "tests" / "data" / "models"
BEGIN, END = "<!-- table: make runtimes-table -->", "<!-- end of table -->"
HEAD = (
    "| runtime | version | formats | files that went out, served and came back | by LiveModel "
    "| MB installed, with what it needs | import, s of CPU | MB imported | MB with a model |\n"
    "|---|---|---|---|---|---|---|---|---|\n"
)
# what a package needs and does not say
UNDECLARED = {"executorch": ("torch",), "llama.cpp": ("numpy",)}
TRIAL = """
import json, sys, time
from pathlib import Path
runtime, folder, file = sys.argv[1:]
from pilotwave_agent import runtimes
from pilotwave_agent.runtimes.confine import peak_mb
began = time.process_time()
runtimes.adapter(runtime)
took, imported = time.process_time() - began, peak_mb()
model = runtimes.load(Path(folder), entrypoint=file, runtime=runtime)
size = peak_mb() + sum(peak_mb(pid) for pid in getattr(model, "pids", ()))
model.close()
print(json.dumps({"import_s": took, "imported_mb": imported, "loaded_mb": size}))
"""


def rows(folder: Path) -> Iterator[str]:
    """Yield the table's rows, in the order in which the agent knows the runtimes."""
    for name in [*RUNTIMES, "command"]:
        path = folder / f"{name}.json"
        if not path.exists():
            raise SystemExit(f"{name} was not run: see what `make runtimes-table` said")
        yield row(name, json.loads(path.read_text()))


def row(name: str, found: dict[str, Any]) -> str:
    stub = name == "tensorrt"
    measured = {} if stub or name == "command" else measure(name, found["files"][0])
    cells = [
        f"`{name}`",
        f"{found['version'] or 'none'}{' (**stand-in for `trtexec`**)' if stub else ''}",
        ", ".join(f"`{f}`" for f in found["formats"]),
        ", ".join(f"`{f}`" for f in found["files"]) or "a shell script",
        "yes" if found["live"] else "no: in a process of its own",
        size(name) if measured else "–",
        f"{measured['import_s']:.2f}" if measured else "–",
        f"{measured['imported_mb']:.0f}" if measured else "–",
        f"{measured['loaded_mb']:.0f}" if measured else "–",
    ]
    return f"| {' | '.join(cells)} |\n"


def measure(name: str, file: str) -> dict[str, float]:
    """Import the adapter and load one sample in a fresh process."""
    python = str(TFLITE_PYTHON) if name == "tflite-runtime" else sys.executable
    code = f"import sys; sys.path.insert(0, {str(REPO / 'agent')!r})\n{TRIAL}"
    done = subprocess.run(
        [python, "-W", "ignore", "-c", code, name, str(MODELS), file],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def size(name: str) -> str:
    """Return the megabytes of the package alone and of all that it pulls in."""
    if name == "tflite-runtime":
        folder = next(TFLITE_PYTHON.parent.parent.glob("lib/python3*/site-packages"))
        found = {d.metadata["Name"]: d for d in metadata.distributions(path=[str(folder)])}
        alone = [found["tflite-runtime"]]
        whole = [*alone, found["numpy"]]
    else:
        alone = [metadata.distribution(n) for n in RUNTIMES[name].distributions if is_here(n)][:1]
        seen: set[str] = set()
        wanted = [*alone, *(metadata.distribution(n) for n in UNDECLARED.get(name, ()))]
        whole = [found for each in wanted for found in closure(each, seen)]
    return f"{megabytes(alone):.0f}, {megabytes(whole):.0f}"


def is_here(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def closure(found: metadata.Distribution, seen: set[str]) -> Iterator[metadata.Distribution]:
    """Yield a distribution and all that it requires here."""
    name = re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()
    if name in seen:
        return
    seen.add(name)
    yield found
    for text in found.requires or ():
        wanted = Requirement(text)
        needed = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
        if needed and is_here(wanted.name):
            yield from closure(metadata.distribution(wanted.name), seen)


def megabytes(found: list[metadata.Distribution]) -> float:
    files = (Path(str(f.locate())) for d in found for f in d.files or ())
    return sum(f.stat().st_size for f in files if f.is_file()) / 1e6


def main() -> None:
    """Replace the table between its two marks."""
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    table = HEAD + "".join(rows(Path(sys.argv[1])))
    PAGE.write_text(f"{before}{BEGIN}\n{table}{END}{after}")
    print(table)


if __name__ == "__main__":
    main()
