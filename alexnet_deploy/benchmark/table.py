"""A benchmark as text for a terminal."""

from pathlib import Path

from alexnet_deploy.benchmark.results import Benchmark, Row
from alexnet_deploy.errors import Message
from alexnet_deploy.files.path_text import printable
from alexnet_deploy.timing import Spread

_HEAD = (
    "",
    "decoding",
    "network",
    "bound",
    "whole",
    "share",
    "with start",
    "as fp32",
    "FC7 cosine",
)


def table(found: Benchmark) -> Message:
    """Return the machine, a line for each way to run the model, and what to conclude."""
    cells = [_HEAD, *map(_cells, found.rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEAD))]
    lines = [
        printable(str(found.machine)),
        _photographs_line(found),
        f"Photographs a second, medians of {found.num_rounds} rounds (quartiles); whole: from "
        "files to vectors on the disk",
        *(_line(row, widths) for row in cells),
        f"writing: {found.writing.median:,.0f} vectors a second",
        *found.remarks,
        f"{found.rows[0].setting}: {found.rows[0].bottleneck()}",
    ]
    advice = found.recommendation()
    beyond = f"\n{advice.beyond}" if advice.beyond else ""
    return Message("\n".join(lines), "\n", advice.text, beyond)


def _photographs_line(found: Benchmark) -> str:
    failed = f", {found.num_failed:,} more could not be read" if found.num_failed else ""
    width, height = found.median_size
    return (
        f"{found.num_photographs:,} photographs, medians {width} x {height} px and "
        f"{found.median_bytes / 1000:,.0f} kB{failed}; {printable(Path(found.model).name)}"
    )


def _cells(row: Row) -> tuple[str, ...]:
    same, cosines = "", ""
    if row.agreement is not None:
        same, cosines = row.agreement.same_percent, row.agreement.cosines
        cosines += "" if row.agreement.is_admitted else ", too far"
    return (
        str(row.setting),
        f"{row.decoding.median:,.0f}",
        f"{row.network.median:,.0f}",
        f"{row.bound.median:,.0f}",
        _spread(row.whole),
        f"{row.share.median:.2f}",
        _spread(row.process),
        same,
        cosines,
    )


def _spread(values: Spread) -> str:
    return f"{values.median:,.0f} ({values.lower:,.0f}-{values.upper:,.0f})"


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    first, *middle, last = (
        f"{cell:<{width}}" if column in (0, len(widths) - 1) else f"{cell:>{width}}"
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join([first, *middle, last]).rstrip()
