"""Draw a benchmark: for each way to run the model its rates, and the bound that two of them set.

Sizes are in px, as in `drawing`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageDraw

from alexnet_deploy.benchmark.results import Benchmark, Row
from alexnet_deploy.figures.drawing import BOLD, INK, PAPER, QUIET, TRACK, built_in_font, shortened
from alexnet_deploy.figures.png_files import open_png
from alexnet_deploy.files.path_text import printable

_WIDTH, _MARGIN = 1500, 48
_NAME_WIDTH, _VALUE_WIDTH = 250, 330
_BAR_WIDTH = _WIDTH - 2 * _MARGIN - _NAME_WIDTH - _VALUE_WIDTH
_BAR_HEIGHT, _BAR_PITCH, _ROW_GAP = 26, 34, 30
_TITLE_SIZE, _TEXT_SIZE, _SMALL_SIZE = 26, 21, 19
_TITLE_PITCH, _HEAD_HEIGHT = 44, 112
_ROW_HEIGHT = _TITLE_PITCH + 3 * _BAR_PITCH + _ROW_GAP
_TICK = 4

_ALONE, _TOGETHER = "#b9cfe8", "#3f76b5"


@contextmanager
def open_chart(path: Path | None) -> Iterator[Callable[[Benchmark], object]]:
    """Yield a function that draws the chart and writes it as PNG, or without a path does nothing.

    Raises:
        UsageError: `path` is a file that this package did not draw.
        OutputError: the file cannot be written.
    """
    if path is None:
        yield lambda found: None
        return
    with open_png(path) as save:
        yield lambda found: save(draw_chart(found))


def draw_chart(found: Benchmark) -> Image.Image:
    """Draw three bars for each way: decoding alone, the network alone, and both together.

    The last has a mark at its bound, and a line from quartile to quartile.
    """
    rows = found.rows
    canvas = Image.new(
        "RGB", (_WIDTH, 2 * _MARGIN + _HEAD_HEIGHT + len(rows) * _ROW_HEIGHT - _ROW_GAP), PAPER
    )
    draw = ImageDraw.Draw(canvas)
    small = built_in_font(_SMALL_SIZE)
    lines = (
        f"Photographs a second: {found.num_photographs:,} of about {found.median_size[0]} x "
        f"{found.median_size[1]} px; medians of {found.num_rounds} rounds, the bar's line from "
        "quartile to quartile, the mark its bound",
        printable(str(found.machine)),
    )
    for number, line in enumerate(lines):
        text = shortened(line, small, _WIDTH - 2 * _MARGIN)
        draw.text((_MARGIN, _MARGIN + number * _BAR_PITCH), text, font=small, fill=QUIET)
    most = max(max(row.decoding.upper, row.network.upper, row.whole.upper) for row in rows)
    for number, row in enumerate(rows):
        _draw_row(draw, _MARGIN + _HEAD_HEIGHT + number * _ROW_HEIGHT, row, _BAR_WIDTH / most)
    return canvas


def _draw_row(draw: ImageDraw.ImageDraw, top: int, row: Row, scale: float) -> None:
    title = built_in_font(_TITLE_SIZE)
    draw.text((_MARGIN, top), str(row.setting), font=title, fill=INK, stroke_width=BOLD)
    font = built_in_font(_TEXT_SIZE)
    left, top = _MARGIN + _NAME_WIDTH, top + _TITLE_PITCH
    share = f"{row.whole.median:,.0f}, {row.share.median:.0%} of its bound {row.bound.median:,.0f}"
    bars = (
        ("decoding alone", row.decoding, _ALONE, f"{row.decoding.median:,.0f}"),
        ("network alone", row.network, _ALONE, f"{row.network.median:,.0f}"),
        ("files to vectors", row.whole, _TOGETHER, share),
    )
    for number, (name, rate, colour, value) in enumerate(bars):
        y = top + number * _BAR_PITCH
        middle, bottom = y + _BAR_HEIGHT / 2, y + _BAR_HEIGHT - 1
        draw.text((_MARGIN, middle), name, font=font, anchor="lm", fill=INK)
        draw.rectangle((left, y, left + _BAR_WIDTH, bottom), fill=TRACK)
        draw.rectangle((left, y, left + rate.median * scale, bottom), fill=colour)
        ends = (left + rate.lower * scale, middle, left + rate.upper * scale, middle)
        draw.line(ends, fill=INK, width=2)
        if colour == _TOGETHER:
            x = left + row.bound.median * scale
            draw.rectangle((x - _TICK / 2, y - _TICK, x + _TICK / 2, bottom + _TICK), fill=INK)
        x = left + _BAR_WIDTH + _MARGIN / 2
        draw.text((x, middle), value, font=font, anchor="lm", fill=INK)
