"""What the publisher says of variants on the command line: of all of them, or of one by name.

`--atol 1e-3` speaks of every variant, `--atol onnx-int8:0.5` of one: a tolerance belongs to a
build. Everything else about a variant is read from its files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from pilotwave_cli.durations import pairs
from pilotwave_cli.errors import CliError
from pilotwave_protocol.manifest import Requires


@dataclass(frozen=True)
class VariantOptions:
    """What is to hold for one variant, beside what its files say."""

    atol: str = "1e-3"
    rtol: str = "1e-3"
    max_latency_ms: int | None = None
    requires: Requires = field(default_factory=Requires)
    runtime: str | None = None
    runtime_version: str = ""
    entrypoint: str | None = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    unsafe_format: bool = False
    not_secret: tuple[str, ...] = ()


def options_for(
    variants: Iterable[str],
    options: Mapping[str, list[str] | None],
    *,
    requires: list[str] | None = None,
    unsafe_format: bool = False,
) -> dict[str, VariantOptions]:
    """Return the options of each variant; `options` maps a field to what was typed."""
    found = {name: VariantOptions(unsafe_format=unsafe_format) for name in variants}
    for option, items in options.items():
        for name, value in _addressed(f"--{option.replace('_', '-')}", items, found):
            found[name] = _with(found[name], option, value)
    for name, value in _addressed("--requires", requires, found):
        ((key, wanted),) = pairs([value], "--requires").items()
        needs = with_requirement(found[name].requires, key, wanted)
        found[name] = replace(found[name], requires=needs)
    return found


def _addressed(
    option: str, items: list[str] | None, variants: Iterable[str]
) -> Iterable[tuple[str, str]]:
    """Yield (variant, value): what speaks of all first, so that a word for one overrides it."""
    names, single = list(variants), []
    for item in items or []:
        name, colon, value = item.partition(":")
        if not colon:
            yield from ((each, item) for each in names)
        elif name in names:
            single.append((name, value))
        else:
            raise CliError(f"{option}: there is no variant {ascii(name)[:60]}; {item} names it")
    yield from single


def _with(wanted: VariantOptions, option: str, value: str) -> VariantOptions:
    if option == "max_latency_ms":
        if not value.isdecimal() or not 0 < int(value[:12]) < 10**9:
            raise CliError(f"--max-latency-ms: expected a whole number of ms; got {value[:40]}")
        return replace(wanted, max_latency_ms=int(value))
    if option in ("inputs", "outputs"):
        return replace(wanted, **{option: tuple(value.split(","))})  # type: ignore[arg-type]
    if option == "not_secret":
        return replace(wanted, not_secret=(*wanted.not_secret, value))
    return replace(wanted, **{option: value})  # type: ignore[arg-type]  # all others are texts


def with_requirement(requires: Requires, key: str, value: str) -> Requires:
    """Add one `--requires` word: arch=a,b · accelerator=name · memory_mb=N."""
    if key == "arch" and all(value.split(",")):
        return replace(requires, arch=tuple(dict.fromkeys([*requires.arch, *value.split(",")])))
    if key == "accelerator" and value:
        return replace(requires, accelerator=value)
    if key == "memory_mb" and value.isdecimal() and len(value) < 10:
        return replace(requires, memory_mb=int(value))
    raise CliError(
        f"--requires: expected arch=a,b, accelerator=NAME or memory_mb=N; got {key}={value[:40]}"
    )
