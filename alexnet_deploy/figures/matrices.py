"""Write or draw a confusion matrix: a row for each true class, a column for each predicted one.

Rows are normalized, so that a class of few photographs is as dark as one of many. Sizes are in px,
as in `drawing`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from alexnet_deploy.figures.classes import display_name
from alexnet_deploy.figures.drawing import (
    BOLD,
    FRAME,
    INK,
    PAPER,
    QUIET,
    TRACK,
    built_in_font,
    drawable,
    shortened,
)
from alexnet_deploy.figures.png_files import open_png
from alexnet_deploy.files.output_files import atomic_write, wrong_suffix
from alexnet_deploy.inference.confusion import ConfusionMatrix, confusion_matrix
from alexnet_deploy.inference.evaluation_report import Evaluation

_SIDE, _MAX_CELL = 2200, 120
_LABELLED, _COUNTED, _RULED = 12, 44, 8  # px of a cell from which it has labels, counts, lines
_MARGIN, _GAP, _TICK = 48, 10, 8
_TITLE_SIZE, _LABEL_SIZE, _QUIET_SIZE = 25, 21, 19
_LABEL_WIDTH = 300
_BAR_WIDTH, _BAR_HEIGHT, _BAR_GAP = 480, 24, 56
_SCALE_HEIGHT = _BAR_GAP + _QUIET_SIZE + 12 + _BAR_HEIGHT + 3 * _QUIET_SIZE
_TICKS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0)
_FAINTEST, _WHITE_INK_FROM = 32, 145  # shades: of one photograph among ever so many, of white ink

# ColorBrewer's Blues from white, so even steps of lightness; https://colorbrewer2.org
_ANCHORS = (
    *("#ffffff", "#deebf7", "#c6dbef", "#9ecae1", "#6baed6"),
    *("#4292c6", "#2171b5", "#08519c", "#08306b"),
)


@contextmanager
def open_matrix(path: Path) -> Iterator[Callable[[Evaluation], object]]:
    """Yield the function that writes or draws the matrix; the file appears at `path` on exit.

    Raises:
        UsageError: neither `.csv` nor `.png`, or a PNG that this package did not draw.
        OutputError: the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix == ".csv":
        with atomic_write(path) as file:
            yield lambda found: file.writelines(confusion_matrix(found.predictions).to_csv())
    elif suffix == ".png":
        with open_png(path) as save:
            yield lambda found: save(draw_matrix(confusion_matrix(found.predictions)))
    else:
        raise wrong_suffix(path, "confusion matrices", (".csv", ".png"))


