"""Find the commands that hints, errors, pages and docs print, and say why one would be refused.

What stands for something else (`MODEL`, `{name}`, `%(name)s`, `…`) is a 1 here: a number, a word
and a path at once. A command that is only named (`pilotwave keys rotate`) has to exist; one with
words of its own has to be complete.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import typer

from pilotwave_agent.cli import parser
from pilotwave_cli.main import cli
from pilotwave_server.cli import app as server_cli

REPO = Path(__file__).resolve().parent.parent
PROGRAMS = {
    "pilotwave": typer.main.get_command(cli),
    "pilotwave-server": typer.main.get_command(server_cli),
}
_PROGRAM = r"pilotwave(?:-server|-agent)?"
_SUDO = r"(?:sudo (?:-u \S+ )?)?(?:[\w./-]*/)?"
_TICKS = re.compile(rf"`{_SUDO}({_PROGRAM} [^`]+)`")
_WHOLE = re.compile(rf"^({_PROGRAM} [a-z][^`]*)$")
_FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
_AFTER_COLON = re.compile(rf": ({_PROGRAM} [a-z][^`]*)$")
_TAGS = re.compile(rf"<code>({_PROGRAM} [^<]+)</code>")
_HOLE = re.compile(r"%\(\w+\)s|\$?\{[^}]*\}|…|\.\.\.|\b[A-Z][A-Z-]*\b(?!=)")


class Printed(NamedTuple):
    """A command as it is printed, and where."""

    where: str
    line: str


def in_code() -> Iterator[Printed]:
    """Yield the commands in sentences that programs print; docstrings name commands only."""
    for path in sorted([*(REPO / "server").rglob("*.py"), *(REPO / "agent").rglob("*.py")]):
        tree = ast.parse(path.read_text())
        prose = {id(doc) for node in ast.walk(tree) for doc in _docstrings(node)}
        parts = {id(p) for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for p in n.values}
        for node in ast.walk(tree):
            # what begins with # is a remark in a file that a program writes
            if id(node) not in prose | parts and not _text(node).startswith("#"):
                yield from _found(path, _text(node), _TICKS, _AFTER_COLON, _WHOLE)


def in_pages() -> Iterator[Printed]:
    """Yield the commands that the web page shows."""
    folder = REPO / "server" / "pilotwave_server" / "dashboard"
    for path in sorted(
        [*folder.rglob("*.html"), *folder.glob("static/*.js"), *folder.rglob("*.po")]
    ):
        text = re.sub(r"\{\{ *([^}]*?) *\}\}", lambda m: _shown(m[1]), path.read_text())
        text = re.sub(r"\$\{[^}]*\}", "1", text)
        yield from _found(path, text, _TICKS, _TAGS)


def in_docs() -> Iterator[Printed]:
    """Yield the commands of README and docs: in sentences, and in blocks to be copied."""
    for path in [REPO / "README.md", *sorted((REPO / "docs").rglob("*.md"))]:
        if path.name == "reference.md":
            continue  # a grammar, made from the code
        text = path.read_text()
        blocks = [block for kind, block in _FENCED.findall(text) if kind in ("", "sh", "bash")]
        text = _FENCED.sub("", text)
        blocks += re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
        yield from _found(path, text, _TICKS)
        for block in blocks:
            for line in re.sub(r"\\\n\s*", "", block).splitlines():
                yield from _in_line(path, line)


def _in_line(path: Path, line: str) -> Iterator[Printed]:
    for part in re.split(r"&&|\|\|?", re.sub(r"\s+#.*|&\s*$", "", line.partition("  #")[0])):
        found = re.match(rf"\s*(?:\$ )?{_SUDO}({_PROGRAM} [a-z].*)", part)
        if found:
            yield Printed(path.name, found[1].strip().rstrip("&").strip())


def _found(path: Path, text: str, *patterns: re.Pattern[str]) -> Iterator[Printed]:
    for pattern in patterns:
        for line in pattern.findall(text):
            yield Printed(str(path.relative_to(REPO)), " ".join(line.split()))


def _shown(expression: str) -> str:
    said = re.findall(r"_\((['\"])(.*?)(?<!\\)\1[,)]", expression)
    return " ".join(text for _, text in said) or "1"


def _docstrings(node: ast.AST) -> Iterator[ast.AST]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    if isinstance(node, kinds) and ast.get_docstring(node) is not None:
        first = node.body[0]
        assert isinstance(first, ast.Expr)
        yield first.value


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(p.value) if isinstance(p, ast.Constant) else "1" for p in node.values)
    return ""


def fault(line: str, *, named_is_enough: bool) -> str | None:
    """Say why a program would refuse a printed command; None where it would take it."""
    program, *words = shlex.split(_HOLE.sub("1", line))
    if program == "pilotwave-agent":
        return _agent_fault(words, named_is_enough=named_is_enough)
    command: Any = PROGRAMS[program]
    path = [program]
    while getattr(command, "commands", None) and words and not words[0].startswith("-"):
        if words[0] not in command.commands:
            return f"{' '.join(path)} has no command {words[0]}"
        path.append(words[0])
        command = command.commands[words.pop(0)]
    if not words and named_is_enough:
        return None
    if getattr(command, "commands", None) and not words:
        return f"{' '.join(path)} needs one of {', '.join(command.commands)}"
    return _refusal(command, path, words)


def _refusal(command: Any, path: list[str], words: list[str]) -> str | None:
    for param in command.params:
        if getattr(param, "prompt", None) and not set(param.opts) & set(words):
            words += [param.opts[0], "1"]  # it would be asked for
    try:
        command.make_context(" ".join(path), list(words))
    except typer.Exit:
        return None  # --help, --version
    except Exception as e:
        if hasattr(e, "format_message"):
            return str(e.format_message())
        raise
    return None


def _agent_fault(words: list[str], *, named_is_enough: bool) -> str | None:
    if len(words) == 1 and named_is_enough:
        words = [*words, "--help"]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            parser().parse_args(words)
    except SystemExit as e:
        return said.getvalue().strip().splitlines()[-1] if e.code else None
    return None
