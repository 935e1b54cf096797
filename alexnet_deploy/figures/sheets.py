"""Draw rows of photographs, as in Krizhevsky et al. 2012, figure 4 right.

Each begins with one in a frame, such as a query, then come those that belong to it, such as its
neighbours, each with numbers and names. Further ones continue on the next lines, aligned under the
first.
"""

import dataclasses
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageDraw

from alexnet_deploy.errors import Argument, PhotographError, UsageError
from alexnet_deploy.figures.drawing import (
    BOLD,
    FRAME,
    INK,
    PAPER,
    QUIET,
    Box,
    built_in_font,
    draw_failure,
    drawable,
    paste_photograph,
    shortened,
    wrapped,
)
from alexnet_deploy.figures.html_sheets import html_page
from alexnet_deploy.figures.png_files import open_png
from alexnet_deploy.figures.sheet_cells import MAX_RATIO, Cell, SheetRow, SheetText
from alexnet_deploy.files.output_files import atomic_write, wrong_suffix
from alexnet_deploy.files.path_text import printable

SUFFIXES = (".png", ".html")
MAX_ROWS = 64
MAX_PHOTOGRAPHS = 720
"""The limit of a PNG, those in frames and the others together."""

_PHOTO_WIDTH, _PHOTO_HEIGHT = 216, 162  # 4:3, like most photographs
_NUMBER_SIZE, _NAME_SIZE, _REASON_SIZE, _LEGEND_SIZE = 25, 21, 18, 19
_NUMBER_BASELINE, _NAME_PITCH, _CAPTION_HEIGHT = 34, 27, 96
_REASON_LINES = 5
_REMARK_GAP = 12
_MARGIN, _GAP_X, _GAP_Y = 48, 24, 24
_LEAD_GAP = 48  # beside the one in a frame, and between rows
_TITLE_HEIGHT = 48
_FRAME_DISTANCE, _FRAME_WIDTH = 7, 3
_PITCH_X = _PHOTO_WIDTH + _GAP_X
_PITCH_Y = _PHOTO_HEIGHT + _CAPTION_HEIGHT + _GAP_Y
_LEGEND_PITCH = 28
_MAX_COLUMNS = 10  # with more, names are too small to read when the whole sheet is in view
_ASPECT = 2.0  # aspect ratio that a sheet approximates if its results allow
_TAIL = 0.5  # the end of a long name tells as much as its beginning


