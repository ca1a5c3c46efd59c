"""Publish what `pilotwave optimize` made: its accepted variants, as they were when measured.

What is refused or failed there is not published. The report's figures are signed with the version,
so a file that is not the one which they were measured on is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pilotwave_cli.errors import CliError
from pilotwave_cli.optimize.report import REPORT, Files, Report, Row, read_report
from pilotwave_cli.publish.variant_options import VariantOptions
from pilotwave_protocol import digest
from pilotwave_protocol.escalate import ESCALATE
from pilotwave_protocol.manifest import Requires
from pilotwave_protocol.reference import REFERENCE
from pilotwave_protocol.tensortypes import CASES

SIGNED = ("top1", "agreement", "loss_bound", "p05_ms", "peak_mb", "bytes")
"""The figures of each variant that go into the version's metrics, as `VARIANT.top1`."""


@dataclass(frozen=True)
class Optimized:
    """What a report says of a version's variants: folders and options by variant, texts for people.
    Empty where variants are named one by one."""

    folders: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, VariantOptions] = field(default_factory=dict)
    source: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)


def read_optimized(folder: Path) -> Optimized:
    """Read the folder, or raise `BadReport`, or `CliError` where it is no longer what it was."""
    report = read_report(folder)
    if not report.accepted:
        why = "; ".join(f"{row.name}: {row.why}" for row in report.rows) or "it made none"
        raise CliError(f"{folder}: no variant was accepted, so there is nothing to publish: {why}")
    for row, files in _accepted(report):
        _check_files(folder / files.folder, files.digests)
        if files.cases != CASES:
            raise CliError(f"{row.name}: expected its golden cases in {CASES}; got {files.cases}")
    return Optimized(
        folders={row.name: str(folder / files.folder) for row, files in _accepted(report)},
        options={row.name: _options(row, files) for row, files in _accepted(report)},
        source=dict(_source(report, folder)),
        metrics=dict(_metrics(report)),
    )


def _accepted(report: Report) -> Iterator[tuple[Row, Files]]:
    return ((row, row.files) for row in report.accepted if row.files is not None)


def _check_files(folder: Path, expected: Mapping[str, str]) -> None:
    """Refuse a folder that lacks a file of the report, has another one, or a changed one."""
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if not p.is_dir()}
    for later in (ESCALATE, REFERENCE):  # `calibrate` and `reference` write them after the report
        found.pop(later, None)
    expected = {path: sha256 for path, sha256 in expected.items() if path != REFERENCE}
    again = "run optimize again, or name the folder with --variant, without the figures"
    if stray := sorted(expected.keys() ^ found.keys()):
        word = "is not in the report" if stray[0] in found else "is in the report and not here"
        raise CliError(f"{folder / stray[0]} {word}: {again}")
    for path, sha256 in expected.items():
        here = digest.hash_file(found[path])[0]
        if here != sha256:
            raise CliError(
                f"{found[path]} has changed since it was measured: its SHA-256 is {here}, "
                f"{REPORT} says {sha256}: {again}"
            )


def _options(row: Row, files: Files) -> VariantOptions:
    needs = row.requires
    return VariantOptions(
        atol=files.atol,
        rtol=files.rtol,
        min_agreement=files.min_agreement,
        requires=Requires(needs.arch, needs.accelerator, needs.memory_mb, needs.cpu_any),
        runtime=row.runtime,
        runtime_version=row.runtime_version,
        entrypoint=files.entrypoint,
        inputs=files.inputs,
        outputs=files.outputs,
    )


def _source(report: Report, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield what the variants were made of, by what, and what was promised."""
    yield "optimize.report", digest.hash_file(folder / REPORT)[0]
    yield "optimize.source", report.source.sha256
    yield "optimize.calibration", report.calibration.sha256
    yield "optimize.evaluate", report.evaluate.sha256
    yield "optimize.evaluated_rows", str(report.evaluate.rows)
    yield "optimize.labelled", str(report.labelled).lower()
    yield "optimize.max_loss", report.guard.max_loss
    yield "optimize.confidence", report.guard.confidence
    yield "optimize.machine", f"{report.machine.arch} {report.machine.cpu}"
    for tool, version in sorted(report.tools.items()):
        yield f"tool.{tool}", version


def _metrics(report: Report) -> Iterator[tuple[str, str]]:
    for row in report.accepted:
        figures = asdict(row.figures)
        for key in SIGNED:
            if figures[key] is not None:
                yield f"{row.name}.{key}", str(figures[key])
