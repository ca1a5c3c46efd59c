"""What every measurement shares: its form, a server to measure, a way to read memory.

A bench is one file, run as `.venv/bin/python bench/NAME.py [--quick] [--json FILE]`. It starts what
it measures, prints its figures beside the goals and ends with status 0, whatever it found.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from demo.stage import Stage  # noqa: E402 - the path to it is set just above

MODEL = "detector"
DIGITS = ROOT / "examples" / "digits"


@dataclass
class Bench:
    """One measurement's figures and goals."""

    name: str
    quick: bool
    figures: dict[str, Any] = field(default_factory=dict)
    goals: dict[str, str] = field(default_factory=dict)
    met: dict[str, bool] = field(default_factory=dict)
    options: argparse.Namespace = field(default_factory=argparse.Namespace)

    def say(self, text: str) -> None:
        """Say what is being done."""
        print(f"  {text}", flush=True)

    def figure(self, name: str, value: float | int | str, goal: str = "", met: bool = True) -> None:
        """Record a figure, with its goal in words and whether it was met."""
        shown = (
            f"{value:,.4g}"
            if isinstance(value, float)
            else f"{value:,}"
            if isinstance(value, int)
            else value
        )
        self.figures[name] = round(value, 6) if isinstance(value, float) else value
        if goal:
            self.goals[name], self.met[name] = goal, bool(met)
            shown += f"   (goal {goal}: {'met' if met else 'NOT MET'})"
        print(f"  {name:38} {shown}", flush=True)


def main(
    name: str,
    measure: Callable[[Bench], None],
    *,
    add: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
) -> None:
    """Run a measurement from the command line; `add` adds options of its own."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--quick", action="store_true", help="end within a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    add(parser)
    options = parser.parse_args()
    bench = Bench(name, options.quick, options=options)
    print(f"{name}{' (quick)' if options.quick else ''}", flush=True)
    measure(bench)
    if options.json:
        written = {k: v for k, v in vars(bench).items() if k != "options"}
        options.json.write_text(json.dumps(written, indent=1, sort_keys=True) + "\n")


@contextmanager
def server(**settings: object) -> Iterator[Stage]:
    """Run a real server on SQLite in a temporary folder, with keys and one model."""
    with tempfile.TemporaryDirectory(prefix="pilotwave-bench-") as folder:
        stage = Stage(Path(folder))
        stage.settings.update({f"PILOTWAVE_{k.upper()}": str(v) for k, v in settings.items()})
        try:
            stage.run(
                "pilotwave-server",
                "init",
                "--data",
                "data",
                "--fleet",
                "bench",
                "--token-file",
                "admin.token",
            )
            stage.start_server()
            stage.pilotwave("keys", "init", "--dir", "keys", "--plain")
            stage.pilotwave("models", "create", MODEL, "--publisher", "keys/publisher.pem")
            yield stage
        finally:
            stage.close()


def publish(stage: Stage, version: str, source: Path | None = None) -> None:
    """Publish a version of the example model."""
    folder = source or DIGITS / version
    stage.pilotwave(
        "publish",
        MODEL,
        version,
        "--variant",
        f"onnx-fp32={folder}",
        "--key",
        "keys/publisher.pem",
        "--no-try",
    )


def enrol(stage: Stage, device: str, *, server_url: str | None = None, extra: str = "") -> None:
    """Enrol a real agent whose data folder is DEVICE."""
    made = stage.ask("codes", "create", "--label", "site=bench")
    code = (made["items"] if isinstance(made, dict) else made)[0]["code"]
    stage.run(
        "pilotwave-agent",
        "enrol",
        "--server",
        server_url or stage.url,
        "--name",
        device,
        "--code",
        code,
        "--root",
        "keys/root.json",
        "--data",
        device,
    )
    if extra:
        config = stage.root / device / "agent.toml"
        config.write_text(config.read_text() + "\n" + extra + "\n")


def memory_kb(pid: int, what: str) -> int:
    """Read `Pss` (from smaps_rollup), or `VmHWM` / `VmRSS` (from status), in kB."""
    name = "smaps_rollup" if what == "Pss" else "status"
    text = Path(f"/proc/{pid}/{name}").read_text()
    found = re.search(rf"^{what}:\s+(\d+) kB", text, re.MULTILINE)
    if found is None:
        raise ValueError(f"/proc/{pid}/{name} has no {what}")
    return int(found.group(1))


def median(values: list[float]) -> float:
    """Return the middle value."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2]
