"""How many pixels a photograph may have, in this process."""

from PIL import Image

from alexnet_deploy.errors import ArgumentError

DEFAULT_MEGAPIXELS = 2 * 89_478_485 / 1e6
"""179, Pillow's own limit."""

# What is refused is named with one decimal.
_FEWEST_MEGAPIXELS, _MOST_MEGAPIXELS = 0.1, 10_000


class _PixelLimit:
    """The limit in px, as `limit_megapixels` has set it."""

    limit = round(DEFAULT_MEGAPIXELS * 1e6)


PIXELS = _PixelLimit()
"""Larger photographs are refused before they are decoded."""


def limit_megapixels(max_megapixels: float = DEFAULT_MEGAPIXELS) -> None:
    """Limit the size at which photographs are decoded, for the rest of the process.

    Above Pillow's own limit, which is the default, this raises that, too. How much memory they take
    is another matter: see `memory.limit_decoded_memory`.

    Args:
        max_megapixels: in millions of pixels, 0.1 to 10,000.

    Raises:
        ArgumentError: it is no such number.
    """
    try:
        limit = float(max_megapixels)
    except (TypeError, ValueError):
        limit = 0.0
    if not _FEWEST_MEGAPIXELS <= limit <= _MOST_MEGAPIXELS:
        expected = f"a number from {_FEWEST_MEGAPIXELS} to {_MOST_MEGAPIXELS:,}"
        raise ArgumentError("max_megapixels", max_megapixels, expected)
    PIXELS.limit = round(limit * 1e6)
    # Pillow warns above its limit, and refuses above twice that.
    if Image.MAX_IMAGE_PIXELS is not None and PIXELS.limit > 2 * Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = PIXELS.limit
