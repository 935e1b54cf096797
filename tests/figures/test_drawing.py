"""What pictures are drawn with: text that fits its place, photographs that fit their box."""

import unicodedata

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from alexnet_deploy.figures.drawing import (
    INK,
    PAPER,
    Box,
    built_in_font,
    draw_failure,
    drawable,
    fitted,
    shortened,
    wrapped,
)

FONT = built_in_font(21)


@given(st.text(st.characters(codec="ascii"), max_size=300), st.integers(40, 400))
@example("000.", 40)
def test_shortened_text_fits_and_keeps_its_ends(text: str, width: int) -> None:
    for tail in (0.0, 0.5):
        short = shortened(text, FONT, width, tail=tail)
        assert FONT.getlength(short) <= width
        if short != text:
            # A text with full stops of its own may be read in several ways.
            places = [place for place in range(len(short)) if short.startswith("...", place)]
            halves = [(short[:place], short[place + 3 :]) for place in places]
            assert any(text.startswith(head) and text.endswith(end) for head, end in halves)


def test_a_long_name_keeps_as_much_of_its_end_as_of_its_beginning() -> None:
    name = f"IMG_{'0' * 250}_edit.jpg"
    head, end = shortened(name, FONT, 216, tail=0.5).split("...")
    assert abs(len(head) - len(end)) <= 1
    assert shortened(name, FONT, 216).endswith("0...")
    assert shortened("W" * 10**6, FONT, 60, tail=0.5) == "W...W"


def test_wrapped_lines_fit_and_what_is_too_much_is_an_ellipsis() -> None:
    lines = wrapped("damaged or cut short; " * 20, FONT, 200, max_lines=4)
    assert len(lines) == 4
    assert lines[-1] == "..."
    assert all(FONT.getlength(line) <= 200 for line in lines)
    assert wrapped("two words", FONT, 400, max_lines=1) == ["two words"]
    assert wrapped("", FONT, 400, max_lines=1) == []


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("Leopards/image_0001.jpg \\xff", "Leopards/image_0001.jpg \\xff"),
        ("caf\xe9 \xdcbung", "cafe Ubung"),
        (unicodedata.normalize("NFD", "caf\xe9"), "cafe"),
        ("\u2116 7", "No 7"),
        ("\u5199\u771f001", "\uffff\uffff001"),
        ("\ud55c", "\uffff"),  # falls apart into letters that the font lacks as well
        ("", ""),
    ],
)
def test_accents_go_and_letters_that_the_font_lacks_are_boxes(text: str, drawn: str) -> None:
    assert drawable(text) == drawn


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((2000, 1000), (200, 100)),
        ((1000, 2000), (75, 150)),
        ((10, 5), (200, 100)),
        ((1, 1), (150, 150)),
        ((3000, 20), (200, 25)),
        ((20, 3000), (19, 150)),  # 18.75
    ],
)
def test_a_photograph_is_as_large_as_its_box_allows(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert fitted(Image.new("RGB", size), 200, 150, max_ratio=8).size == expected


def test_a_small_photograph_can_stay_small_and_a_strip_whole() -> None:
    assert fitted(Image.new("RGB", (40, 30)), 200, 150, enlarge=False).size == (40, 30)
    assert fitted(Image.new("RGB", (400, 300)), 200, 150, enlarge=False).size == (200, 150)
    assert fitted(Image.new("RGB", (3000, 20)), 200, 150).size == (200, 1)


def test_of_a_strip_the_middle_is_taken() -> None:
    strip = Image.new("RGB", (900, 10), "black")
    strip.paste("white", (400, 0, 500, 10))
    seen = np.asarray(fitted(strip, 300, 300, max_ratio=10).convert("L"))
    assert seen.shape == (30, 300)
    # 10 px, threefold: Lanczos mixes in what lies up to 3 px of the strip beyond its end.
    assert seen[:, 9:-9].min() == 255
    assert seen.min() > 100


def test_a_reason_stays_in_its_box() -> None:
    canvas = Image.new("RGB", (300, 200), PAPER)
    box = Box(left=40, top=20, width=216, height=162)
    draw_failure(canvas, box, "cannot be read\n" * 30, FONT, max_lines=4)
    left, top, right, bottom = box.corners
    ImageDraw.Draw(canvas).rectangle(box.corners, fill=INK)
    assert len(canvas.getcolors() or []) == 2
    assert (right - left, bottom - top) == (215, 161)
