"""`report.json`: what `pilotwave optimize` made of one model, and what it found out about each.

Parsing is strict, as what stands here is signed when it is published. Numbers are decimal texts,
so that what was printed, written and signed is the same. A folder without this file is no result:
it is written last.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from decimal import Decimal, InvalidOperation
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from pilotwave_protocol import names, strictjson
from pilotwave_protocol.errors import BadJson, BadName, ProtocolError
from pilotwave_protocol.fields import Fields
from pilotwave_protocol.manifest import MAX_FILES, MAX_VARIANTS

SCHEMA = "pilotwave/optimize/1"
REPORT = "report.json"
TABLE = "report.txt"
MAX_REPORT_BYTES = 1 << 20


class BadReport(ProtocolError):
    """Not a report of `pilotwave optimize`."""

    code = "bad_report"


class State(str, Enum):
    """What became of a variant."""

    ACCEPTED = "accepted"
    REFUSED = "refused"  # it runs, and loses more than was allowed
    FAILED = "failed"  # it could not be made, or does not run


@dataclass(frozen=True)
class Source:
    """The model that all variants come from."""

    file: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class DataSet:
    """Data that was used: the digest of its file, and how many inputs it holds."""

    sha256: str
    rows: int


@dataclass(frozen=True)
class Guard:
    """What was promised: a loss of at most `max_loss`, at this `confidence`. Decimal texts."""

    max_loss: str
    confidence: str


@dataclass(frozen=True)
class Machine:
    """Where the times were measured. `flags` are names of facts: `cpu.avx512_vnni`."""

    arch: str
    cpu: str
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Needs:
    """What a device must have; at least one of `cpu_any`. Empty and None mean "anything"."""

    arch: tuple[str, ...] = ()
    cpu_any: tuple[str, ...] = ()
    accelerator: str | None = None
    memory_mb: int | None = None


@dataclass(frozen=True)
class Figures:
    """What was measured; None where nothing was.

    `worse` of `rows` inputs were right by the parent and wrong by the variant; `loss_bound` is the
    share that this shows at the guard's confidence. `top1`, `loss_bound` and `worse` need labels.
    """

    bytes: int | None = None
    rows: int | None = None
    worse: int | None = None
    top1: str | None = None
    agreement: str | None = None
    loss_bound: str | None = None
    p05_ms: str | None = None
    peak_mb: str | None = None
    made_s: str | None = None


@dataclass(frozen=True)
class Files:
    """Where an accepted variant lies, under the report's folder, and how its answers are tested.

    `digests` has the SHA-256 of each of its files, by its path in the folder. `inputs` and
    `outputs` are their names in order, which some formats have not."""

    folder: str
    entrypoint: str
    cases: str
    atol: str
    rtol: str
    digests: dict[str, str]
    min_agreement: str | None = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One variant. `why` says what was wrong; only an accepted one has `files`."""

    name: str
    state: State
    runtime: str
    precision: str = ""
    format: str = ""
    runtime_version: str = ""
    why: str = ""
    requires: Needs = field(default_factory=Needs)
    files: Files | None = None
    figures: Figures = field(default_factory=Figures)


@dataclass(frozen=True)
class Report:
    """All of it. The order of `rows` is the order of preference, accepted ones first."""

    source: Source
    calibration: DataSet
    evaluate: DataSet
    labelled: bool
    guard: Guard
    tools: dict[str, str]
    machine: Machine
    rows: tuple[Row, ...]

    @property
    def accepted(self) -> tuple[Row, ...]:
        """The variants that may be published."""
        return tuple(row for row in self.rows if row.state is State.ACCEPTED)

    def to_bytes(self) -> bytes:
        """Write it: equal reports give equal bytes."""
        text = json.dumps(_plain(self), ensure_ascii=False, indent=1, allow_nan=False)
        return text.encode() + b"\n"


def read_report(folder: Path) -> Report:
    """Read the report of a folder, or raise `BadReport`."""
    path = folder / REPORT
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_REPORT_BYTES + 1)
    except OSError as e:
        raise BadReport(
            f"{folder}: expected a folder of variants, as optimize makes it; "
            f"{REPORT} cannot be read: {e.strerror}"
        ) from e
    try:
        return parse_report(raw)
    except BadReport as e:
        raise BadReport(f"{path}: {e}") from e


def parse_report(raw: bytes) -> Report:
    """Read a report, or raise `BadReport` naming the field and what was expected."""
    try:
        data = strictjson.loads(raw, max_bytes=MAX_REPORT_BYTES, max_depth=6)
    except BadJson as e:
        raise BadReport(str(e)) from e
    f = Fields(data, "", BadReport)
    if f.raw("schema") != SCHEMA:
        raise f.fail("schema", SCHEMA, f.raw("schema"))
    source, used, guard = f.inner("source"), f.inner("data"), f.inner("guard")
    calibration, evaluate = used.inner("calibration"), used.inner("evaluate")
    report = Report(
        source=Source(
            file=source.text("file", limit=256),
            sha256=source.named("sha256", names.check_sha256),
            bytes=source.integer("bytes"),
        ),
        labelled=evaluate.boolean("labelled"),
        calibration=_data_set(calibration),
        evaluate=_data_set(evaluate),
        guard=Guard(_decimal(guard, "max_loss"), _decimal(guard, "confidence")),
        tools=f.text_map("tools"),
        machine=_machine(f.inner("machine")),
        rows=tuple(_row(row) for row in f.objects("rows", limit=MAX_VARIANTS)),
    )
    for read in (f, source, used, guard):
        read.done()
    _check_rows(report.rows)
    return report


