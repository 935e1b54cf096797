"""From what Pillow makes of a photograph to RGB with 8 bits a channel."""

import numpy as np
from PIL import Image, TiffImagePlugin

from alexnet_deploy.errors import PhotographError
from alexnet_deploy.photographs.tiff_layouts import Layout, tiff_layout
from alexnet_deploy.photographs.unread_files import check_jpeg2000


def layout_of(image: Image.Image) -> Layout:
    """Return how the 16-bit greys of an opened image are to be read.

    Raises:
        PhotographError: Pillow would decode it to something else.
    """
    file = getattr(image, "fp", None)  # None once it is loaded
    if image.format == "JPEG2000" and file is not None:
        position = file.tell()
        check_jpeg2000(file)
        file.seek(position)
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return Layout()
    tags = image.tag_v2

    def numbers(tag: int) -> tuple[int, ...]:
        value = tags.get(tag, ())
        values = value if isinstance(value, tuple) else (value,)
        return values if all(isinstance(one, int) for one in values) else ()

    return tiff_layout(numbers)


def to_rgb(image: Image.Image, layout: Layout) -> Image.Image:
    """Convert a loaded image of any mode to RGB; one in RGB is returned unchanged."""
    if image.mode.startswith("I"):
        return _from_high_byte(image, layout)
    if image.mode == "F":
        raise PhotographError(
            "holds floating-point greys, whose range is unknown; save it with 8 or 16 bits"
        )
    if image.mode == "LAB":
        return _from_lab(image)
    if image.has_transparency_data:
        rgba = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
        rgb = Image.new("RGB", image.size, "white")
        rgb.paste(rgba, mask=rgba)
        return rgb
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_high_byte(image: Image.Image, layout: Layout) -> Image.Image:
    """Convert greys of 9 to 16 bits, in mode I;16 (any byte order) or I, by their 8 highest."""
    greys = np.asarray(image)
    if greys.min() < 0 or greys.max() > 0xFFFF:
        raise PhotographError(
            f"holds 32-bit greys from {greys.min()} to {greys.max()}, expected 0 to 65535; "
            "save it with 8 or 16 bits"
        )
    high = np.minimum(greys >> (layout.bits - 8), 0xFF).astype(np.uint8)
    high = 0xFF - high if layout.is_negative else high
    transparent = image.info.get("transparency")  # a PNG's: one of its greys
    if isinstance(transparent, int):
        high[greys == transparent] = 0xFF
    return Image.fromarray(high).convert("RGB")


def _from_lab(image: Image.Image) -> Image.Image:
    """Convert CIE LAB to sRGB; `Image.convert` would treat L, a, b as R, G, B."""
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None  # None only when converting in place
    return converted
