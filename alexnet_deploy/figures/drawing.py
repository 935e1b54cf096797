"""Drawing primitives of figures and sheets: colours, fitted text, photographs in boxes.

Sizes are in px, for print or screens of 200 px per inch. The font is Pillow's built-in one, so that
output is the same on every machine; it covers ASCII and little else.
"""

import unicodedata
from dataclasses import dataclass
from functools import cache

from PIL import Image, ImageDraw, ImageFont

from alexnet_deploy.files.path_text import printable
from alexnet_deploy.photographs.colour import to_srgb

INK, QUIET, PAPER = "#1c1f24", "#757b85", "#ffffff"
TRACK = "#f3f5f8"
FRAME, FAILED, FAILED_INK = "#dfe3e8", "#faf1f0", "#a32219"
BOLD = 0.5
"""Stroke width that makes letters bold: the font has no bold face."""

_NO_LETTER = "\uffff"  # in no font, so drawn as the empty box
_FAILURE_MARGIN, _FAILURE_SPACING = 20, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle to draw in, in px."""

    left: int
    top: int
    width: int
    height: int

    @property
    def corners(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom; the last two are inclusive, as Pillow expects."""
        return self.left, self.top, self.left + self.width - 1, self.top + self.height - 1


@cache
def built_in_font(size: int) -> ImageFont.FreeTypeFont:
    """Return Pillow's built-in font, `size` px high."""
    font = ImageFont.load_default(size=size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise AssertionError("Pillow was built without FreeType")
    return font


def shortened(text: str, font: ImageFont.FreeTypeFont, width: int, *, tail: float = 0.0) -> str:
    """Return `text`, truncated with an ellipsis if wider than `width` px.

    Args:
        text: one line, of any length.
        font: that it will be drawn with.
        width: px.
        tail: share of the kept text taken from the end; 0 truncates there.
    """
    # At most one character per px can fit; measuring a name of a million would take seconds.
    if len(text) <= width and font.getlength(text) <= width:
        return text
    for num_kept in range(min(len(text), width), 0, -1):
        num_last = round(num_kept * tail)
        cut = f"{text[: num_kept - num_last].rstrip()}...{text[len(text) - num_last :].lstrip()}"
        if font.getlength(cut) <= width:
            return cut
    return "..."


def wrapped(text: str, font: ImageFont.FreeTypeFont, width: int, *, max_lines: int) -> list[str]:
    """Break `text` into at most `max_lines` lines of `width` px."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    lines = [shortened(line, font, width) for line in lines if line]
    if len(lines) > max_lines:
        lines = [*lines[: max_lines - 1], "..."]
    return lines


def drawable(text: str) -> str:
    """Return `text` as the built-in font can draw it, unchanged if it has all the letters.

    A missing letter loses its accents; one missing without them too becomes U+FFFF, which is drawn
    as the usual empty box for a missing glyph.
    """
    composed = unicodedata.normalize("NFC", text)
    return "".join(char if _has_glyph(char) else _plain(char) for char in composed)


def fitted(
    photograph: Image.Image,
    width: int,
    height: int,
    *,
    enlarge: bool = True,
    max_ratio: float | None = None,
) -> Image.Image:
    """Return the whole photograph in sRGB, scaled to fit `width` x `height` px, not distorted.

    Args:
        photograph: of any size.
        width: px.
        height: px.
        enlarge: False keeps a smaller one at its size.
        max_ratio: if its aspect ratio exceeds this, only the middle is shown, because the whole
            would be a line.
    """
    longest = max_ratio * min(photograph.size) if max_ratio else max(photograph.size)
    taken = [min(side, longest) for side in photograph.size]
    scale = min(width / taken[0], height / taken[1])
    if not enlarge:
        scale = min(scale, 1.0)
    size = (max(1, round(taken[0] * scale)), max(1, round(taken[1] * scale)))
    left, top = ((side - part) / 2 for side, part in zip(photograph.size, taken, strict=True))
    box = (left, top, left + taken[0], top + taken[1])
    small = photograph.resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=2.0)
    return to_srgb(small)


def paste_photograph(
    canvas: Image.Image, box: Box, photograph: Image.Image, *, max_ratio: float | None = None
) -> None:
    """Fit a photograph into its box, centred on a neutral background; see `fitted`."""
    ImageDraw.Draw(canvas).rectangle(box.corners, fill=TRACK)
    small = fitted(photograph, box.width, box.height, max_ratio=max_ratio)
    left, top = (box.width - small.width) // 2, (box.height - small.height) // 2
    canvas.paste(small, (box.left + left, box.top + top))


def draw_failure(
    canvas: Image.Image, box: Box, reason: str, font: ImageFont.FreeTypeFont, *, max_lines: int
) -> None:
    """Draw a box with the reason instead of a photograph."""
    draw = ImageDraw.Draw(canvas)
    draw.rectangle(box.corners, fill=FAILED, outline=FRAME, width=2)
    width = box.width - 2 * _FAILURE_MARGIN
    draw.multiline_text(
        (box.left + box.width / 2, box.top + box.height / 2),
        "\n".join(wrapped(printable(reason), font, width, max_lines=max_lines)),
        font=font,
        anchor="mm",
        align="center",
        fill=FAILED_INK,
        spacing=_FAILURE_SPACING,
    )


def _plain(char: str) -> str:
    """Return the base letters of a character without a glyph, without accents."""
    parts = unicodedata.normalize("NFKD", char)
    letters = "".join(part for part in parts if not unicodedata.combining(part))
    return letters if all(map(_has_glyph, letters)) else _NO_LETTER


@cache
def _has_glyph(char: str) -> bool:
    font = built_in_font(16)
    return bytes(font.getmask(char)) != bytes(font.getmask(_NO_LETTER))
