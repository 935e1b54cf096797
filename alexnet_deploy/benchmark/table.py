"""A benchmark as text for a terminal."""

from pathlib import Path

from alexnet_deploy.benchmark.results import Benchmark, Row
from alexnet_deploy.errors import Message
from alexnet_deploy.files.path_text import printable
from alexnet_deploy.timing import Spread

_HEAD = (
    *("", "decoding", "network", "bound", "whole", "share", "with start"),
    "beside fp32",
)


def table(found: Benchmark) -> Message:
    """Return the machine, a line for each way to run the model, and what to conclude."""
    cells = [_HEAD, *map(_cells, found.rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEAD))]
    advice = found.recommendation()
    lines = [
        printable(str(found.machine)),
        _photographs_line(found),
        f"Photographs a second, medians (quartiles), rounds: {found.num_rounds}; whole: from "
        "files, which the system keeps in memory by now, to a file of vectors; share: of the bound "
        "in the same round",
        *(_line(row, widths) for row in cells),
        *dict.fromkeys(printable(row.description) for row in found.rows),
        f"writing alone: {found.writing.median:,.0f} vectors a second",
        *found.remarks,
        f"{found.rows[0].setting}: {found.rows[0].bottleneck()}",
        advice.text,
        *([advice.beyond] if advice.beyond else ()),
    ]
    return Message(*[part for line in lines for part in (line, "\n")][:-1])


def _photographs_line(found: Benchmark) -> str:
    failed = f", {found.num_failed:,} more could not be read" if found.num_failed else ""
    width, height = found.median_size
    return (
        f"photographs: {found.num_photographs:,}, medians {width} x {height} px{failed}; "
        f"{printable(Path(found.model).name)}"
    )


def _cells(row: Row) -> tuple[str, ...]:
    agreement = ""
    if row.agreement is not None:
        agreement = f"{row.agreement}{'' if row.agreement.is_admitted else ', too far'}"
    return (
        str(row.setting),
        _rate(row.decoding.median),
        _rate(row.network.median),
        _rate(row.bound.median),
        _spread(row.whole),
        f"{row.share.median:.2f}",
        _spread(row.process),
        agreement,
    )


def _spread(values: Spread) -> str:
    return f"{_rate(values.median)} ({_rate(values.lower)}-{_rate(values.upper)})"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    """Return the cells below each other: the first and the last to the left."""
    sides = "<" + ">" * (len(row) - 2) + "<"
    cells = (f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True))
    return "  ".join(cells).rstrip()
