"""`pilotwave policies`: recipes of waves, gates, pace and windows for rollouts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pilotwave_cli import output
from pilotwave_cli.client import Api, connect
from pilotwave_cli.errors import ApiError, CliError, Failed
from pilotwave_cli.output import Json

cli = typer.Typer(help="Manage policies: recipes for rollouts.", no_args_is_help=True)

MAX_TEXT = 64 * 1024
Name = Annotated[str, typer.Argument(help="The policy's name.")]
File = Annotated[Path, typer.Argument(help="A file of YAML or JSON; `-` reads standard input.")]


def read_policy_file(path: Path) -> str:
    """Return the text of a policy's file; raises `CliError` for what is no text or too long."""
    raw = sys.stdin.buffer.read(MAX_TEXT + 1) if str(path) == "-" else _read(path)
    if len(raw) > MAX_TEXT:
        raise CliError(f"{path}: expected a policy of at most {MAX_TEXT} bytes")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise CliError(f"{path}: expected text in UTF-8") from None


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_TEXT + 1)


def faults_of(error: ApiError) -> Failed:
    """Return the error of a policy with each fault on a line of its own."""
    found = error.members.get("errors")
    if error.problem != "policy_invalid" or not isinstance(found, list):
        return error
    lines = [_fault(item) for item in found if isinstance(item, dict)]
    return Failed("the policy has errors:\n  " + "\n  ".join(lines))


def _fault(item: dict[str, Any]) -> str:
    line = f"line {item['line']}, " if item.get("line") else ""
    return output.plain(f"{line}{item.get('path') or 'the policy'}: {item.get('message')}")


def show_policy(found: dict[str, Any]) -> None:
    """Print a policy for people."""
    version = found["version"] or "built in"
    lines = [
        ("version", version),
        ("description", found["description"]),
        ("waves", " · ".join(found["waves"])),
        ("on failure", found["on_failure"]),
        ("approval", found["approval"]),
    ]
    if found["created_by"]:
        lines.append(("saved", f"{output.when(found['created_at'])} by {found['created_by']}"))
    output.facts(found["name"], lines)


@cli.command("list")
def list_(as_json: Json = False) -> None:
    """List policies, the built-in ones first."""
    with connect() as api:
        rows = list(api.pages("/policies"))
    columns: list[output.Column] = [
        ("policy", "name"),
        ("version", lambda r: str(r["version"] or "built in")),
        ("waves", lambda r: " · ".join(r["waves"])),
        ("on failure", "on_failure"),
        ("description", "description"),
    ]
    output.table("Policies", rows, columns, as_json=as_json)


@cli.command("show")
def show(
    policy: Name,
    version: Annotated[int | None, typer.Option(min=1, help="An older version.")] = None,
    as_json: Json = False,
) -> None:
    """Show a policy, with every default filled in."""
    with connect() as api:
        found = api.get(f"/policies/{_name(policy)}", version=version)
    if as_json:
        output.show_json(found)
        return
    show_policy(found)
    output.say(json.dumps(found["document"], indent=2, ensure_ascii=False))


@cli.command("check")
def check(file: File, as_json: Json = False) -> None:
    """Validate a policy file without saving it; errors name path and line."""
    _send("POST", "/policies/check", read_policy_file(file), as_json, "it is good")


@cli.command("save")
def save(policy: Name, file: File, as_json: Json = False) -> None:
    """Save a policy; a change becomes its next version."""
    done = "rollouts keep the version that they were created with"
    _send("PUT", f"/policies/{_name(policy)}", read_policy_file(file), as_json, done)


def _send(method: str, path: str, text: str, as_json: bool, done: str) -> None:
    with connect() as api:
        found = _ask(api, method, path, text)
    if as_json:
        output.show_json(found)
        return
    show_policy(found)
    output.say(done)


def _ask(api: Api, method: str, path: str, text: str) -> dict[str, Any]:
    ask = api.put if method == "PUT" else api.post
    try:
        found: dict[str, Any] = ask(path, {"text": text})
    except ApiError as error:
        raise faults_of(error) from None
    return found


def _name(policy: str) -> str:
    good = policy.isascii() and policy and all(c.isalnum() or c in "._-" for c in policy)
    if not good or len(policy) > 64 or policy.strip(".") == "":
        raise CliError(
            f"expected a policy's name as `policies list` shows; got {ascii(policy)[:60]}"
        )
    return policy
