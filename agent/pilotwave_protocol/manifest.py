"""The version manifest: what one signed version consists of (DESIGN section 5).

Parsing is strict: unknown fields, repeated names, unsafe paths and impossible sizes are refused.
A later schema adds fields. A manifest names the oldest one that has all it says, so that every
agent which can read it is offered it, and equal manifests stay equal bytes.
Whether the manifest is the one that was signed is `trust`'s and the directive check's to decide.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from pilotwave_protocol import names, strictjson
from pilotwave_protocol.errors import BadJson, BadManifest, BadName
from pilotwave_protocol.fields import Fields

SCHEMAS = ("pilotwave/version/1", "pilotwave/version/2", "pilotwave/version/3")
NEWEST_SCHEMA = len(SCHEMAS)
MAX_MANIFEST_BYTES = 1 << 20
MAX_VARIANTS = 64
MAX_FILES = 1024
MAX_FILE_SIZE = 1 << 40
MAX_ASKED = 16
MAX_METRICS = 32  # of schema 1; one of schema 2 may have some for each variant
MAX_METRICS_OF_2 = MAX_VARIANTS * 16
_MISSING = object()
COMPARERS = ("argmax", "relative_l2", "cosine", "iou")
PROGRAMS = frozenset({"edge-impulse", "command"})  # runtimes whose entry point is run as it is


@dataclass(frozen=True)
class FileEntry:
    """One file of a variant: its path inside the variant, size in bytes, digest."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class TensorSpec:
    """One model input or output. -1 in `shape` is a dimension that may vary."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Requires:
    """What the device must offer; what is empty or None means "anything".

    `cpu_any` names facts of which at least one must be true. `facts` asks by name: a specifier such
    as `>=2.1,<3`, or the fact's very text. Both came with schema 2.
    """

    arch: tuple[str, ...] = ()
    accelerator: str | None = None
    memory_mb: int | None = None
    cpu_any: tuple[str, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SelfTest:
    """Golden inputs and outputs (a file of the variant) and how near the outputs must be.

    `atol` and `rtol` are decimal texts (|y - y0| <= atol + rtol |y0|), `max_latency_ms` bounds the
    95th percentile of one call. `min_agreement` (schema 2) is the least share of cases whose
    largest output must be the expected one; it stands in place of the tolerances.
    """

    cases: str
    atol: str = "1e-3"
    rtol: str = "1e-3"
    max_latency_ms: int | None = None
    min_agreement: str | None = None


@dataclass(frozen=True)
class Comparison:
    """How answers of this build are compared with another version's, in shadow (schema 3).

    `by` is one of `COMPARERS`, `output` the output that is looked at (None: the first table of
    scores, else the first), `tolerance` a decimal text whose meaning is the comparer's.
    """

    by: str
    output: str | None = None
    tolerance: str | None = None


@dataclass(frozen=True)
class Variant:
    """One build of a version: runtime, precision, hardware, files."""

    name: str
    runtime: str
    entrypoint: str
    files: tuple[FileEntry, ...]
    runtime_version: str = ""
    precision: str = ""
    format: str = ""
    requires: Requires = field(default_factory=Requires)
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    selftest: SelfTest | None = None
    unsafe_format: bool = False
    compare: Comparison | None = None

    @property
    def size(self) -> int:
        """Total size of the files in bytes."""
        return sum(f.size for f in self.files)

    @property
    def is_program(self) -> bool:
        """Say whether the entry point is a program that the device runs."""
        return self.runtime in PROGRAMS


@dataclass(frozen=True)
class VersionManifest:
    """One immutable version of a model, as its publisher described it."""

    model: str
    version: str
    counter: int
    variants: tuple[Variant, ...]
    description: str = ""
    source: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)

    def variant(self, name: str) -> Variant | None:
        """Return the variant of that name, if there is one."""
        return next((v for v in self.variants if v.name == name), None)

    @property
    def schema(self) -> int:
        """The number of the oldest schema that has all that is said here."""
        if any(v.compare for v in self.variants):
            return 3
        newer = len(self.metrics) > MAX_METRICS or any(map(_is_of_schema_2, self.variants))
        return 2 if newer else 1

    @property
    def unsafe_format(self) -> bool:
        """Say whether any variant's format can run code when it is loaded."""
        return any(v.unsafe_format for v in self.variants)

    def to_bytes(self) -> bytes:
        """Write the manifest: equal manifests give equal bytes."""
        return strictjson.dumps(_plain(self))


def _is_of_schema_2(variant: Variant) -> bool:
    asked, selftest = variant.requires, variant.selftest
    agreement = selftest.min_agreement if selftest else None
    return bool(asked.cpu_any or asked.facts) or agreement is not None


