"""The report as a table, for people, and the order in which variants are preferred."""

from __future__ import annotations

from collections.abc import Sequence

from pilotwave_cli.optimize.report import Report, Row, State

FASTER = 0.9
"""A variant is put before the source for a gain of a tenth: less is within what runs differ by."""

_HEAD = ("variant", "", "kB", "top-1", "agrees", "loss <=", "p05 ms", "MB", "made s")


def ordered(rows: Sequence[Row], source_ms: float) -> tuple[Row, ...]:
    """Put accepted rows first, the quickest before the others; what is not quicker than the source
    stands behind it, however small it is."""

    def rank(row: Row) -> tuple[int, float]:
        ms = float(row.figures.p05_ms or "inf")
        if row.state is not State.ACCEPTED:
            return 3 + (row.state is State.FAILED), 0
        if ms <= FASTER * source_ms:
            return 0, ms
        return (1, 0) if row.precision == "fp32" and row.runtime == "onnxruntime" else (2, ms)

    return tuple(sorted(rows, key=rank))


def as_text(report: Report) -> str:
    """Return the report as a table with what it was judged by below it."""
    lines = [_HEAD, *(_line(row) for row in report.rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_HEAD))]
    text = "\n".join(
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
    whys = [f"{row.name}: {row.why}" for row in report.rows if row.why]
    return "\n".join([text, "", *whys, _judged_by(report), _measured_on(report)]) + "\n"


def _line(row: Row) -> tuple[str, ...]:
    found = row.figures
    kb = "" if found.bytes is None else f"{found.bytes / 1000:,.0f}"
    cells = (found.top1, found.agreement, found.loss_bound, found.p05_ms, found.peak_mb)
    return (row.name, row.state.value, kb, *(cell or "-" for cell in cells), found.made_s or "-")


def _judged_by(report: Report) -> str:
    rows = report.evaluate.rows
    if not report.labelled:
        return (
            f"No labels: the {rows} inputs tell agreement with the source alone, of which the "
            "loss is a part; top-1 is unknown."
        )
    return (
        f"loss <=: the share of inputs that the source gets right and the variant wrong, with "
        f"{float(report.guard.confidence):.0%} confidence, of {rows} labelled inputs."
    )


def _measured_on(report: Report) -> str:
    machine = report.machine
    flags = " ".join(flag.removeprefix("cpu.") for flag in machine.flags)
    return (
        f"Times: one call on one thread of {machine.cpu or machine.arch} ({flags or 'no flags'})."
    )
