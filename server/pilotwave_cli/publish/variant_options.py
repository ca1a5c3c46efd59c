"""What the publisher says of variants on the command line: of all of them, or of one by name.

`--atol 1e-3` speaks of every variant, `--atol onnx-int8:0.5` of one: a tolerance belongs to a
build. Everything else about a variant is read from its files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated

import typer

from pilotwave_cli.durations import pairs
from pilotwave_cli.errors import CliError
from pilotwave_protocol.manifest import COMPARERS, Comparison, Requires
from pilotwave_protocol.names import FACT

EACH = "For one variant only: NAME:VALUE."
REQUIRES = "arch=a,b, accelerator=N, memory_mb=N, cpu_any=cpu.a,cpu.b or fact.KEY=>=2.1"
COMPARE = f"{'|'.join(COMPARERS)}[,output=NAME][,tolerance=N]"
ORDER = "Their names in order, a,b, for formats that have none."
Words = list[str] | None


@dataclass(frozen=True)
class VariantWords:
    """What was typed of variants; most of it of all of them, or of one by name."""

    atol: Annotated[Words, typer.Option(help=f"Self-test: absolute, [1e-3]. {EACH}")] = None
    rtol: Annotated[Words, typer.Option(help=f"Self-test: relative, [1e-3]. {EACH}")] = None
    min_agreement: Annotated[
        Words,
        typer.Option(
            help="Self-test: the least share of cases with the expected top output, 0.97, in place "
            f"of the tolerances. {EACH}"
        ),
    ] = None
    compare: Annotated[
        Words,
        typer.Option(
            help="In shadow: how its answers are compared with the current version's, "
            f"{COMPARE}. {EACH}"
        ),
    ] = None
    max_latency_ms: Annotated[Words, typer.Option(help=f"Self-test: p95 at most. {EACH}")] = None
    requires: Annotated[Words, typer.Option("--requires", help=f"{REQUIRES}. {EACH}")] = None
    runtime: Annotated[Words, typer.Option(help=f"Instead of the one found. {EACH}")] = None
    runtime_version: Annotated[Words, typer.Option(help=f"Like >=1.17. {EACH}")] = None
    entrypoint: Annotated[Words, typer.Option(help=f"File that the runtime opens. {EACH}")] = None
    inputs: Annotated[Words, typer.Option(help=f"{ORDER} {EACH}")] = None
    outputs: Annotated[Words, typer.Option(help=f"{ORDER} {EACH}")] = None
    unsafe_format: Annotated[
        bool, typer.Option("--unsafe-format", help="Allow formats that can run code.")
    ] = False
    as_is: Annotated[
        bool, typer.Option("--as-is", help="Keep archives compressed; updates are larger.")
    ] = False


@dataclass(frozen=True)
class VariantOptions:
    """What is to hold for one variant, beside what its files say."""

    atol: str = "1e-3"
    rtol: str = "1e-3"
    min_agreement: str | None = None
    compare: Comparison | None = None
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
    words: VariantWords,
    not_secret: Words,
    known: Mapping[str, VariantOptions] | None = None,
) -> dict[str, VariantOptions]:
    """Return the options of each variant; what was typed stands before what is `known` of it."""
    given, unsafe = known or {}, words.unsafe_format
    found = {n: replace(given.get(n, VariantOptions()), unsafe_format=unsafe) for n in variants}
    typed = {k: v for k, v in vars(words).items() if not isinstance(v, bool)}
    typed["not_secret"] = not_secret
    for option, items in typed.items():
        for name, value in _addressed(f"--{option.replace('_', '-')}", items, found):
            found[name] = _with(found[name], option, value)
    return found


def _addressed(option: str, items: Words, variants: Iterable[str]) -> Iterable[tuple[str, str]]:
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
    if option == "compare":
        return replace(wanted, compare=_comparison(value))
    if option == "requires":
        ((key, needed),) = pairs([value], "--requires").items()
        return replace(wanted, requires=with_requirement(wanted.requires, key, needed))
    if option in ("inputs", "outputs"):
        return replace(wanted, **{option: tuple(value.split(","))})  # type: ignore[arg-type]
    if option == "not_secret":
        return replace(wanted, not_secret=(*wanted.not_secret, value))
    return replace(wanted, **{option: value})  # type: ignore[arg-type]  # all others are texts


def _comparison(value: str) -> Comparison:
    by, *rest = value.split(",")
    words = pairs(rest, "--compare") if rest else {}
    if by not in COMPARERS or not set(words) <= {"output", "tolerance"}:
        raise CliError(f"--compare: expected {COMPARE}; got {value[:60]}")
    return Comparison(by, words.get("output"), words.get("tolerance"))


def with_requirement(requires: Requires, key: str, value: str) -> Requires:
    """Add one `--requires` word, as `REQUIRES` lists them."""
    if key == "arch" and all(value.split(",")):
        return replace(requires, arch=tuple(dict.fromkeys([*requires.arch, *value.split(",")])))
    if key == "accelerator" and value:
        return replace(requires, accelerator=value)
    if key == "memory_mb" and value.isdecimal() and len(value) < 10:
        return replace(requires, memory_mb=int(value))
    if key == "cpu_any" and all(value.split(",")):
        asked = dict.fromkeys([*requires.cpu_any, *value.split(",")])
        return replace(requires, cpu_any=tuple(asked))
    if key.startswith(FACT) and value:
        return replace(requires, facts={**requires.facts, key.removeprefix(FACT): value})
    raise CliError(f"--requires: expected {REQUIRES}; got {key}={value[:40]}")