def check_sheet(path: Path) -> None:
    """Reject a sheet that is neither PNG nor HTML, before any work is done.

    Raises:
        UsageError: another suffix.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise wrong_suffix(path, "sheets", SUFFIXES)


def check_sheets(paths: Sequence[Path]) -> None:
    """Reject sheets as `check_sheet` does, and two in one place.

    Raises:
        UsageError: naming the sheet.
    """
    for number, path in enumerate(paths):
        check_sheet(path)
        if os.path.realpath(path) in map(os.path.realpath, paths[:number]):
            raise UsageError(Argument("sheet", path), ": is named twice; give it two names")


@contextmanager
def open_sheet(
    path: Path, text: SheetText, *, notify: Callable[[str], None] = lambda _: None
) -> Iterator[Callable[[SheetRow], None]]:
    """Yield a function that adds one row; the sheet appears at `path` on exit.

    Photographs are read again, one at a time; one that cannot be read becomes a box with the
    reason. HTML holds any number, a PNG the first `MAX_ROWS` or `MAX_PHOTOGRAPHS`.

    Args:
        path: `.png` or `.html`; a missing folder or permission fails before the first row.
        text: what the sheet says of itself.
        notify: called with what a PNG does not show.

    Raises:
        UsageError: another suffix, or a PNG that this package did not draw.
        OutputError: the file cannot be written.
    """
    check_sheet(path)
    if path.suffix.lower() == ".html":
        with atomic_write(path) as file, html_page(file, text) as add:
            yield add
        return
    first = _FirstRows()
    with open_png(path) as save:
        yield first.add
        save(draw_sheet(first.taken, text))
    for line in (*first.left_out(text), *_missing_letters(first.taken)):
        notify(f"{path}: {line}")


def draw_sheet(rows: Sequence[SheetRow], text: SheetText) -> Image.Image:
    """Draw the rows, and below them the legend.

    Args:
        rows: any number, but memory holds the picture: 0.3 MB per photograph.
        text: what the sheet says of itself.
    """
    num_columns = _num_columns([len(row.cells) for row in rows])
    width = 2 * _MARGIN + _PHOTO_WIDTH + _LEAD_GAP + num_columns * _PITCH_X - _GAP_X
    heights = (
        (_TITLE_HEIGHT if row.title else 0)
        + _num_lines(len(row.cells), num_columns) * _PITCH_Y
        + _LEAD_GAP
        for row in rows
    )
    tops = list(itertools.accumulate(heights, initial=_MARGIN))
    font = built_in_font(_LEGEND_SIZE)
    legend = wrapped(text.legend, font, width - 2 * _MARGIN, max_lines=5)
    height = tops[-1] + len(legend) * _LEGEND_PITCH + _MARGIN
    canvas = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(canvas)
    for number, row in enumerate(rows):
        if number:
            y = tops[number] - (_LEAD_GAP + _GAP_Y) // 2
            draw.line((_MARGIN, y, width - _MARGIN - 1, y), fill=FRAME, width=2)
        _draw_row(canvas, tops[number], row, num_columns)
    for number, line in enumerate(legend):
        draw.text((_MARGIN, tops[-1] + number * _LEGEND_PITCH), line, font=font, fill=QUIET)
    return canvas


class _FirstRows:
    """The rows that fit into a PNG, and a count of the others."""

    def __init__(self) -> None:
        self.taken: list[SheetRow] = []
        self._num_added = 0
        self._num_photographs = 0
        self._num_found = 0  # cells of the first row

    def add(self, row: SheetRow) -> None:
        """Take a row if all of it fits; of the first, as much as fits."""
        self._num_added += 1
        if self._num_added == 1:
            self._num_found = len(row.cells)
            row = dataclasses.replace(row, cells=row.cells[: MAX_PHOTOGRAPHS - 1])
        is_next = self._num_added == len(self.taken) + 1 and len(self.taken) < MAX_ROWS
        num_photographs = self._num_photographs + 1 + len(row.cells)
        if is_next and num_photographs <= MAX_PHOTOGRAPHS:
            self.taken.append(row)
            self._num_photographs = num_photographs

    def left_out(self, text: SheetText) -> Iterator[str]:
        """Yield lines about what did not fit."""
        remedy = "name it .html to see all"
        if self._num_added > len(self.taken):
            yield f"shows the first {len(self.taken)} of {self._num_added:,} {text.rows}; {remedy}"
        if self.taken and self._num_found > (drawn := len(self.taken[0].cells)):
            yield f"shows the first {drawn} of {self._num_found:,} {text.cells}; {remedy}"


def _missing_letters(rows: Sequence[SheetRow]) -> Iterator[str]:
    """Yield a line if a name was drawn without some of its letters or accents."""
    cells = (cell for row in rows for cell in (row.lead, *row.cells) if cell is not None)
    names = [*(f"{cell.folder}{cell.name}" for cell in cells), *(row.title for row in rows)]
    if any(drawable(printable(name)) != printable(name) for name in names):
        yield "names have letters that the built-in font lacks; an .html sheet shows them"


def _num_lines(num_cells: int, num_columns: int) -> int:
    """Return how many lines a row takes; the one in a frame is in the first."""
    return max(1, math.ceil(num_cells / num_columns))


def _num_columns(nums_cells: Sequence[int]) -> int:
    """Return the columns that bring the sheet nearest to `_ASPECT`, preferring full lines."""

    def strangeness(columns: int) -> float:
        lines = sum(_num_lines(num, columns) for num in nums_cells)
        aspect = (columns + 1) * _PITCH_X / (lines * _PITCH_Y)
        return abs(math.log(aspect / _ASPECT)) + 1 - sum(nums_cells) / (lines * columns)

    most = min(_MAX_COLUMNS, max(nums_cells, default=0))
    return min(range(1, most + 1), key=strangeness, default=1)


def _draw_row(canvas: Image.Image, top: int, row: SheetRow, num_columns: int) -> None:
    """Draw the title, the photograph in a frame and, line after line, the others."""
    draw = ImageDraw.Draw(canvas)
    font = built_in_font(_NUMBER_SIZE)
    if row.title:
        title = shortened(drawable(printable(row.title)), font, canvas.width - 2 * _MARGIN)
        draw.text((_MARGIN, top), title, font=font, anchor="lt", fill=INK, stroke_width=BOLD)
        top += _TITLE_HEIGHT
    if row.lead is not None:
        _draw_cell(canvas, (_MARGIN, top), row.lead)
        left, above, right, below = _photo_box((_MARGIN, top)).corners
        off = _FRAME_DISTANCE
        frame = (left - off, above - off, right + off, below + off)
        draw.rectangle(frame, outline=INK, width=_FRAME_WIDTH)
    first_left = _MARGIN + _PHOTO_WIDTH + _LEAD_GAP
    for number, cell in enumerate(row.cells):
        line, column = divmod(number, num_columns)
        corner = (first_left + column * _PITCH_X, top + line * _PITCH_Y)
        _draw_cell(canvas, corner, cell)
    if not row.cells and row.nothing:
        middle = (first_left, top + _PHOTO_HEIGHT // 2)
        draw.text(middle, row.nothing, font=font, anchor="lm", fill=QUIET)


def _draw_cell(canvas: Image.Image, corner: tuple[int, int], cell: Cell) -> None:
    """Draw a photograph, or why there is none, and below it its measures and its names."""
    left, top = corner
    box = _photo_box(corner)
    try:
        paste_photograph(canvas, box, cell.image(), max_ratio=MAX_RATIO)
    except PhotographError as error:
        font = built_in_font(_REASON_SIZE)
        draw_failure(canvas, box, str(error), font, max_lines=_REASON_LINES)
    draw = ImageDraw.Draw(canvas)
    right, below = left + _PHOTO_WIDTH, top + _PHOTO_HEIGHT
    font = built_in_font(_NUMBER_SIZE)
    baseline = below + _NUMBER_BASELINE
    draw.text((left, baseline), cell.heading, font=font, anchor="ls", fill=INK, stroke_width=BOLD)
    small = built_in_font(_NAME_SIZE)
    room = round(_PHOTO_WIDTH - font.getlength(cell.heading) - _REMARK_GAP)
    remark = shortened(cell.remark, small, room)
    draw.text((right, baseline), remark, font=small, anchor="rs", fill=QUIET)
    for name, ink in ((cell.folder, INK), (cell.name, QUIET)):
        if not name:
            continue
        text = shortened(drawable(name), small, _PHOTO_WIDTH, tail=_TAIL)
        baseline += _NAME_PITCH
        draw.text((left, baseline), text, font=small, anchor="ls", fill=ink)


def _photo_box(corner: tuple[int, int]) -> Box:
    return Box(left=corner[0], top=corner[1], width=_PHOTO_WIDTH, height=_PHOTO_HEIGHT)
