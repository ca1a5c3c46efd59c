"""`pilotwave bytes` and `pilotwave sites`: what was sent to whom, and what a site may take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer

from pilotwave_cli import output
from pilotwave_cli.client import Api, connect
from pilotwave_cli.errors import CliError
from pilotwave_cli.output import Json
from pilotwave_protocol import names

sites = typer.Typer(help="List and set limits for sites.", no_args_is_help=True)

KINDS = ("device", "model", "version", "variant", "rollout", "site")


def add_to(cli: typer.Typer) -> None:
    """Add the command that is no group's."""
    cli.command("bytes")(bytes_)


def bytes_(
    by: Annotated[str, typer.Option(help=f"Group by {', '.join(KINDS)}.")] = "version",
    device: Annotated[str | None, typer.Option(help="Only to this device.")] = None,
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    version: Annotated[str | None, typer.Option(help="Only of this version.")] = None,
    rollout: Annotated[str | None, typer.Option(help="Only by this rollout, as r1.")] = None,
    site: Annotated[str | None, typer.Option(help="Only to devices of this site.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="Show at most this many.")] = 500,
    as_json: Json = False,
) -> None:
    """Show how many bytes of files the server sent, and how many deltas saved."""
    if by not in KINDS:
        raise CliError(f"--by: expected one of {', '.join(KINDS)}; got {by!r:.40}")
    only = {"device": device, "model": model, "version": version, "rollout": rollout, "site": site}
    with connect() as api:
        rows = list(api.pages("/bytes", most=limit, by=by, **only))
    if as_json:
        output.show_json(rows)
        return
    keys = {"version": ["model", "version"], "variant": ["model", "version", "variant"]}
    show_table("Bytes sent", rows, keys.get(by, [by]))


def show_table(title: str, rows: Iterable[dict[str, Any]], keys: list[str]) -> None:
    """Print sums of bytes; `keys` name what each is for."""
    columns: list[output.Column] = [(key, key) for key in keys]
    columns += [
        ("sent", lambda r: output.size(r["sent"])),
        ("whole files", lambda r: output.size(r["sent_full"])),
        ("deltas", lambda r: output.size(r["sent_delta"])),
        ("saved", lambda r: output.size(r["saved"])),
        ("devices", "devices"),
    ]
    output.table(title, rows, columns)


def sent_of(api: Api, by: str, **only: Any) -> dict[str, Any]:
    """Return the sums of what belongs to one thing, all of them 0 where nothing was sent."""
    rows = list(api.pages("/bytes", by=by, **only))
    sums = ("sent", "sent_full", "sent_delta", "saved")
    return {key: sum(row[key] for row in rows) for key in sums}


def told(found: dict[str, Any]) -> str:
    """Say a sum in a line: `2.1 MB (1.9 MB whole, 0.2 MB deltas, which saved 3.4 MB)`."""
    if not found["sent_delta"]:
        return output.size(found["sent"])
    parts = f"{output.size(found['sent_full'])} whole, {output.size(found['sent_delta'])} deltas"
    return f"{output.size(found['sent'])} ({parts}, which saved {output.size(found['saved'])})"


@sites.command("list")
def list_(as_json: Json = False) -> None:
    """List the sites that have limits. A site is the value of the label `site`."""
    with connect() as api:
        rows = list(api.pages("/site-limits"))
    columns: list[output.Column] = [
        ("site", "site"),
        ("together kbit/s", "max_rate_kbps"),
        ("each device kbit/s", "max_device_rate_kbps"),
        ("downloads at once", "max_downloads"),
        ("set", lambda r: f"{output.when(r['set_at'])} by {r['set_by']}"),
    ]
    output.table("Limits of sites", rows, columns, as_json=as_json)


@sites.command("limit")
def limit(
    site: Annotated[str, typer.Argument(help="The value of the label `site`.")],
    rate: Annotated[
        int | None,
        typer.Option("--kbps", min=8, help="Rate of all its downloads together, kbit/s."),
    ] = None,
    device_rate: Annotated[
        int | None,
        typer.Option("--device-kbps", min=8, help="Rate of each of its devices, kbit/s."),
    ] = None,
    downloads: Annotated[int | None, typer.Option(min=1, help="Simultaneous downloads.")] = None,
    none: Annotated[bool, typer.Option("--none", help="Remove all limits of the site.")] = False,
) -> None:
    """Limit what a site's devices may download. Limits that are not given are removed."""
    chosen = {
        "max_rate_kbps": rate,
        "max_device_rate_kbps": device_rate,
        "max_downloads": downloads,
    }
    wanted = {key: value for key, value in chosen.items() if value is not None}
    if none == bool(wanted):
        raise CliError("name at least one of --kbps, --device-kbps, --downloads; or --none")
    name = names.check_label_value(site)
    with connect() as api:
        found = api.put("/site-limits", {"site": name, **wanted})
    kept = {key: value for key, value in found.items() if key in chosen and value is not None}
    output.say(f"{name}: {output.plain(kept) if kept else 'no limits'}")
