"""The figure: what is drawn where, read back from its pixels."""

import dataclasses
from pathlib import Path

import pytest
from PIL import Image, ImageColor

from alexnet_deploy.figures.classes import MAX_PHOTOGRAPHS, draw_figure, open_figure
from alexnet_deploy.inference.classification import Classification, Prediction
from tests.support.fake_runner import SPEC, save_photograph

TRUE_BAR, BAR = ImageColor.getrgb("#f0958c"), ImageColor.getrgb("#b9cfe8")


def result(path: Path, *probabilities: float) -> Classification:
    predictions = tuple(
        Prediction(label=SPEC.label(index), index=index, probability=probability)
        for index, probability in enumerate(probabilities)
    )
    return Classification(path=path, predictions=predictions)


def areas(figure: Image.Image) -> dict[object, int]:
    """Return how many px have each colour."""
    return {colour: n for n, colour in figure.getcolors(figure.width * figure.height) or []}


def count(figure: Image.Image, colour: tuple[int, ...]) -> int:
    return areas(figure)[colour]


@pytest.mark.parametrize("num_photographs", [1, 2, 3, 8, 40, MAX_PHOTOGRAPHS])
def test_every_photograph_is_drawn_and_the_grid_is_not_a_strip(
    tmp_path: Path, num_photographs: int
) -> None:
    colours = [(250, number, 7) for number in range(num_photographs)]
    paths = [save_photograph(tmp_path / f"{c[1]}.png", c) for c in colours]
    figure = draw_figure([result(path, 0.5) for path in paths], SPEC)
    assert figure.mode == "RGB"
    assert 0.4 < figure.width / figure.height < 3
    drawn = areas(figure)
    for colour in colours:
        # 40x30 px fill the box of 340x256 px but for a line.
        assert drawn[colour] > 0.98 * 340 * 255


def test_the_bar_of_the_true_class_is_red_and_as_long_as_its_probability(tmp_path: Path) -> None:
    path = save_photograph(tmp_path / "green" / "1.png", (9, 9, 9))
    half = draw_figure([result(path, 0.25, 0.5)], SPEC)
    full = draw_figure([result(path, 0.25, 1.0)], SPEC)
    other = draw_figure([result(path, 0.25, 0.0)], SPEC)
    legend = count(other, TRUE_BAR)
    ratio = (count(full, TRUE_BAR) - legend) / (count(half, TRUE_BAR) - legend)
    # The label covers the same part of both bars, so the longer is a bit more than twice.
    assert ratio == pytest.approx(2, rel=0.3)
    assert count(half, BAR) == count(full, BAR)


def test_a_folder_named_by_wnid_is_its_class_where_the_model_has_it(tmp_path: Path) -> None:
    path = save_photograph(tmp_path / "n01440764" / "1.png", (9, 9, 9))
    tench = Prediction(label="tench, Tinca tinca", index=0, probability=0.5)
    shown = Classification(path=path, predictions=(tench,))
    figure = draw_figure([shown], dataclasses.replace(SPEC, labels=(tench.label, "b", "c", "d")))
    assert count(figure, TRUE_BAR) > 0
    assert TRUE_BAR not in areas(draw_figure([shown], SPEC))


def test_without_a_known_class_nothing_is_red(tmp_path: Path) -> None:
    path = save_photograph(tmp_path / "holiday" / "1.png", (9, 9, 9))
    figure = draw_figure([result(path, 0.25, 0.5)], SPEC)
    assert TRUE_BAR not in {colour for _, colour in figure.getcolors(10**7) or []}


@pytest.mark.parametrize("size", [(1, 1), (3000, 1), (1, 3000), (400, 30)])
def test_photographs_of_odd_shapes_stay_in_their_box(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "odd.png"
    Image.new("RGB", size, (1, 200, 1)).save(path)
    plain = draw_figure([result(save_photograph(tmp_path / "p.png", (1, 1, 1)), 0.5)], SPEC)
    figure = draw_figure([result(path, 0.5)], SPEC)
    assert figure.size == plain.size
    assert 1 <= count(figure, (1, 200, 1)) <= 340 * 256


def test_failures_and_files_that_have_gone_are_boxes(tmp_path: Path) -> None:
    failed = Classification(path=tmp_path / "x\n.png", error="is empty " * 40)
    gone = result(tmp_path / "gone.png", 0.5)
    figure = draw_figure([failed, gone], SPEC)
    assert count(figure, ImageColor.getrgb("#faf1f0")) > 340 * 256


def test_names_of_any_length_and_any_probability_can_be_drawn(tmp_path: Path) -> None:
    path = save_photograph(tmp_path / ("n" * 200 + ".png"), (1, 1, 1))
    long = Prediction(label="great white shark, " * 5000, index=0, probability=1e-12)
    figure = draw_figure([Classification(path=path, predictions=(long,))], SPEC)
    white = ImageColor.getrgb("#ffffff")
    right_margin = figure.crop((figure.width - 40, 0, figure.width, figure.height))
    assert right_margin.getcolors() == [(40 * figure.height, white)]


def test_the_file_is_a_png_of_the_first_photographs_and_says_so(tmp_path: Path) -> None:
    path, said = save_photograph(tmp_path / "1.png", (1, 1, 1)), list[str]()
    with open_figure(tmp_path / "f.png", SPEC, said.append) as add:
        for _ in range(MAX_PHOTOGRAPHS + 1):
            add(result(path, 0.5))
    expected = draw_figure([result(path, 0.5)] * MAX_PHOTOGRAPHS, SPEC)
    with Image.open(tmp_path / "f.png") as image:
        assert image.format == "PNG"
        assert image.size == expected.size
    assert said == [f"{tmp_path / 'f.png'}: shows the first 64 of 65 photographs"]
