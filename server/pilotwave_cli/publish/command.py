"""`pilotwave publish`: from model files to a signed version that devices may be given."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

import typer
from tuf.api.metadata import Metadata, Targets

from pilotwave_cli import output
from pilotwave_cli.client import Api, connect
from pilotwave_cli.durations import pairs
from pilotwave_cli.errors import CliError, Failed
from pilotwave_cli.keys import drafts
from pilotwave_cli.keys.keyfiles import Passphrases
from pilotwave_cli.keys.submit_role import DoneBefore, find_publisher, submit
from pilotwave_cli.options import Dir, KeyFiles, Out, PassphraseFile
from pilotwave_cli.output import Json
from pilotwave_cli.publish import check_contents
from pilotwave_cli.publish.build_manifest import Built, build_variant
from pilotwave_cli.publish.lay_out import laid_out
from pilotwave_cli.publish.round_weights import Near, rounded
from pilotwave_cli.publish.selftest import try_out
from pilotwave_cli.publish.unpack_archives import restored
from pilotwave_cli.publish.variant_options import options_for
from pilotwave_cli.upload import upload_missing
from pilotwave_protocol import names, signing
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.manifest import VersionManifest, parse_manifest
from pilotwave_protocol.tensortypes import CASES
from pilotwave_protocol.trust import ModelReset, VersionTarget

EACH = "For one variant only: NAME:VALUE."
ORDER = "Their names in order, a,b, for formats that have none."
Words = list[str] | None


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
    description: Annotated[str, typer.Option(help="Description, shown to people.")] = "",
    metric: Annotated[list[str] | None, typer.Option("--metric", help="k=v; repeatable.")] = None,
    source: Annotated[list[str] | None, typer.Option("--source", help="k=v; repeatable.")] = None,
    atol: Annotated[Words, typer.Option(help=f"Self-test: absolute, [1e-3]. {EACH}")] = None,
    rtol: Annotated[Words, typer.Option(help=f"Self-test: relative, [1e-3]. {EACH}")] = None,
    max_latency_ms: Annotated[Words, typer.Option(help=f"Self-test: p95 at most. {EACH}")] = None,
    requires: Annotated[
        Words, typer.Option("--requires", help=f"arch=a,b, accelerator=N, memory_mb=N. {EACH}")
    ] = None,
    runtime: Annotated[Words, typer.Option(help=f"Instead of the one found. {EACH}")] = None,
    runtime_version: Annotated[Words, typer.Option(help=f"Like >=1.17. {EACH}")] = None,
    entrypoint: Annotated[Words, typer.Option(help=f"File that the runtime opens. {EACH}")] = None,
    inputs: Annotated[Words, typer.Option(help=f"{ORDER} {EACH}")] = None,
    outputs: Annotated[Words, typer.Option(help=f"{ORDER} {EACH}")] = None,
    unsafe_format: Annotated[
        bool, typer.Option("--unsafe-format", help="Allow formats that can run code.")
    ] = False,
    as_is: Annotated[
        bool, typer.Option("--as-is", help="Keep archives compressed; updates are larger.")
    ] = False,
    near: Annotated[
        str, typer.Option(help="Round the weights towards this version, for smaller deltas.")
    ] = "",
    quantum: Annotated[
        str,
        typer.Option(help="Round to multiples of the power of two below this; auto: per tensor."),
    ] = "auto",
    near_check: Annotated[
        str, typer.Option(help="Command that checks the rounded folder; exit status 0 accepts it.")
    ] = "",
    not_secret: Annotated[
        Words, typer.Option(help=f"A file that only looks like it holds a password. {EACH}")
    ] = None,
    all_files: Annotated[
        bool, typer.Option("--all-files", help="Allow the folder you are in, or one above it.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be sent, and send nothing.")
    ] = False,
    no_try: Annotated[
        bool, typer.Option("--no-try", help="Skip the self-test before sending.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Send without asking.")] = False,
    folder: Dir = None,
    passphrase_file: PassphraseFile = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Hash, describe, upload, sign and submit a new version."""
    names.check_model(model)
    names.check_version(version)
    chosen = pairs(variant, "--variant", "NAME=PATH, such as onnx=build/model.onnx")
    if len(chosen) != len(variant):
        raise CliError("--variant: expected each name once")
    options = {
        "atol": atol,
        "rtol": rtol,
        "max_latency_ms": max_latency_ms,
        "runtime": runtime,
        "runtime_version": runtime_version,
        "entrypoint": entrypoint,
        "inputs": inputs,
        "outputs": outputs,
        "not_secret": not_secret,
    }
    paths = sources = check_contents.check_choice(chosen, all_files=all_files)
    wanted = options_for(chosen, options, requires=requires, unsafe_format=unsafe_format)
    with ExitStack() as stack:
        paths = stack.enter_context(laid_out(paths))
        if not as_is:
            paths = stack.enter_context(restored(paths))
        built = [build_variant(name, path, wanted[name]) for name, path in paths.items()]
        if near:
            wish = Near.parse(names.check_version(near), quantum, near_check)
            api = stack.enter_context(connect())
            folders = stack.enter_context(rounded(api, model, wish, built))
            built = [build_variant(name, path, wanted[name]) for name, path in folders.items()]
        template = VersionManifest(
            model=model,
            version=version,
            counter=1,
            variants=tuple(b.variant for b in built),
            description=description,
            source=pairs(source or [], "--source"),
            metrics=pairs(metric or [], "--metric"),
        )
        raw = template.to_bytes()
        parse_manifest(raw)  # what the server would refuse is refused before uploading
        _warn(built)
        if dry_run and as_json:
            output.show_json({"files": check_contents.files_as_json(built)})
            return
        if not as_json:
            check_contents.list_files(built)
        if dry_run:
            output.say("dry run: nothing was sent")
            return
        if not no_try:
            try_out(raw, built, sources)
        check_contents.ask(model, version, yes=yes or as_json)
        with connect() as api:
            publisher = find_publisher(api, model, key, folder, Passphrases(passphrase_file))
            try:
                last = signing.reset_of(publisher.targets.signed, model)
                add(drafts.fetch_role(api, publisher.role), template, last)
                sent = _upload(api, built)
                done = submit(api, publisher, lambda role: add(role, template, last), out)
            except DoneBefore:
                sent, done = 0, {"repeated": True}
        if done is None:
            return
        done |= {"model": model, "version": version, "bytes_sent": sent}
        if as_json:
            output.show_json(done)
        else:
            _tell(model, version, built, sent, repeated=bool(done.get("repeated")))


