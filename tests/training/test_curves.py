"""The curves of a run: what is drawn, read back from the figure and from the file."""

import dataclasses
import math
import subprocess
import sys
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alexnet_deploy.errors import OutputError
from training.epoch_log import EpochRecord

matplotlib = pytest.importorskip("matplotlib", reason="drawing curves needs matplotlib")

from matplotlib.axes import Axes  # noqa: E402  after the check that it is there
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.text import Text  # noqa: E402

from tests.support.waiting import PATIENCE_S  # noqa: E402
from training.curves import curves_figure, draw_curves  # noqa: E402

NUM_CLASSES = 101
SIZE = (2000, 880)


def record(epoch: int, *, rate: float = 0.01, best: bool = False) -> EpochRecord:
    """Return an epoch of a run that learns, whose numbers all differ."""
    learned = 1 - math.exp(-epoch / 8)
    return EpochRecord(
        epoch=epoch,
        step=54 * epoch,
        learning_rate=rate,
        train_loss=4.5 - 4.2 * learned if epoch else None,
        train_top1=0.85 * learned if epoch else None,
        val_loss=4.615 - 3.2 * learned,
        val_top1=0.01 + 0.7 * learned,
        val_top5=0.05 + 0.85 * learned,
        val_mean_class_top1=0.01 + 0.55 * learned,
        images_per_second=70.0 if epoch else None,
        wall_s=90.0,
        num_skipped=0,
        best=best,
    )


def plateau_run() -> list[EpochRecord]:
    """Return 40 epochs with three divisions of the rate; the best is epoch 37."""
    divisions = (12, 25, 33)
    return [
        record(epoch, rate=0.01 / 10 ** sum(epoch > at for at in divisions), best=epoch in (5, 37))
        for epoch in range(41)
    ]


def one_cycle_run() -> list[EpochRecord]:
    return [record(epoch, rate=0.05 * math.sin(math.pi * epoch / 40)) for epoch in range(41)]


def drawn(records: list[EpochRecord], title: str = "a run") -> Figure:
    return curves_figure(records, title=title, num_classes=NUM_CLASSES)


def points(axes: Axes, label: str) -> list[tuple[float, float]]:
    """Return the points of the lines that go by `label`, one after the other."""
    lines = [line for line in axes.get_lines() if line.get_label() == label]
    arrays = [np.array(line.get_data(), np.float64) for line in lines]
    return [(float(x), float(y)) for array in arrays for x, y in array.T]


def texts(figure: Figure) -> list[Text]:
    """Return every text but the numbers of ticks that lie beyond the ends of their axis."""
    found = figure.findobj(Text)
    hidden = [
        tick.label1
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_major_ticks()
        if not axis.get_view_interval()[0] <= tick.get_loc() <= axis.get_view_interval()[1]
    ]
    return [text for text in found if text.get_text() and text not in hidden]


@pytest.mark.parametrize(
    ("panel", "label", "field"),
    [
        (0, "validation", "val_loss"),
        (0, "training", "train_loss"),
        (1, "top-5", "val_top5"),
        (1, "top-1", "val_top1"),
        (1, "mean of classes", "val_mean_class_top1"),
        (1, "training crops", "train_top1"),
    ],
)
def test_each_line_has_the_values_of_its_field(panel: int, label: str, field: str) -> None:
    records = plateau_run()
    expected = [(float(each.epoch), getattr(each, field)) for each in records]
    axes = drawn(records).axes[panel]
    assert points(axes, label) == [point for point in expected if point[1] is not None]
    assert len(points(axes, label)) == 41 - field.startswith("train")


def test_what_was_not_counted_has_no_line_and_no_label() -> None:
    uncounted = [dataclasses.replace(each, train_top1=None) for each in plateau_run()]
    figure = drawn(uncounted)
    assert points(figure.axes[1], "training crops") == []
    assert not any("training crops" in text.get_text() for text in texts(figure))


def test_a_run_without_validation_has_the_curves_of_training() -> None:
    fields = ("val_loss", "val_top1", "val_top5", "val_mean_class_top1")
    none: dict[str, Any] = {**dict.fromkeys(fields), "best": False}
    trained = [dataclasses.replace(each, **none) for each in plateau_run()]
    for records in (trained, trained[:1]):
        figure = drawn(records)
        loss, accuracy = figure.axes
        lines = {line.get_label() for axes in figure.axes for line in axes.get_lines()}
        expected = {"training", "training crops", "rate"} if len(records) > 1 else set()
        assert lines == {"ln K", *expected}
        assert accuracy.get_title("left") == "Accuracy in training"
        assert points(loss, "training") == [(each.epoch, each.train_loss) for each in records[1:]]


def test_the_loss_of_guessing_is_a_line_at_ln_k() -> None:
    (first, last) = points(drawn(plateau_run()).axes[0], "ln K")
    assert first[1] == last[1] == pytest.approx(4.61512, abs=1e-5)  # ln 101


def test_the_last_best_epoch_is_ringed_on_every_line_of_validation() -> None:
    records = plateau_run()
    loss, accuracy = drawn(records).axes
    best = records[37]
    assert points(loss, "best") == [(37, best.val_loss)]
    tops = [best.val_top5, best.val_top1, best.val_mean_class_top1]
    assert points(accuracy, "best") == [(37, top) for top in tops]
    none = [dataclasses.replace(each, best=False) for each in records]
    assert [points(axes, "best") for axes in drawn(none).axes] == [[], []]