def _check_rows(rows: tuple[Row, ...]) -> None:
    accepted = [row.state is State.ACCEPTED for row in rows]
    if accepted != sorted(accepted, reverse=True):
        raise BadReport("rows: expected the accepted ones first")
    for what in ([r.name for r in rows], [r.files.folder for r in rows if r.files]):
        if len(set(what)) != len(what):
            raise BadReport(f"rows: expected each name and folder once; got {', '.join(what)}")


def _data_set(f: Fields) -> DataSet:
    found = DataSet(f.named("sha256", names.check_sha256), f.integer("rows", low=1))
    f.done()
    return found


def _machine(f: Fields) -> Machine:
    flags = tuple(f.texts("flags", limit=32, length=64))
    machine = Machine(f.text("arch", limit=32), f.text("cpu", limit=128), flags)
    f.done()
    return machine


def _row(f: Fields) -> Row:
    state = f.one_of("state", State)
    row = Row(
        name=f.named("name", names.check_variant),
        state=state,
        why=f.text("why", limit=2048),
        runtime=f.named("runtime", names.check_label_key),
        runtime_version=_specifier(f),
        precision=f.text("precision", limit=32),
        format=f.text("format", limit=32),
        requires=_needs(f.inner("requires")),
        files=_files(f) if state is State.ACCEPTED else None,
        figures=_figures(f.inner("figures")),
    )
    f.done()
    return row


def _files(f: Fields) -> Files:
    files = Files(
        folder=f.named("folder", names.check_variant),
        entrypoint=f.named("entrypoint", names.check_file_path),
        cases=f.named("cases", names.check_file_path),
        atol=_decimal(f, "atol"),
        rtol=_decimal(f, "rtol"),
        digests=_digests(f),
        min_agreement=_opt_share(f, "min_agreement"),
        inputs=tuple(f.texts("inputs", limit=64, default=[])),
        outputs=tuple(f.texts("outputs", limit=64, default=[])),
    )
    for key in ("entrypoint", "cases"):
        if getattr(files, key) not in files.digests:
            raise f.fail(key, "one of the files in digests", getattr(files, key))
    return files


def _digests(f: Fields) -> dict[str, str]:
    section = Fields(f.mapping("digests", limit=MAX_FILES), f.at("digests"), BadReport)
    found = f.raw("digests")
    try:
        return {names.check_file_path(p): section.named(p, names.check_sha256) for p in found}
    except BadName as e:
        raise f.fail("digests", "paths within the folder", str(e)) from e


def _needs(f: Fields) -> Needs:
    needs = Needs(
        arch=tuple(f.texts("arch", limit=16, length=32)),
        cpu_any=tuple(f.texts("cpu_any", limit=16, length=64)),
        accelerator=f.opt_text("accelerator", limit=64),
        memory_mb=None if f.raw("memory_mb") is None else f.integer("memory_mb"),
    )
    f.done()
    return needs


def _figures(f: Fields) -> Figures:
    found: dict[str, Any] = {}
    for keys, read in (
        (("bytes", "rows", "worse"), f.integer),
        (("top1", "agreement", "loss_bound"), partial(_share, f)),
        (("p05_ms", "peak_mb", "made_s"), partial(_decimal, f)),
    ):
        found |= {key: read(key) for key in keys if _has(f, key)}
    f.done()
    return Figures(**found)


def _has(f: Fields, key: str) -> bool:
    return f.raw(key, None) is not None


def _specifier(f: Fields) -> str:
    text = f.text("runtime_version", limit=128)
    try:
        SpecifierSet(text)
    except InvalidSpecifier as e:
        raise f.fail("runtime_version", "a specifier like >=1.17", text) from e
    return text


def _decimal(f: Fields, key: str) -> str:
    text = f.text(key, limit=32)
    try:
        number = Decimal(text)
    except InvalidOperation as e:
        raise f.fail(key, "a decimal number as text, like 0.01", text) from e
    if not number.is_finite() or number < 0:
        raise f.fail(key, "a finite number of at least 0, as text", text)
    return text


def _share(f: Fields, key: str) -> str:
    text = _decimal(f, key)
    if Decimal(text) > 1:
        raise f.fail(key, "a share from 0 to 1, as text", text)
    return text


def _opt_share(f: Fields, key: str) -> str | None:
    return _share(f, key) if _has(f, key) else None


def _plain(report: Report) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "source": asdict(report.source),
        "data": {
            "calibration": asdict(report.calibration),
            "evaluate": {**asdict(report.evaluate), "labelled": report.labelled},
        },
        "guard": asdict(report.guard),
        "tools": dict(sorted(report.tools.items())),
        "machine": asdict(report.machine),
        "rows": [_plain_row(row) for row in report.rows],
    }


def _plain_row(row: Row) -> dict[str, Any]:
    plain = {f.name: getattr(row, f.name) for f in fields(row) if f.name != "files"}
    figures = {key: value for key, value in asdict(row.figures).items() if value is not None}
    files = asdict(row.files) if row.files else {}
    return {
        **plain,
        "state": row.state.value,
        "requires": asdict(row.requires),
        "figures": figures,
        **files,
    }