def _warn(built: list[Built]) -> None:
    """Say what is allowed but rarely meant."""
    for variant in (b.variant for b in built):
        if variant.selftest is None:
            output.warn(
                f"{variant.name}: no {CASES}: devices check only that it loads and runs "
                "(`pilotwave golden --help`)"
            )
        if variant.format == "tensorrt-plan" and not variant.requires.accelerator:
            output.warn(
                f"{variant.name}: an engine runs only on the kind of GPU that it was built on; "
                "name it, as with --requires accelerator=sm_87"
            )
        unknown = variant.format == "onnx" and not variant.runtime_version
        if unknown and variant.runtime == "onnxruntime":
            output.warn(
                f"{variant.name}: its opset is newer than any ONNX Runtime known here; "
                "say what it needs with --runtime-version"
            )


def _tell(model: str, version: str, built: list[Built], sent: int, *, repeated: bool) -> None:
    if repeated:
        output.say(f"{model} {version} was published before, with this very content")
        return
    total = sum(b.variant.size for b in built)
    output.say(f"published {model} {version} ({output.size(total)}, {output.size(sent)} sent)")
    for made in (b.variant for b in built):
        tested = "self-test" if made.selftest else "no self-test"
        what = f"{made.format} for {made.runtime} {made.runtime_version}".rstrip()
        io = f"{output.tensors(made.inputs)} -> {output.tensors(made.outputs)}"
        files = f"{len(made.files)} file{'' if len(made.files) == 1 else 's'}"
        output.say(f"  {made.name}: {what}, {files}, {tested}")
        if made.inputs and made.outputs:
            output.say(f"    {io}")


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
