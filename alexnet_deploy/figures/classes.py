"""Draw photographs with their most likely classes, as in Krizhevsky et al. 2012, figure 4 left.

Below each photograph stand the class that its folder is named after (else its file name), and one
bar per class, proportional to its probability; the bar of the true class is red. Sizes are in px,
as in `drawing`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageDraw

from alexnet_deploy.errors import PhotographError
from alexnet_deploy.figures.drawing import (
    BOLD,
    INK,
    PAPER,
    QUIET,
    TRACK,
    Box,
    built_in_font,
    draw_failure,
    paste_photograph,
    shortened,
)
from alexnet_deploy.figures.loading import load_drawn
from alexnet_deploy.figures.png_files import open_png
from alexnet_deploy.files.path_text import printable
from alexnet_deploy.inference.classification import Classification, Prediction
from alexnet_deploy.model.labels import imagenet_names
from alexnet_deploy.model.spec import ModelSpec

MAX_PHOTOGRAPHS = 64
NUM_BARS = 5

_PHOTO_WIDTH, _PHOTO_HEIGHT = 340, 256  # 4:3, like most photographs
_MARGIN, _GAP_X, _GAP_Y = 48, 40, 52
_NAME_HEIGHT = 50
_BAR_HEIGHT, _BAR_PITCH, _BAR_INDENT = 30, 36, 10
_CELL_HEIGHT = _PHOTO_HEIGHT + _NAME_HEIGHT + NUM_BARS * _BAR_PITCH
_LEGEND_HEIGHT = 60
_NAME_SIZE, _LABEL_SIZE, _LEGEND_SIZE = 25, 21, 19
_PERCENT_WIDTH = 54
_BAR_WIDTH = _PHOTO_WIDTH - _PERCENT_WIDTH
_ASPECT = 1.4  # aspect ratio that the grid approximates

_BAR, _TRUE_BAR = "#b9cfe8", "#f0958c"
_REASON_LINES = 6


@contextmanager
def open_figure(
    path: Path,
    spec: ModelSpec,
    notify: Callable[[str], None] = lambda _: None,
    *,
    in_memory: bytes = b"",
) -> Iterator[Callable[[Classification], None]]:
    """Yield a function that adds one photograph; on exit the figure is drawn and written as PNG.

    Args:
        path: the file; a missing folder or permission fails before the first photograph.
        spec: as for `draw_figure`.
        notify: called if there were more than `MAX_PHOTOGRAPHS`, of which the first are drawn.
        in_memory: as for `draw_figure`.

    Raises:
        UsageError: `path` is a file that this package did not draw.
        OutputError: the file cannot be written.
    """
    results: list[Classification] = []
    num_added = 0

    def add(result: Classification) -> None:
        nonlocal num_added
        num_added += 1
        if len(results) < MAX_PHOTOGRAPHS:
            results.append(result)

    with open_png(path) as save:
        yield add
        save(draw_figure(results, spec, in_memory=in_memory))
    if num_added > len(results):
        notify(f"{path}: shows the first {len(results)} of {num_added:,} photographs")


def draw_figure(
    results: Sequence[Classification], spec: ModelSpec, *, in_memory: bytes = b""
) -> Image.Image:
    """Draw a grid of photographs, each with its most likely classes.

    Args:
        results: 1 to `MAX_PHOTOGRAPHS`, drawn left to right, each with its first `NUM_BARS`
            predictions. The photographs are read again; one that cannot be read becomes a box with
            the reason.
        spec: its labels tell which folders are classes, by name or by WNID.
        in_memory: the bytes of the photograph that has no path.
    """
    num_columns = _num_columns(len(results))
    num_rows = math.ceil(len(results) / num_columns)
    pitch_x, pitch_y = _PHOTO_WIDTH + _GAP_X, _CELL_HEIGHT + _GAP_Y
    has_truth = any(_true_label(result, spec) for result in results)
    width = 2 * _MARGIN + num_columns * pitch_x - _GAP_X
    height = 2 * _MARGIN + num_rows * pitch_y - _GAP_Y + (_LEGEND_HEIGHT if has_truth else 0)
    canvas = Image.new("RGB", (width, height), PAPER)
    for position, result in enumerate(results):
        row, column = divmod(position, num_columns)
        corner = (_MARGIN + column * pitch_x, _MARGIN + row * pitch_y)
        _draw_cell(canvas, corner, result, spec, in_memory)
    if has_truth:
        _draw_legend(canvas)
    return canvas


def _num_columns(num_photographs: int) -> int:
    """Return the columns that bring the grid nearest to `_ASPECT`, preferring full rows."""

    def strangeness(columns: int) -> float:
        rows = math.ceil(num_photographs / columns)
        aspect = columns * (_PHOTO_WIDTH + _GAP_X) / (rows * (_CELL_HEIGHT + _GAP_Y))
        return abs(math.log(aspect / _ASPECT)) + (rows * columns - num_photographs) / columns / 2

    return min(range(1, num_photographs + 1), key=strangeness)


def _true_label(result: Classification, spec: ModelSpec) -> str | None:
    """Return the class of the photograph's folder: its name, or its WNID as in ImageNet's."""
    folder = "" if result.path is None else result.path.parent.name
    name = imagenet_names().get(folder, folder)
    return name if name in spec.labels else None


def _draw_cell(
    canvas: Image.Image,
    corner: tuple[int, int],
    result: Classification,
    spec: ModelSpec,
    in_memory: bytes,
) -> None:
    left, top = corner
    error = result.error
    try:
        photograph = load_drawn(result.path or in_memory) if error is None else None
    except PhotographError as late:
        photograph, error = None, str(late)
    box = Box(left=left, top=top, width=_PHOTO_WIDTH, height=_PHOTO_HEIGHT)
    if photograph is None:
        font = built_in_font(_LABEL_SIZE)
        draw_failure(canvas, box, error or "", font, max_lines=_REASON_LINES)
    else:
        paste_photograph(canvas, box, photograph)
    truth = _true_label(result, spec)
    draw = ImageDraw.Draw(canvas)
    _draw_name(
        draw, (left + _PHOTO_WIDTH / 2, top + _PHOTO_HEIGHT + _NAME_HEIGHT / 2), result, truth
    )
    y = top + _PHOTO_HEIGHT + _NAME_HEIGHT
    for prediction in result.predictions[:NUM_BARS]:
        _draw_bar(draw, (left, y), prediction, is_true=prediction.label == truth)
        y += _BAR_PITCH


def _draw_name(
    draw: ImageDraw.ImageDraw,
    middle: tuple[float, float],
    result: Classification,
    truth: str | None,
) -> None:
    """Write the true class in bold, or the file's name where the class is not known."""
    font = built_in_font(_NAME_SIZE)
    name = (
        "standard input"
        if result.path is None
        else printable(result.path.name)
        if truth is None
        else display_name(truth)
    )
    text = shortened(name, font, _PHOTO_WIDTH)
    ink, stroke = (QUIET, 0.0) if truth is None else (INK, BOLD)
    draw.text(middle, text, font=font, anchor="mm", fill=ink, stroke_width=stroke)


