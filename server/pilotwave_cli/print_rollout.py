"""How a rollout, its preview and its decisions are printed for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pilotwave_cli import bytes_and_sites, output
from pilotwave_cli.confirm import count


def show_created(found: dict[str, Any]) -> None:
    """Print a rollout that was just created, and what will keep it from its end."""
    show_rollout(found)
    for warning in found["warnings"]:
        output.warn(f"warning: {warning}")
    hints = {
        "draft": f"`pilotwave rollouts start {found['id']}` starts it",
        "awaiting_approval": f"another person: `pilotwave rollouts approve {found['id']}`",
        "scheduled": f"it starts by itself, {output.when(found['start_at'])}",
    }
    if found["state"] in hints:
        output.say(hints[found["state"]])


def show_rollout(found: dict[str, Any]) -> None:
    """Print a rollout: what it is, its waves, what was decided last."""
    version = f" version {found['policy_version']}" if found["policy_version"] else ""
    lines: list[tuple[str, object]] = [
        ("state", found["state"].replace("_", " ")),
        ("why", found["reason"]),
        ("brings", f"{found['model']} {found['version']} to {found['group']}"),
        ("policy", f"{found['policy']}{version}"),
        ("created", f"{output.when(found['created_at'])} by {found['created_by']}"),
    ]
    for key, shown in (
        ("approved_at", "approved"),
        ("start_at", "starts"),
        ("started_at", "started"),
        ("end_at", "to end by"),
        ("ended_at", "ended"),
    ):
        if found.get(key):
            lines.append((shown, output.when(found[key])))
    lines += [("pace", sentence) for sentence in found["pace"]]
    if "bytes" in found:
        lines.append(("bytes sent", bytes_and_sites.told(found["bytes"])))
    output.facts(found["id"], lines)
    columns: list[output.Column] = [
        ("wave", lambda w: f"{w['index'] + 1} {w['name']}"),
        ("takes", "takes"),
        ("state", "state"),
        ("in flight", "in_flight"),
        ("in shadow", "in_shadow"),
        ("healthy", "healthy"),
        ("failed", "failed"),
        ("waits for", _waits),
    ]
    output.table("Waves", found["waves"], columns)
    show_decisions(found["decisions"])


def _waits(wave: dict[str, Any]) -> str:
    verdict = wave["verdict"]
    if not verdict or wave["state"] != "open":
        return "-"
    return f"{verdict['word']}: {verdict['sentence']}"


def show_decisions(rows: Iterable[dict[str, Any]]) -> None:
    """Print decisions, the newest first."""
    columns: list[output.Column] = [
        ("when", lambda d: output.when(d["at"])),
        ("who", "actor"),
        ("what", lambda d: d["action"].replace("_", " ")),
        ("verdict", "verdict"),
        ("why", "sentence"),
    ]
    output.table("Decisions", rows, columns)


def show_preview(found: dict[str, Any]) -> None:
    """Print who would get it in which wave, and who cannot get it at all."""
    output.say(f"{found['fits']} of {found['devices']} devices have a variant that fits")
    if found["pinned"]:
        output.say(f"{count(found['pinned'])} pinned, not affected")
    if found["refusal_sentence"]:
        output.warn(f"it could not be created now: {output.plain(found['refusal_sentence'])}")
    for warning in found["warnings"]:
        output.warn(f"warning: {output.plain(warning)}")
    columns: list[output.Column] = [
        ("wave", lambda w: f"{w['index'] + 1} {w['name']}"),
        ("takes", "takes"),
        ("devices", "devices"),
    ]
    if any(wave["in_shadow"] for wave in found["waves"]):
        able = "can try it in shadow"
        columns.append((able, lambda w: "-" if w["able"] is None else str(w["able"])))
    output.table("Waves", found["waves"], columns)
    counts = [*found["variants"].items(), *((f"none: {k}", n) for k, n in found["holds"].items())]
    output.table(
        "Variants", [{"v": k, "n": n} for k, n in counts], [("variant", "v"), ("devices", "n")]
    )
    columns = [
        ("device", "device"),
        (
            "wave",
            lambda d: (
                "pinned" if d["pinned"] else "none" if d["wave"] is None else str(d["wave"] + 1)
            ),
        ),
        ("variant", "variant"),
        ("why none", "sentence"),
    ]
    output.table("Devices", found["items"], columns)
    if found["next_cursor"]:
        output.say("there are more devices: --limit shows them")
    output.say(f"for exactly these devices, create it with --salt {found['salt']}")