def parse_manifest(raw: bytes) -> VersionManifest:
    """Read a manifest, or raise `BadManifest` naming the field and what was expected."""
    try:
        data = strictjson.loads(raw, max_bytes=MAX_MANIFEST_BYTES, max_depth=12)
    except BadJson as e:
        raise BadManifest(f"manifest: {e}") from e
    f = Fields(data, "", BadManifest)
    schema = f.raw("schema")
    if schema not in SCHEMAS:
        raise f.fail("schema", " or ".join(SCHEMAS), schema)
    manifest = VersionManifest(
        model=f.named("model", names.check_model),
        version=f.named("version", names.check_version),
        counter=f.integer("counter", low=1),
        description=f.text("description", limit=4096, default=""),
        source=f.text_map("source"),
        metrics=f.text_map("metrics", limit=MAX_METRICS_OF_2),
        variants=tuple(_variant(v) for v in f.objects("variants", limit=MAX_VARIANTS)),
    )
    f.done()
    if not manifest.variants:
        raise BadManifest("variants: expected at least one")
    _unique("variants", [v.name for v in manifest.variants])
    expected = SCHEMAS[manifest.schema - 1]
    if schema != expected:
        raise f.fail("schema", f"{expected}, the oldest that has all these fields", schema)
    return manifest


def _unique(path: str, values: list[str]) -> None:
    if len(set(values)) != len(values):
        twice = next(v for v in values if values.count(v) > 1)
        raise BadManifest(f"{path}: expected each name once; {twice!a} came twice")


def _variant(f: Fields) -> Variant:
    variant = Variant(
        name=f.named("name", names.check_variant),
        runtime=f.named("runtime", names.check_label_key),
        runtime_version=_specifier(f),
        precision=f.text("precision", limit=32, default=""),
        format=f.text("format", limit=32, default=""),
        requires=_requires(f.opt_inner("requires")),
        entrypoint=f.named("entrypoint", names.check_file_path),
        files=tuple(_file(item) for item in f.objects("files", limit=MAX_FILES)),
        inputs=tuple(_tensor(item) for item in f.objects("inputs", limit=256, default=[])),
        outputs=tuple(_tensor(item) for item in f.objects("outputs", limit=256, default=[])),
        selftest=_selftest(f.opt_inner("selftest")),
        unsafe_format=f.boolean("unsafe_format", default=False),
        compare=_comparison(f) if _is_there(f, "compare") else None,
    )
    f.done()
    _check_files(variant, f)
    _check_comparison(variant, f)
    return variant


def _check_files(variant: Variant, f: Fields) -> None:
    paths = [entry.path for entry in variant.files]
    # folded, because two names may be one file on a device's file system
    _unique(f.at("files"), [p.casefold() for p in paths])
    folders = {p.rsplit("/", n)[0].casefold() for p in paths for n in range(1, p.count("/") + 1)}
    for path in paths:
        if path.casefold() in folders:
            raise f.fail("files", "each path to be a file or a folder, not both", path)
    if variant.entrypoint not in paths:
        raise f.fail("entrypoint", "one of the variant's files", variant.entrypoint)
    if variant.selftest and variant.selftest.cases not in paths:
        raise f.fail("selftest.cases", "one of the variant's files", variant.selftest.cases)


def _specifier(f: Fields) -> str:
    text = f.text("runtime_version", limit=128, default="")
    try:
        SpecifierSet(text)
    except InvalidSpecifier as e:
        raise f.fail("runtime_version", "a specifier like >=1.17", text) from e
    return text


def _file(f: Fields) -> FileEntry:
    entry = FileEntry(
        path=f.named("path", names.check_file_path),
        size=f.integer("size", high=MAX_FILE_SIZE),
        sha256=f.named("sha256", names.check_sha256),
    )
    f.done()
    return entry


def _tensor(f: Fields) -> TensorSpec:
    dims = f.items("shape", limit=16)
    if not all(isinstance(d, int) and not isinstance(d, bool) and -1 <= d < 2**31 for d in dims):
        raise f.fail("shape", "whole numbers, -1 where a dimension may vary", dims)
    spec = TensorSpec(f.text("name", limit=256), f.text("dtype", limit=32), tuple(dims))
    f.done()
    return spec


def _requires(f: Fields | None) -> Requires:
    if f is None:
        return Requires()
    memory = None if f.raw("memory_mb", None) is None else f.integer("memory_mb")
    requires = Requires(
        arch=tuple(f.texts("arch", limit=16, length=32, default=[])),
        accelerator=f.opt_text("accelerator", limit=64),
        memory_mb=memory,
        cpu_any=_cpu_any(f),
        facts=_asked_facts(f),
    )
    f.done()
    return requires


def _is_there(f: Fields, key: str) -> bool:
    """Say whether a field of a later schema is there. One that says nothing is refused: an agent
    that reads schema 1 alone would refuse the manifest for its name."""
    found = f.raw(key, _MISSING)
    if found in (None, [], {}):
        raise f.fail(key, "something to ask for, or the field to be left out", found)
    return found is not _MISSING


def _cpu_any(f: Fields) -> tuple[str, ...]:
    if not _is_there(f, "cpu_any"):
        return ()
    asked = f.texts("cpu_any", limit=MAX_ASKED, length=64)
    try:
        found = tuple(names.check_fact_key(key) for key in asked)
    except BadName as e:
        raise BadManifest(f"{f.at('cpu_any')}: {e}") from e
    _unique(f.at("cpu_any"), list(found))
    return found