def _draw_bar(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], prediction: Prediction, *, is_true: bool
) -> None:
    """Draw a bar proportional to the probability, the label over it, percentage at the right."""
    left, top = corner
    bottom, middle = top + _BAR_HEIGHT - 1, top + _BAR_HEIGHT / 2
    draw.rectangle((left, top, left + _BAR_WIDTH - 1, bottom), fill=TRACK)
    length = round(prediction.probability * _BAR_WIDTH)
    if length:
        colour = _TRUE_BAR if is_true else _BAR
        draw.rectangle((left, top, left + length - 1, bottom), fill=colour)
    font = built_in_font(_LABEL_SIZE)
    label = shortened(display_name(prediction.label), font, _BAR_WIDTH - 2 * _BAR_INDENT)
    stroke = BOLD if is_true else 0.0
    for x, anchor, text in (
        (left + _BAR_INDENT, "lm", label),
        (left + _PHOTO_WIDTH - 1, "rm", percent(prediction.probability)),
    ):
        draw.text((x, middle), text, font=font, anchor=anchor, fill=INK, stroke_width=stroke)


def _draw_legend(canvas: Image.Image) -> None:
    draw = ImageDraw.Draw(canvas)
    font = built_in_font(_LEGEND_SIZE)
    x, middle = _MARGIN, canvas.height - _MARGIN
    for colour, text in ((_TRUE_BAR, "the true class"), (_BAR, "other classes")):
        draw.rectangle((x, middle - 9, x + 26, middle + 9), fill=colour)
        draw.text((x + 36, middle), text, font=font, anchor="lm", fill=QUIET)
        x += round(36 + font.getlength(text) + 32)


def display_name(name: str) -> str:
    """Return the display name of a class."""
    return printable(name.replace("_", " "))


def percent(probability: float) -> str:
    """Return a probability as it is displayed; only none at all shows 0."""
    return "<1%" if probability < 0.005 else f"{probability:.0%}"
