"""Whether one photograph was made of another, and how."""

import random
import string

import numpy as np
import pytest
from PIL import Image, ImageDraw

from alexnet_deploy.photographs.likeness import (
    ORIENTATIONS,
    SIDE,
    UPRIGHT,
    Orientation,
    colourfulness,
    greys_of,
    likeness,
    pixels_digest,
    read_thumbnail,
)
from alexnet_deploy.photographs.samples import varied_samples
from tests.support.edited import encoded, turned_picture

SAMPLES = varied_samples()[:6]
PICTURES = [Image.open(path).convert("RGB") for path in SAMPLES]


def greys(picture: Image.Image) -> np.ndarray:
    return greys_of(read_thumbnail(encoded(picture, quality=80)))


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
def test_a_turned_photograph_matches_all_of_the_other(orientation: Orientation) -> None:
    for picture in PICTURES:
        found = likeness(greys(picture), greys(turned_picture(picture, orientation)), orientation)
        assert found is not None
        assert found.is_match
        assert found.correlation > 0.99
        assert found.share == pytest.approx(1, abs=0.02)


def test_turning_back_is_the_inverse_of_turning() -> None:
    for orientation in ORIENTATIONS:
        there = turned_picture(PICTURES[0], orientation)
        assert turned_picture(there, orientation.inverse) == PICTURES[0]


@pytest.mark.parametrize(
    "kept", [(0.0, 0.0, 0.9, 0.9), (0.1, 0.05, 0.95, 1.0), (0.12, 0.0, 1.0, 1.0)]
)
def test_of_a_cut_photograph_the_share_is_found(kept: tuple[float, ...]) -> None:
    for picture in PICTURES:
        box = [round(at * size) for at, size in zip(kept, 2 * picture.size, strict=True)]
        left, top, right, bottom = box
        found = likeness(greys(picture), greys(picture.crop((left, top, right, bottom))), UPRIGHT)
        assert found is not None
        assert found.is_match
        area = (right - left) * (bottom - top) / (picture.width * picture.height)
        assert found.share == pytest.approx(area, abs=0.02)


def test_other_photographs_do_not_match() -> None:
    for number, first in enumerate(PICTURES):
        for other in PICTURES[:number]:
            found = likeness(greys(first), greys(other), UPRIGHT)
            assert found is None or found.correlation < 0.95


def page_of_text(seed: int) -> Image.Image:
    """Return a page whose words are its own, and whose lines are where any other's are."""
    draw = random.Random(seed)
    page = Image.new("RGB", (620, 877), "white")
    for line in range(40):
        words = (
            "".join(draw.choices(string.ascii_letters, k=draw.randint(2, 9))) for _ in range(9)
        )
        ImageDraw.Draw(page).text((60, 60 + 19 * line), " ".join(words), "black", font_size=14)
    return page


def test_pages_with_other_words_in_the_same_lines_do_not_match() -> None:
    first, *others = (greys(page_of_text(seed)) for seed in range(4))
    for other in others:
        found = likeness(first, other, UPRIGHT)
        assert found is None or not found.is_match


def test_what_is_flat_matches_nothing() -> None:
    flat = np.full((SIDE, SIDE), 128, np.uint8)
    noise = flat + np.random.default_rng(0).integers(0, 2, flat.shape, np.uint8)
    for one in (flat, noise):
        assert likeness(one, one, UPRIGHT) is None
        assert likeness(one, greys(PICTURES[0]), UPRIGHT) is None
        assert likeness(greys(PICTURES[0]), one, UPRIGHT) is None


def test_greys_have_no_colours() -> None:
    assert colourfulness(read_thumbnail(encoded(PICTURES[0].convert("L")))) == 0
    assert colourfulness(read_thumbnail(encoded(Image.new("RGB", (8, 8), (9, 5, 7)), "PNG"))) == 4


def test_the_digest_is_of_upright_pixels_and_nothing_else() -> None:
    picture = PICTURES[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    digest = pixels_digest(encoded(picture, "PNG"))
    assert pixels_digest(encoded(picture, "BMP")) == digest
    on_its_side = picture.transpose(Image.Transpose.ROTATE_90)
    assert pixels_digest(encoded(on_its_side, "PNG", exif=exif)) == digest
    assert pixels_digest(encoded(on_its_side, "PNG")) != digest
    changed = picture.copy()
    changed.putpixel((0, 0), (1, 2, 3))
    assert pixels_digest(encoded(changed, "PNG")) != digest
    wide, high = (Image.new("RGB", size, "red") for size in ((4, 2), (2, 4)))
    assert pixels_digest(encoded(wide, "PNG")) != pixels_digest(encoded(high, "PNG"))
