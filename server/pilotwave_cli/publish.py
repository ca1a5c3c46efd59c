"""`pilotwave publish`: from model files to a signed version that devices may be given."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, Targets

from pilotwave_cli import documents, output, rotation
from pilotwave_cli.building import Built, Wishes, build_variant, with_memory
from pilotwave_cli.client import Api, connect
from pilotwave_cli.config import keys_dir
from pilotwave_cli.documents import now
from pilotwave_cli.durations import pairs
from pilotwave_cli.errors import ApiError, CliError, Failed
from pilotwave_cli.keyfiles import Passphrases, find_keys, load_keys
from pilotwave_cli.keys import KeyFiles, PassphraseFile
from pilotwave_cli.output import Json
from pilotwave_cli.upload import upload_missing
from pilotwave_protocol import names, signing
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.manifest import Requires, VersionManifest, parse_manifest
from pilotwave_protocol.trust import VersionTarget

CLASHES = 20


class PublishedBefore(Exception):
    """The very same version is in the registry already."""


Change = Callable[[Metadata[Targets]], "bytes | None"]


def add_to(cli: typer.Typer) -> None:
    """Add the command that stands at the top."""
    cli.command("publish")(publish)


def publish(
    model: Annotated[str, typer.Argument(help="The model.")],
    version: Annotated[str, typer.Argument(help="The new version: PEP 440 or SemVer.")],
    variant: Annotated[
        list[str], typer.Option("--variant", help="NAME=FILE or FOLDER; repeatable.")
    ],
    key: KeyFiles = None,
    description: Annotated[str, typer.Option(help="For people.")] = "",
    metric: Annotated[list[str] | None, typer.Option("--metric", help="k=v; repeatable.")] = None,
    source: Annotated[list[str] | None, typer.Option("--source", help="k=v; repeatable.")] = None,
    atol: Annotated[str, typer.Option(help="Self-test: absolute tolerance.")] = "1e-3",
    rtol: Annotated[str, typer.Option(help="Self-test: relative tolerance.")] = "1e-3",
    max_latency_ms: Annotated[int | None, typer.Option(min=1, help="Self-test: p95.")] = None,
    requires: Annotated[
        list[str] | None, typer.Option("--requires", help="arch=a,b · accelerator= · memory_mb=")
    ] = None,
    runtime: Annotated[str | None, typer.Option(help="Instead of the one that was found.")] = None,
    runtime_version: Annotated[str, typer.Option(help="Like >=1.17.")] = "",
    entrypoint: Annotated[str | None, typer.Option(help="The file that the runtime opens.")] = None,
    unsafe_format: Annotated[
        bool, typer.Option("--unsafe-format", help="Allow formats that can run code.")
    ] = False,
    folder: Annotated[Path | None, typer.Option("--dir", help="Folder of the keys.")] = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Hash, describe, upload, sign and submit a new version."""
    names.check_model(model)
    names.check_version(version)
    needs = Requires()
    for k, v in pairs(requires or [], "--requires").items():
        needs = with_memory(needs, k, v)
    wishes = Wishes(
        atol, rtol, max_latency_ms, needs, runtime, runtime_version, entrypoint, unsafe_format
    )
    chosen = pairs(variant, "--variant")
    if len(chosen) != len(variant):
        raise CliError("--variant: expected each name once")
    built = [build_variant(name, Path(path), wishes) for name, path in chosen.items()]
    template = VersionManifest(
        model=model,
        version=version,
        counter=1,
        variants=tuple(b.variant for b in built),
        description=description,
        source=pairs(source or [], "--source"),
        metrics=pairs(metric or [], "--metric"),
    )
    parse_manifest(template.to_bytes())  # what the server would refuse is refused before uploading
    ask = Passphrases(passphrase_file)
    with connect() as api:
        signers = load_signers(api, model, key, folder, ask)
        sent = _upload(api, built)
        try:
            done = submit(api, model, signers, lambda role: add(role, template))
        except PublishedBefore:
            done = {"repeated": True}
    done |= {"model": model, "version": version, "bytes_sent": sent}
    if as_json:
        output.show_json(done)
        return
    total = sum(b.variant.size for b in built)
    if done.get("repeated"):
        output.say(f"{model} {version} was published before, with this very content")
        return
    output.say(f"{model} {version} is published ({output.size(total)}, {output.size(sent)} sent)")
    for b in built:
        made = b.variant
        tested = "self-test" if made.selftest else "no self-test"
        what = f"{made.format} for {made.runtime} {made.runtime_version}".rstrip()
        output.say(f"  {made.name}: {what}, {len(made.files)} file(s), {tested}")


def load_signers(
    api: Api, model: str, key: list[Path] | None, folder: Path | None, ask: Passphrases
) -> list[Signer]:
    """Load the publisher's keys before anything is sent."""
    if key:
        return load_keys(key, ask)
    targets = documents.fetch_targets(api).signed
    delegated = (targets.delegations.roles or {}) if targets.delegations else {}
    role = delegated.get(names.role_for_model(model))
    if role is None:
        raise CliError(f"there is no model {model}; make it with `pilotwave models create`")
    return find_keys(folder or keys_dir(), role.keyids, ask, f"publisher of {model}")


def _upload(api: Api, built: list[Built]) -> int:
    sources = {sha256: path for b in built for sha256, path in b.sources.items()}
    sizes = {f.sha256: f.size for b in built for f in b.variant.files}
    return upload_missing(api, sources, sizes)


def add(role: Metadata[Targets], template: VersionManifest) -> bytes:
    """Add a version to a model's role under the next counter; returns its manifest."""
    published = role.signed.targets.get(names.target_path(template.model, template.version))
    counter = (
        signing.next_counter(role.signed) if published is None else published.custom["counter"]
    )
    manifest = VersionManifest(**{**vars(template), "counter": counter}).to_bytes()
    if published is not None:
        if published.hashes.get("sha256") == sha256_hex(manifest):
            raise PublishedBefore
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


def submit(api: Api, model: str, signers: list[Signer], change: Change) -> dict[str, Any]:
    """Change a model's role, sign and hand it in; on a clash read it again and retry."""
    name = names.role_for_model(model)
    for _ in range(CLASHES):
        role = rotation.next_role(documents.fetch_role(api, name), now())
        manifest = change(role)
        signing.sign(role, signers)
        body: dict[str, Any] = {"role": documents.plain(role)}
        if manifest is not None:
            body["manifest"] = base64.b64encode(manifest).decode()
        try:
            answer = api.post(f"/models/{model}/metadata", body)
            return dict(answer or {})
        except ApiError as e:
            if e.problem != "version_clash":
                raise
    raise CliError(f"{model} is being changed by others all the time; try again later")
