"""`pilotwave publish`: from model files to a signed version that devices may be given."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import typer
from tuf.api.metadata import Metadata, Targets

from pilotwave_cli import output
from pilotwave_cli.client import Api, connect
from pilotwave_cli.durations import pairs
from pilotwave_cli.errors import CliError, Failed
from pilotwave_cli.keys import drafts
from pilotwave_cli.keys.key_options import SigningOptions
from pilotwave_cli.keys.submit_role import DoneBefore, Publisher, find_publisher, submit
from pilotwave_cli.options import spread
from pilotwave_cli.output import Json
from pilotwave_cli.publish import check_contents
from pilotwave_cli.publish.build_manifest import Built, build_variant
from pilotwave_cli.publish.from_report import Optimized, read_optimized
from pilotwave_cli.publish.lay_out import laid_out
from pilotwave_cli.publish.publish_options import SendOptions, WhatOptions
from pilotwave_cli.publish.round_weights import NearOptions, rounded
from pilotwave_cli.publish.selftest import try_out
from pilotwave_cli.publish.tell import tell, too_old, warn
from pilotwave_cli.publish.unpack_archives import restored
from pilotwave_cli.publish.variant_options import VariantWords, Words, options_for
from pilotwave_cli.tracing import traced
from pilotwave_cli.upload import upload_missing
from pilotwave_protocol import names, signing
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.manifest import VersionManifest, parse_manifest
from pilotwave_protocol.trust import ModelReset, VersionTarget


def add_to(cli: typer.Typer) -> None:
    """Add the command that stands at the top."""
    cli.command("publish")(publish)


@spread
def publish(
    what: WhatOptions,
    *,
    words: VariantWords,
    near: NearOptions,
    send: SendOptions,
    sign: SigningOptions,
    as_json: Json = False,
) -> None:
    """Hash, describe, upload, sign and submit a new version."""
    named = what.sources()
    optimized = read_optimized(what.optimized) if what.optimized else Optimized()
    if what.optimized and near.near:
        raise CliError("--near changes the weights, and --from signs figures that were measured")
    sources = check_contents.check_choice(named or optimized.folders, all_files=send.all_files)
    wanted = options_for(sources, words, send.not_secret, optimized.options)
    with ExitStack() as stack:
        stack.enter_context(traced("publish", model=what.model, version=what.version))
        paths = stack.enter_context(laid_out(sources))
        if not words.as_is:
            paths = stack.enter_context(restored(paths))
        built = [build_variant(name, path, wanted[name]) for name, path in paths.items()]
        if near.near:
            folders = stack.enter_context(rounded(what.model, near, built))
            built = [build_variant(name, path, wanted[name]) for name, path in folders.items()]
        template = _template(what, built, optimized)
        warn(built)
        if send.dry_run:
            _show_dry_run(built, as_json)
            return
        if not as_json:
            check_contents.list_files(built)
        if not send.no_try:
            try_out(template.to_bytes(), built, sources)
        check_contents.ask(what.model, what.version, yes=send.yes or as_json)
        with connect() as api:
            publisher = find_publisher(api, what.model, what.key, sign)
            done = _hand_in(api, publisher, template, built, sign)
            held = None if done is None else too_old(api, template.schema)
    if held is not None:
        output.warn(held)
    if done is not None and as_json:
        output.show_json(done)
    elif done is not None:
        tell(done, built)


def _template(what: WhatOptions, built: list[Built], optimized: Optimized) -> VersionManifest:
    """Return the manifest without its counter; what the server would refuse is refused here."""
    template = VersionManifest(
        model=what.model,
        version=what.version,
        counter=1,
        variants=tuple(b.variant for b in built),
        description=what.description,
        source=_joined(optimized.source, what.source, "--source"),
        metrics=_joined(optimized.metrics, what.metric, "--metric"),
    )
    parse_manifest(template.to_bytes())
    return template


def _joined(reported: Mapping[str, str], typed: Words, option: str) -> dict[str, str]:
    """What was typed beside what was measured, which it may not overwrite."""
    told = pairs(typed or [], option)
    if twice := sorted(reported.keys() & told.keys()):
        raise CliError(f"{option} {twice[0]}: the report says it: {reported[twice[0]]}")
    return {**reported, **told}


def _show_dry_run(built: list[Built], as_json: bool) -> None:
    if as_json:
        output.show_json({"files": check_contents.files_as_json(built)})
        return
    check_contents.list_files(built)
    output.say("dry run: nothing was sent")


def _hand_in(
    api: Api,
    publisher: Publisher,
    template: VersionManifest,
    built: list[Built],
    sign: SigningOptions,
) -> dict[str, Any] | None:
    """Send what is missing, then submit the role; None where others have to sign it first."""
    last = signing.reset_of(publisher.targets.signed, template.model)
    try:
        add(drafts.fetch_role(api, publisher.role), template, last)
        sent = _upload(api, built)
        done = submit(api, publisher, lambda role: add(role, template, last), sign.out)
    except DoneBefore:
        # where a backup brought the database back and not every file, this does
        sent, done = _upload(api, built), {"repeated": True}
    named = {"model": template.model, "version": template.version, "bytes_sent": sent}
    return None if done is None else done | named


def _upload(api: Api, built: list[Built]) -> int:
    sources = {sha256: path for b in built for sha256, path in b.sources.items()}
    sizes = {f.sha256: f.size for b in built for f in b.variant.files}
    return upload_missing(api, sources, sizes)


def add(
    role: Metadata[Targets], template: VersionManifest, reset: ModelReset | None = None
) -> bytes:
    """Add a version to a model's role under the next counter; returns its manifest."""
    published = role.signed.targets.get(names.target_path(template.model, template.version))
    counter = (
        signing.next_counter(role.signed, reset)
        if published is None
        else published.custom["counter"]
    )
    manifest = VersionManifest(**{**vars(template), "counter": counter}).to_bytes()
    if published is not None:
        if published.hashes.get("sha256") == sha256_hex(manifest):
            raise DoneBefore
        raise Failed(
            f"{template.model} {template.version} is published already, with other content; "
            "a version never changes: choose the next one"
        )
    target = VersionTarget(
        template.model,
        template.version,
        sha256_hex(manifest),
        len(manifest),
        counter,
        unsafe_format=template.unsafe_format,
    )
    signing.add_version(role.signed, target)
    return manifest
