"""Colour profiles: from what a photograph's numbers mean to sRGB, which networks were trained on.

To convert a photograph takes several times as long as to decode it, to convert its crop next to
nothing. So a picture carries its profile where Pillow keeps it, in `info`, which survives resizing,
cutting and turning, and `to_srgb` comes last.
"""

import io
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

from alexnet_deploy.photographs.icc_profiles import adobe_rgb, space_of

_KEY = "icc_profile"
_GREYS = {"1", "L", "LA", "La"}

_Conversion = Callable[[Image.Image], Image.Image]


def profile_of(image: Image.Image) -> bytes | None:
    """Return the ICC profile that a loaded image's colours are to be converted by, if any.

    A profile is ignored, as viewers do, if it is for colours of another kind than the image has, or
    damaged; so is one that means sRGB to within a level. A camera set to Adobe RGB may say so in
    EXIF alone (DCF 2.0).
    """
    profile = image.info.get(_KEY)
    if not isinstance(profile, bytes) or not profile:
        return adobe_rgb() if image.mode == "RGB" and _is_adobe_rgb_by_exif(image) else None
    fits = space_of(profile) in _spaces_of(image.mode)
    return profile if fits and _conversion(profile) is not None else None


def carry_profile(picture: Image.Image, profile: bytes | None) -> None:
    """Make the result of `profile_of` the profile that a picture carries."""
    picture.info.pop(_KEY, None)
    if profile is not None:
        picture.info[_KEY] = profile


def to_srgb(picture: Image.Image) -> Image.Image:
    """Convert a picture to sRGB by the profile that it carries.

    Perceptually, with black as black; by a profile without tables, as nearly all photographs have,
    that is relatively colorimetric, as in browsers. What is outside sRGB is clipped.

    Args:
        picture: mode RGB, or CMYK with a profile.

    Returns:
        A new picture of mode RGB without a profile; `picture` itself if it carries none.
    """
    profile = picture.info.get(_KEY)
    convert = None if profile is None else _conversion(profile)
    return picture if convert is None else convert(picture)


def _spaces_of(mode: str) -> tuple[bytes, ...]:
    """Return the signatures of the profiles that an image of a mode may have."""
    if mode == "LAB":  # which needs none
        return ()
    if mode == "CMYK":
        return (b"CMYK",)
    is_grey = mode in _GREYS or mode.startswith("I")
    return (b"RGB ", b"GRAY") if is_grey else (b"RGB ",)


@lru_cache(maxsize=16)
def _conversion(profile: bytes) -> _Conversion | None:
    """Return what converts to sRGB, None if that changes nothing or the profile is damaged.

    Threads share it, which lcms allows without its cache of one pixel.
    """
    mode = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}.get(space_of(profile))
    if mode is None:
        return None
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.NOCACHE
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.PERCEPTUAL,
            flags,
        )
    except (ImageCms.PyCMSError, OSError):
        return None

    def convert(picture: Image.Image) -> Image.Image:
        converted = transform.apply(picture)
        carry_profile(converted, None)
        return converted

    if mode == "L":
        return _conversion_of_greys(convert)
    levels = np.linspace(0, 255, 17).astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(17, -1, 3)
    if mode == "RGB" and not _differ(grid, convert(Image.fromarray(grid))):
        return None
    return convert


def _conversion_of_greys(convert: _Conversion) -> _Conversion | None:
    """Return what converts greys in RGB, given what converts those of mode L."""
    greys = np.arange(256, dtype=np.uint8)[np.newaxis]
    green = convert(Image.fromarray(greys)).getchannel("G")
    if not _differ(greys, green):
        return None
    table = 3 * np.asarray(green)[0].tolist()

    def look_up(picture: Image.Image) -> Image.Image:
        converted = picture.point(table)
        carry_profile(converted, None)
        return converted

    return look_up


def _differ(values: NDArray[np.uint8], converted: Image.Image) -> bool:
    """Return whether a colour has moved by more than a level, which rounding does not do."""
    return bool(np.abs(np.asarray(converted).astype(np.int16) - values).max() > 1)


def _is_adobe_rgb_by_exif(image: Image.Image) -> bool:
    exif = image.info.get("exif")
    if not isinstance(exif, bytes) or b"R03" not in exif:
        return False
    try:
        tags = image.getexif()
        colour_space = tags.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace)
        index = tags.get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex)
    except Exception:  # damaged EXIF is ignored
        return False
    return bool(colour_space == 0xFFFF and index in ("R03", b"R03", "R03\0", b"R03\0"))