def _asked_facts(f: Fields) -> dict[str, str]:
    """What is asked of each fact. Text that begins as a specifier does must be one."""
    if not _is_there(f, "facts"):
        return {}
    asked = f.text_map("facts")
    if len(asked) > MAX_ASKED:
        raise f.fail("facts", f"at most {MAX_ASKED} facts", len(asked))
    for key, text in asked.items():
        try:
            names.check_fact_key(key)
            _ = is_specifier(text) and SpecifierSet(text)
        except BadName as e:
            raise BadManifest(f"{f.at('facts')}: {e}") from e
        except InvalidSpecifier as e:
            raise f.fail(f"facts.{key}", "a specifier like >=2.1,<3", text) from e
        if not text or len(text) > 128 or not text.isprintable():
            raise f.fail(f"facts.{key}", "printable text of 1 to 128 characters", text)
    return asked


def is_specifier(text: str) -> bool:
    """Say whether what is asked of a fact is a range of versions, or else its very text."""
    return text.startswith(("<", ">", "=", "!", "~"))


def _selftest(f: Fields | None) -> SelfTest | None:
    if f is None:
        return None
    latency = None if f.raw("max_latency_ms", None) is None else f.integer("max_latency_ms", low=1)
    selftest = SelfTest(
        cases=f.named("cases", names.check_file_path),
        atol=_decimal(f, "atol"),
        rtol=_decimal(f, "rtol"),
        max_latency_ms=latency,
        min_agreement=_share(f),
    )
    f.done()
    return selftest


def _comparison(f: Fields) -> Comparison:
    inner = f.inner("compare")
    by = inner.text("by", limit=32)
    if by not in COMPARERS:
        raise inner.fail("by", f"one of {', '.join(COMPARERS)}", by)
    found = Comparison(
        by=by,
        output=inner.opt_text("output", limit=256),
        tolerance=None if inner.raw("tolerance", None) is None else _decimal(inner, "tolerance"),
    )
    inner.done()
    return found


def _check_comparison(variant: Variant, f: Fields) -> None:
    outputs = [t.name for t in variant.outputs]
    wanted = variant.compare.output if variant.compare else None
    if outputs and wanted is not None and wanted not in outputs:
        raise f.fail("compare.output", f"one of {', '.join(outputs)}", wanted)


def _share(f: Fields) -> str | None:
    if not _is_there(f, "min_agreement"):
        return None
    text = _decimal(f, "min_agreement")
    if not 0 < Decimal(text) <= 1:
        raise f.fail("min_agreement", "a share above 0 and up to 1, as text", text)
    return text


def _decimal(f: Fields, key: str) -> str:
    text = f.text(key, limit=32, default="1e-3")
    try:
        number = Decimal(text)
    except InvalidOperation as e:
        raise f.fail(key, "a decimal number as text, like 1e-3", text) from e
    if not number.is_finite() or number < 0:
        raise f.fail(key, "a finite number of at least 0, as text", text)
    return text


def _plain(m: VersionManifest) -> dict[str, Any]:
    return {
        "schema": SCHEMAS[m.schema - 1],
        "model": m.model,
        "version": m.version,
        "counter": m.counter,
        "description": m.description,
        "source": m.source,
        "metrics": m.metrics,
        "variants": [_plain_variant(v) for v in m.variants],
    }


def _plain_variant(v: Variant) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "name": v.name,
        "runtime": v.runtime,
        "runtime_version": v.runtime_version,
        "precision": v.precision,
        "format": v.format,
        "requires": _plain_requires(v.requires),
        "entrypoint": v.entrypoint,
        "files": [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in v.files],
        "inputs": [_plain_tensor(t) for t in v.inputs],
        "outputs": [_plain_tensor(t) for t in v.outputs],
    }
    if v.selftest:
        plain["selftest"] = {
            "cases": v.selftest.cases,
            "atol": v.selftest.atol,
            "rtol": v.selftest.rtol,
            "max_latency_ms": v.selftest.max_latency_ms,
        }
        if v.selftest.min_agreement is not None:
            plain["selftest"]["min_agreement"] = v.selftest.min_agreement
    if v.unsafe_format:
        plain["unsafe_format"] = True
    if v.compare:
        plain["compare"] = {k: said for k, said in vars(v.compare).items() if said is not None}
    return plain


def _plain_requires(r: Requires) -> dict[str, Any]:
    """What came with schema 2 is left out where it asks nothing."""
    plain: dict[str, Any] = {
        "arch": list(r.arch),
        "accelerator": r.accelerator,
        "memory_mb": r.memory_mb,
    }
    if r.cpu_any:
        plain["cpu_any"] = list(r.cpu_any)
    if r.facts:
        plain["facts"] = dict(r.facts)
    return plain


def _plain_tensor(t: TensorSpec) -> dict[str, Any]:
    return {"name": t.name, "dtype": t.dtype, "shape": list(t.shape)}
