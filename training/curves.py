"""`curves.png`: loss and accuracy of a run by epoch; the owner of matplotlib.

Two panels. Every line is labelled at its end, in its own colour, with its last value; the colours
are Okabe and Ito's, which colour-blind people can tell apart. The picture does not depend on the
user's own matplotlib style.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

from alexnet_deploy.errors import MissingPackageError
from alexnet_deploy.files.output_files import atomic_write
from alexnet_deploy.files.path_text import printable
from training.epoch_log import EpochRecord

try:
    from matplotlib import style
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter
except ImportError as error:
    raise MissingPackageError("matplotlib", "train", "drawing the curves of training") from error

CURVES_NAME = "curves.png"
"""Name of the picture in the folder of a run."""

_WIDTH, _HEIGHT, _DPI = 10.0, 4.4, 200  # inches; 2000 x 880 px
_INK, _QUIET, _FAINT = "#1c1f24", "#5f6570", "#c9ced6"
_BLUE, _VERMILION, _GREEN, _PURPLE = "#0072b2", "#d55e00", "#009e73", "#b0568f"
_LABEL_GAP = 0.06
"""Smallest distance between two labels at the ends of lines, as a share of the panel's height."""
_MAX_MARKED_RATES = 6
"""A learning rate that changes more often is drawn as a curve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    name: str
    field: str
    colour: str
    dashes: str = "-"


_LOSSES = (
    _Line(name="validation", field="val_loss", colour=_BLUE),
    _Line(name="training", field="train_loss", colour=_VERMILION),
)
_ACCURACIES = (
    _Line(name="top-5", field="val_top5", colour=_GREEN),
    _Line(name="top-1", field="val_top1", colour=_BLUE),
    _Line(name="mean of classes", field="val_mean_class_top1", colour=_PURPLE),
    _Line(name="training crops", field="train_top1", colour=_VERMILION, dashes=":"),
)


def draw_curves(
    records: Sequence[EpochRecord], path: Path, *, title: str, num_classes: int
) -> None:
    """Draw `curves_figure` into a PNG file of 2000 x 880 px.

    Raises:
        OutputError: the file cannot be written; an earlier one is left as it was.
    """
    figure = curves_figure(records, title=title, num_classes=num_classes)
    with atomic_write(path) as file, style.context("default"), warnings.catch_warnings():
        # A title may have glyphs that the font lacks; each is drawn as an empty box.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(file, format="png", dpi=_DPI)


def curves_figure(records: Sequence[EpochRecord], *, title: str, num_classes: int) -> Figure:
    """Return the figure: loss on the left, accuracy on the right, the best epoch ringed.

    Args:
        records: one or more, in epoch order.
        title: one line, of any characters.
        num_classes: K; a dashed line marks ln K, the loss of guessing.
    """
    with style.context("default"):
        figure = Figure(figsize=(_WIDTH, _HEIGHT))
        figure.subplots_adjust(left=0.045, right=0.838, bottom=0.115, top=0.8, wspace=0.46)
        figure.text(0.014, 0.965, printable(title), color=_INK, size=12, va="top", parse_math=False)
        figure.text(0.014, 0.9, _summary(records), color=_QUIET, size=8.5, va="top")
        loss, accuracy = figure.subplots(1, 2)
        _prepare(loss, records, "Loss")
        validated = any(record.val_top1 is not None for record in records)
        _prepare(accuracy, records, f"Accuracy {'on validation' if validated else 'in training'}")
        largest = max(_values(records, _LOSSES), default=0.0)
        loss.set_ylim(0, 1.12 * max(largest, math.log(num_classes)) or 1.0)
        _mark_ln_k(loss, num_classes)
        accuracy.set_ylim(0, 1)
        accuracy.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        for axes in (loss, accuracy):
            _mark_rates(axes, records)
        _label_rates(loss, records, top=0.97 * math.log(num_classes))
        _draw_lines(loss, records, _LOSSES, "{:.2f}")
        _draw_lines(accuracy, records, _ACCURACIES, "{:.1%}")
    return figure


def _summary(records: Sequence[EpochRecord]) -> str:
    """Say in one line how far the run has come and which epoch was best."""
    best = _best(records)
    text = f"{records[-1].epoch} epochs, {records[-1].step:,} steps"
    if best is None:
        return text
    return (
        f"{text}; best (ringed) epoch {best.epoch}: top-1 {best.val_top1:.1%}, "
        f"top-5 {best.val_top5:.1%}, mean of classes {best.val_mean_class_top1:.1%}"
    )


def _best(records: Sequence[EpochRecord]) -> EpochRecord | None:
    """Return the last record marked as the best so far."""
    return next((record for record in reversed(records) if record.best), None)


def _values(records: Sequence[EpochRecord], lines: Sequence[_Line]) -> list[float]:
    values = (getattr(record, line.field) for record in records for line in lines)
    return [value for value in values if value is not None]


def _prepare(axes: Axes, records: Sequence[EpochRecord], name: str) -> None:
    axes.set_title(name, loc="left", size=10, color=_INK, pad=8)
    axes.set_xlabel("epoch", size=9, color=_QUIET)
    axes.set_xlim(0, max(1, records[-1].epoch))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=8, colors=_QUIET, color=_FAINT)
    axes.grid(axis="y", color=_FAINT, linewidth=0.5, alpha=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)


def _mark_ln_k(axes: Axes, num_classes: int) -> None:
    height = math.log(num_classes)
    axes.axhline(height, color=_QUIET, linewidth=0.9, linestyle=(0, (5, 3)), label="ln K")
    axes.annotate(
        f"ln {num_classes} = {height:.2f}, the loss of guessing",
        (0.03, height),
        xycoords=axes.get_yaxis_transform(),
        xytext=(0, 2),
        textcoords="offset points",
        size=7.5,
        color=_QUIET,
    )


def _rate_changes(records: Sequence[EpochRecord]) -> list[tuple[int, float]]:
    """Return the epochs after which the learning rate changed, and the new rates."""
    trained = [record for record in records if record.epoch > 0]
    return [
        (before.epoch, after.learning_rate)
        for before, after in pairwise(trained)
        if after.learning_rate != before.learning_rate
    ]


def _mark_rates(axes: Axes, records: Sequence[EpochRecord]) -> None:
    """Mark changes of the rate with dotted lines or, if it changes often, fill its curve."""
    changes = _rate_changes(records)
    if len(changes) <= _MAX_MARKED_RATES:
        for epoch, _ in changes:
            axes.axvline(epoch, color=_QUIET, linewidth=0.7, linestyle=(0, (1, 2)), label="rate")
        return
    trained = [record for record in records if record.epoch > 0]
    highest = max(record.learning_rate for record in trained)
    heights = [0.14 * record.learning_rate / highest for record in trained]
    epochs = [record.epoch for record in trained]
    transform = axes.get_xaxis_transform()
    axes.fill_between(
        epochs, heights, color=_FAINT, alpha=0.45, linewidth=0, transform=transform, label="rate"
    )


def _label_rates(axes: Axes, records: Sequence[EpochRecord], *, top: float) -> None:
    changes = _rate_changes(records)
    if len(changes) > _MAX_MARKED_RATES:
        highest = max(record.learning_rate for record in records if record.epoch > 0)
        axes.text(
            0.02,
            0.02,
            f"learning rate, at most {highest:g}",
            transform=axes.transAxes,
            size=7.5,
            color=_QUIET,
        )
        return
    for epoch, rate in changes:
        axes.annotate(
            f"rate {rate:g}",
            (epoch, top),
            xytext=(-1, 0),
            textcoords="offset points",
            ha="right",
            va="top",
            rotation=90,
            size=7,
            color=_QUIET,
        )


def _draw_lines(
    axes: Axes, records: Sequence[EpochRecord], lines: Sequence[_Line], form: str
) -> None:
    """Draw each line that has values, ringed at the best epoch and labelled at its end."""
    best = _best(records)
    ends: list[tuple[float, _Line]] = []
    for line in lines:
        known = [record for record in records if getattr(record, line.field) is not None]
        if not known:
            continue
        epochs = [record.epoch for record in known]
        values = [getattr(record, line.field) for record in known]
        axes.plot(
            epochs,
            values,
            color=line.colour,
            linestyle=line.dashes,
            linewidth=1.6,
            marker="o" if len(known) == 1 else None,
            markersize=4,
            clip_on=False,
            label=line.name,
        )
        if best in known and line.field.startswith("val_"):
            height = getattr(best, line.field)
            axes.plot(
                best.epoch,
                height,
                "o",
                color=line.colour,
                markerfacecolor="white",
                markersize=6,
                markeredgewidth=1.6,
                clip_on=False,
                label="best",
            )
        ends.append((values[-1], line))
    _label_ends(axes, ends, form)


def _label_ends(axes: Axes, ends: Sequence[tuple[float, _Line]], form: str) -> None:
    """Label each line with its name and last value, right of the panel, without overlaps."""
    ends = sorted(ends, key=lambda end: end[0])
    top = axes.get_ylim()[1]
    heights = _spread([value / top for value, _ in ends], _LABEL_GAP)
    for height, (value, line) in zip(heights, ends, strict=True):
        axes.annotate(
            f"{line.name} {form.format(value)}",
            (1, height),
            xycoords="axes fraction",
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            size=8.5,
            color=line.colour,
        )


def _spread(heights: Sequence[float], gap: float) -> list[float]:
    """Spread ascending heights until each is `gap` above the previous one and none is below 0.

    Where there is room, they move up as far as down.
    """

    def above(below: float, own: float) -> float:
        return max(own, below + gap)

    pushed_up = accumulate(heights, above)
    pushed_down = accumulate(reversed(heights), lambda above, own: min(own, above - gap))
    pairs = zip(pushed_up, reversed(list(pushed_down)), strict=True)
    return list(accumulate((max(0.0, (up + down) / 2) for up, down in pairs), above))