def test_each_division_of_the_rate_is_a_line_after_its_epoch() -> None:
    figure = drawn(plateau_run())
    for axes in figure.axes:
        assert [x for x, _ in points(axes, "rate")][::2] == [12, 25, 33]
    named = [text.get_text() for text in texts(figure) if text.get_text().startswith("rate ")]
    assert named == ["rate 0.001", "rate 0.0001", "rate 1e-05"]


def test_a_rate_that_always_changes_is_an_area_with_its_highest_value() -> None:
    figure = drawn(one_cycle_run())
    for axes in figure.axes:
        assert points(axes, "rate") == []
        (area,) = axes.collections
        assert area.get_label() == "rate"
        outline = np.array(area.get_paths()[0].vertices)
        # Where the rate is highest, half-way.
        assert outline[np.argmax(outline[:, 1]), 0] == 20
    assert any("at most 0.05" in text.get_text() for text in texts(figure))


@pytest.mark.parametrize(
    "records",
    [
        plateau_run(),
        one_cycle_run(),
        [record(0, best=True)],
        [record(0), record(1, best=True)],
        [record(7)],
        [dataclasses.replace(record(9), val_top1=1, val_top5=1, val_mean_class_top1=1)],
        [dataclasses.replace(record(9), val_loss=92.25, train_loss=92.0)],
        [dataclasses.replace(record(9), train_top1=0, val_top1=0, val_mean_class_top1=0)],
    ],
    ids=["plateau", "one cycle", "epoch 0", "two", "epoch 7", "perfect", "exploded", "nothing"],
)
def test_no_text_lies_over_another_or_beyond_the_picture(records: list[EpochRecord]) -> None:
    figure = drawn(records)
    figure.draw_without_rendering()
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    assert len(boxes) > 12
    width, height = figure.bbox.width, figure.bbox.height
    for text, box in boxes:
        assert 0 <= box.x0 <= box.x1 <= width, text
        assert 0 <= box.y0 <= box.y1 <= height, text
    overlapping = [
        (one, other)
        for (one, box), (other, second) in combinations(boxes, 2)
        # Lines of text may touch: their boxes hold room for letters that they lack.
        if box.x0 < second.x1 - 1
        and second.x0 < box.x1 - 1
        and box.y0 < second.y1 - 2
        and second.y0 < box.y1 - 2
    ]
    assert overlapping == []


def test_labels_at_the_ends_are_in_the_order_of_the_values() -> None:
    figure = drawn(plateau_run())
    starts = ("top-5 ", "training crops ", "top-1 ", "mean of classes ")
    heights = [
        text.get_window_extent().y0
        for start in starts
        for text in texts(figure)
        if text.get_text().startswith(start) and text.axes is figure.axes[1]
    ]
    assert len(heights) == 4
    assert all(above > below for above, below in pairwise(heights))


def test_a_single_epoch_is_a_dot_that_can_be_seen() -> None:
    lines = [line for axes in drawn([record(3)]).axes for line in axes.get_lines()]
    named = [line for line in lines if line.get_label() in {"validation", "training", "top-1"}]
    assert [line.get_marker() for line in named] == ["o"] * 3


def test_the_file_is_a_png_of_the_stated_size_and_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    for records in ([record(0)], plateau_run()):
        draw_curves(records, path, title="a run", num_classes=NUM_CLASSES)
        with Image.open(path) as image:
            assert (image.format, image.size) == ("PNG", SIZE)
            picture = np.asarray(image.convert("RGB"))
    blue = (picture == (0x00, 0x72, 0xB2)).all(axis=2)
    assert blue[:, :1000].any()
    assert blue[:, 1000:].any()
    assert [each.name for each in tmp_path.iterdir()] == ["curves.png"]


@pytest.mark.parametrize("title", ["a$b$ \\frac{1} {x %s", "\u5199\u771f \u202e\n\x1b"])
def test_a_title_may_have_any_characters(tmp_path: Path, title: str) -> None:
    draw_curves([record(0)], tmp_path / "c.png", title=title, num_classes=NUM_CLASSES)
    assert (tmp_path / "c.png").stat().st_size > 10_000


def test_one_class_and_no_loss_can_be_drawn() -> None:
    nothing = dataclasses.replace(record(1), val_loss=0, train_loss=0)
    figure = curves_figure([nothing], title="one class", num_classes=1)
    assert figure.axes[0].get_ylim() == (0, 1)


def test_the_picture_does_not_depend_on_the_users_style_and_leaves_it(tmp_path: Path) -> None:
    draw_curves(plateau_run(), tmp_path / "a.png", title="a", num_classes=NUM_CLASSES)
    own = {"font.size": 30, "lines.linewidth": 9, "axes.facecolor": "red", "savefig.dpi": 30}
    with matplotlib.rc_context(own):
        before = dict(matplotlib.rcParams)
        draw_curves(plateau_run(), tmp_path / "b.png", title="a", num_classes=NUM_CLASSES)
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_folder_that_is_not_there_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="create its folder first"):
        draw_curves([record(0)], tmp_path / "no" / "c.png", title="a", num_classes=NUM_CLASSES)


def test_pyplot_and_its_windows_are_left_alone() -> None:
    code = "import sys, training.curves; print('matplotlib.pyplot' in sys.modules)"
    assert run_python(code) == "False\n"


def test_a_missing_matplotlib_names_the_install_line() -> None:
    """In a process of its own, where the import fails."""
    code = """
import sys
sys.modules["matplotlib"] = None
from alexnet_deploy.errors import MissingPackageError
try:
    import training.curves
except MissingPackageError as error:
    print(error)
"""
    assert "pip install 'alexnet-deploy[train]'" in run_python(code)


def run_python(code: str) -> str:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    return done.stdout
