"""Write docs/reference.md from the code: settings, agent configuration, commands, metrics, errors.

.venv/bin/python -m tools.reference           write it
.venv/bin/python -m tools.reference --check   say whether it is up to date
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

import pilotwave_server
from pilotwave_cli.main import cli
from pilotwave_protocol.states import Reason
from pilotwave_server.cli import app as server_cli
from pilotwave_server.errors import ServerError
from pilotwave_server.metrics import Metrics
from pilotwave_server.settings import Settings

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference.md"


def page() -> str:
    """Return the page as it should be."""
    parts = ["# Reference", "Made from the code by `python -m tools.reference`; a test compares."]
    parts += ["## Server settings", "\n".join(settings())]
    parts += ["## `pilotwave`", "\n".join(commands(typer.main.get_command(cli), "pilotwave"))]
    server = typer.main.get_command(server_cli)
    parts += ["## `pilotwave-server`", "\n".join(commands(server, "pilotwave-server"))]
    parts += ["## Metrics", "\n".join(metrics())]
    parts += ["## Errors of the server", "\n".join(errors())]
    words = ", ".join(f"`{reason}`" for reason in Reason)
    parts += ["## Reasons of a device", f"{words}.\n\nWhat each means: [protocol](protocol.md)."]
    return "\n\n".join(parts) + "\n"


def settings() -> Iterator[str]:
    """Yield the table of settings."""
    yield "Each is an environment variable; some are options of `pilotwave-server` as well.\n"
    yield "| variable | default | |"
    yield "|---|---|---|"
    for name, field in Settings.model_fields.items():
        yield f"| `PILOTWAVE_{name.upper()}` | `{field.default}` | {field.description} |"


def commands(command: Any, path: str) -> Iterator[str]:
    """Yield a line for each command below one."""
    below = getattr(command, "commands", None)
    if below is not None:
        for name, found in below.items():
            yield from commands(found, f"{path} {name}")
        return
    words = [_usage(p) for p in command.params if not getattr(p, "hidden", False)]
    first = (command.help or "").strip().split("\n")[0]
    yield f"- `{' '.join([path, *filter(None, words)])}`  \n  {first}"


def _usage(param: Any) -> str:
    if param.param_type_name == "argument":
        many = "…" if param.nargs == -1 else ""
        return f"{(param.name or '').upper()}{many}"
    option = max(param.opts, key=len)
    if option == "--help":
        return ""
    flag = getattr(param, "is_flag", False)
    shown = option if flag else f"{option} {(param.name or '').upper()}"
    return shown if param.required else f"[{shown}]"


def metrics() -> Iterator[str]:
    """Yield a line for each metric: those counted, and those that slices give."""
    counted = re.findall(r"# HELP (\S+) (.*)\n# TYPE \S+ (\S+)", Metrics().render().decode())
    found = {(name, kind, text) for name, text, kind in counted if not name.endswith("_created")}
    for source in Path(pilotwave_server.__path__[0]).rglob("*.py"):
        found |= set(_gauges(ast.parse(source.read_text())))
    yield "| metric | kind | |"
    yield "|---|---|---|"
    for name, kind, text in sorted(found):
        yield f"| `{name}` | {kind} | {text} |"


def _gauges(tree: ast.AST) -> Iterator[tuple[str, str, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or len(node.args) < 2:
            continue
        called = getattr(node.func, "id", getattr(node.func, "attr", ""))
        words = [a.value for a in node.args[:2] if isinstance(a, ast.Constant)]
        if called in {"gauge", "GaugeMetricFamily"} and len(words) == 2:
            yield str(words[0]), "gauge", str(words[1])
        if called in {"Counter", "CounterMetricFamily"} and len(words) == 2:
            yield f"{str(words[0]).removesuffix('_total')}_total", "counter", str(words[1])


def errors() -> Iterator[str]:
    """Yield a line for each error code and its status."""
    for module in pkgutil.walk_packages(pilotwave_server.__path__, "pilotwave_server."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found = {(kind.code, kind.status, _first_line(kind)) for kind in _below(ServerError)}
    yield "| code | HTTP status | |"
    yield "|---|---|---|"
    for code, status, text in sorted(found):
        yield f"| `{code}` | {status} | {text} |"


def _below(kind: type[ServerError]) -> Iterator[type[ServerError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _below(child)


def _first_line(kind: type) -> str:
    own = kind.__dict__.get("__doc__") or ""
    return own.strip().split("\n")[0]


def main() -> int:
    """Write the page, or compare it."""
    wanted = page()
    if "--check" in sys.argv[1:]:
        if PAGE.read_text() == wanted:
            return 0
        print("docs/reference.md is out of date: run .venv/bin/python -m tools.reference")
        return 1
    PAGE.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