def draw_matrix(matrix: ConfusionMatrix) -> Image.Image:
    """Draw shares of rows, light to dark, and the scale below.

    Up to about 180 classes are named, more are numbered by their outputs; up to 50 have counts. Of
    more than 2,200 several share a pixel, which shows the largest share.
    """
    size = min(len(matrix.labels), _SIDE)
    cell = min(_MAX_CELL, _SIDE // size)
    side, shades, names = size * cell, _shades(matrix, size), _names(matrix, cell)
    font = built_in_font(_name_size(cell))
    room = round(max(font.getlength(name) for _, name in names))
    left = top = _MARGIN + 2 * _TITLE_SIZE + _GAP + _TICK + room
    width = max(left + side, left + _BAR_WIDTH + _TITLE_SIZE) + _MARGIN
    canvas = Image.new("RGB", (width, top + side + _SCALE_HEIGHT + _MARGIN), PAPER)
    draw = ImageDraw.Draw(canvas)
    pixels = _colours()[shades].repeat(cell, axis=0).repeat(cell, axis=1)
    canvas.paste(Image.fromarray(pixels), (left, top))
    for place in range(1, size) if cell >= _RULED else ():
        across, along = left + place * cell, top + place * cell
        draw.line((across, top, across, top + side - 1), fill=TRACK)
        draw.line((left, along, left + side - 1, along), fill=TRACK)
    draw.rectangle((left - 2, top - 2, left + side + 1, top + side + 1), outline=FRAME, width=2)
    if cell >= _COUNTED:
        _draw_counts(draw, (left, top), cell, matrix, shades)
    _draw_names(canvas, (left, top), cell, names)
    title = built_in_font(_TITLE_SIZE)
    above = (left, _MARGIN + _TITLE_SIZE / 2)
    draw.text(above, "predicted class", font=title, anchor="lm", fill=INK, stroke_width=BOLD)
    beside = (_MARGIN + _TITLE_SIZE / 2, top + title.getlength("true class"))
    _draw_turned(canvas, beside, "true class", _TITLE_SIZE, BOLD)
    _draw_scale(canvas, (left, top + side + _BAR_GAP), matrix)
    return canvas


def _shades(matrix: ConfusionMatrix, size: int) -> NDArray[np.uint8]:
    """Return [size, size], 0 for none: the root of each share, so that few photographs show."""
    shares = matrix.counts / matrix.row_sums[matrix.true]
    shades = np.zeros((size, size))
    places = (at * size // len(matrix.labels) for at in (matrix.true, matrix.predicted))
    np.maximum.at(shades, tuple(places), _shade(shares))
    return np.round(shades).astype(np.uint8)


def _shade(share: NDArray[np.float64]) -> NDArray[np.float64]:
    return _FAINTEST + (255 - _FAINTEST) * np.sqrt(share)


def _colours() -> NDArray[np.uint8]:
    """Return [256, 3]: the colour of each shade."""
    anchors = np.array([list(bytes.fromhex(one[1:])) for one in _ANCHORS], float)
    places, shades = np.linspace(0, 255, len(anchors)), np.arange(256)
    mixed = [np.interp(shades, places, channel) for channel in anchors.T]
    return np.round(mixed).T.astype(np.uint8)


def _name_size(cell: int) -> int:
    return min(_LABEL_SIZE, cell - 2) if cell >= _LABELLED else _QUIET_SIZE


def _names(matrix: ConfusionMatrix, cell: int) -> list[tuple[float, str]]:
    """Return what stands beside rows and columns, each with its distance from the corner."""
    if cell >= _LABELLED:
        font = built_in_font(_name_size(cell))
        shown = [drawable(display_name(label)) for label in matrix.labels]
        return [
            ((place + 0.5) * cell, shortened(name, font, _LABEL_WIDTH))
            for place, name in enumerate(shown)
        ]
    size = len(matrix.labels)
    pitch = min(size, _SIDE) * cell / size
    step = next(step for step in (20, 50, 100, 200, 500, 1000, 5000, size) if step * pitch >= 80)
    return [((at + 0.5) * pitch, f"{matrix.outputs[at]}") for at in range(0, size, step)]


def _draw_names(
    canvas: Image.Image, corner: tuple[int, int], cell: int, names: list[tuple[float, str]]
) -> None:
    """Write names left of the rows and, turned, above the columns."""
    left, top = corner
    draw = ImageDraw.Draw(canvas)
    size, off = _name_size(cell), _GAP
    for distance, name in names:
        if cell < _LABELLED:
            x, y = round(left + distance), round(top + distance)
            draw.line((left - 2 - _TICK, y, left - 3, y), fill=QUIET, width=2)
            draw.line((x, top - 2 - _TICK, x, top - 3), fill=QUIET, width=2)
            off = _GAP + _TICK
        font = built_in_font(size)
        draw.text((left - off, top + distance), name, font=font, anchor="rm", fill=INK)
        _draw_turned(canvas, (left + distance, top - off), name, size)


def _draw_turned(
    canvas: Image.Image, foot: tuple[float, float], text: str, size: int, stroke: float = 0.0
) -> None:
    """Write upwards, centred on x = `foot[0]`, beginning at y = `foot[1]`."""
    font = built_in_font(size)
    mask = Image.new("L", (round(font.getlength(text)) + 4, 2 * size))
    middle = (2, size)
    ImageDraw.Draw(mask).text(middle, text, font=font, anchor="lm", fill=255, stroke_width=stroke)
    upright = mask.transpose(Image.Transpose.ROTATE_90)
    place = round(foot[0] - upright.width / 2), round(foot[1] - upright.height)
    canvas.paste(Image.new("RGB", upright.size, INK), place, mask=upright)


def _draw_counts(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    cell: int,
    matrix: ConfusionMatrix,
    shades: NDArray[np.uint8],
) -> None:
    font = built_in_font(min(_TITLE_SIZE, cell // 3))
    entries = zip(matrix.true.tolist(), matrix.predicted.tolist(), matrix.counts, strict=True)
    for row, column, count in entries:
        middle = corner[0] + (column + 0.5) * cell, corner[1] + (row + 0.5) * cell
        ink = PAPER if shades[row, column] >= _WHITE_INK_FROM else INK
        draw.text(middle, f"{count:,}", font=font, anchor="mm", fill=ink)


def _draw_scale(canvas: Image.Image, corner: tuple[int, int], matrix: ConfusionMatrix) -> None:
    """Draw the colours with the shares that they stand for, and what the matrix holds."""
    left, top = corner
    draw = ImageDraw.Draw(canvas)
    font = built_in_font(_QUIET_SIZE)
    what = "share of the true class; white: none"
    draw.text((left, top), what, font=font, anchor="ls", fill=QUIET)
    top += 12
    shades = np.linspace(_FAINTEST, 255, _BAR_WIDTH).round().astype(np.uint8)
    bar = np.broadcast_to(_colours()[shades], (_BAR_HEIGHT, _BAR_WIDTH, 3))
    canvas.paste(Image.fromarray(np.ascontiguousarray(bar)), (left, top))
    frame = (left - 1, top - 1, left + _BAR_WIDTH, top + _BAR_HEIGHT)
    draw.rectangle(frame, outline=FRAME)
    below = top + _BAR_HEIGHT
    for share in _TICKS:
        x = left + round(share**0.5 * (_BAR_WIDTH - 1))
        draw.line((x, below, x, below + 5), fill=QUIET)
        draw.text((x, below + 8), f"{share:.0%}", font=font, anchor="mt", fill=QUIET)
    counts = f"photographs: {matrix.counts.sum():,}; classes: {len(matrix.labels):,}"
    draw.text((left, below + 2.5 * _QUIET_SIZE), counts, font=font, anchor="lt", fill=QUIET)
