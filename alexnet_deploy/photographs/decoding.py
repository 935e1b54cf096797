"""Decode photographs to upright RGB.

Nothing is dropped silently: an unreadable file raises `PhotographError` with the reason.
"""

import ctypes
import errno
import io
import math
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from PIL import (  # noqa: F401 - each registers its format; Pillow's own lazy way is not thread-safe
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    MpoImagePlugin,
    PcxImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    PsdImagePlugin,
    QoiImagePlugin,
    SgiImagePlugin,
    SunImagePlugin,
    TgaImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
    _imaging,
)

from alexnet_deploy.errors import AlexNetDeployError, Argument, PhotographError
from alexnet_deploy.files.regular_files import open_regular
from alexnet_deploy.model.spec import Preprocessing
from alexnet_deploy.photographs.colour import carry_profile, profile_of
from alexnet_deploy.photographs.decoded_size import bytes_needed, num_scans
from alexnet_deploy.photographs.gpu_jpegs import decoded_on_gpu
from alexnet_deploy.photographs.heif_files import HEAD_BYTES, is_heif, open_heif
from alexnet_deploy.photographs.memory import DECODED, MAX_FILE_BYTES, READ
from alexnet_deploy.photographs.pixel_limit import PIXELS
from alexnet_deploy.photographs.pixels import EXACT, Decode
from alexnet_deploy.photographs.png_data import is_cut_short
from alexnet_deploy.photographs.raw_previews import Preview, preview_of
from alexnet_deploy.photographs.rgb import layout_of, to_rgb
from alexnet_deploy.photographs.scaled_jpegs import is_jpeg, open_scaled, stored_size, turned
from alexnet_deploy.photographs.unread_files import (
    damaged,
    not_an_image,
    of_an_unread_kind,
)

# Formats that Pillow may open. Left out: those that start other programs (EPS), that only Windows
# reads (WMF), and stubs. MPO is opened as JPEG. Targa comes last, because its files have no magic
# number. Icons hold other formats, of which they do not tell the size.
_FORMATS = (
    *("JPEG", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "AVIF", "JPEG2000", "PPM"),
    *("QOI", "PSD", "SGI", "SUN", "PCX", "TGA"),
)

_STORED_PIXELS = 4
"""Times the limit of pixels: what a JPEG may have that is scaled down; to read it takes time."""

_ARRAY_BYTES = 3
"""A pixel of what comes from a GPU, until Pillow has a copy."""

_MAX_SCANS = 100
"""Of a JPEG; programs write a dozen. One of a few bytes takes as long as any other."""

# What Pillow says of a file that is in order, in a kind that it does not read.
_UNREAD_KIND = re.compile(
    r"(?i)\bunsupported|not (yet )?supported|unknown \w+ mode|not implemented"
    r"|too large for PngImagePlugin"
)

_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_photograph(
    path: Path, decode: Decode = EXACT, preprocessing: Preprocessing | None = None
) -> Image.Image:
    """Decode one file to an upright picture: mode RGB, 8 bits per channel.

    Alpha is composited over white; of animations the first frame is used, of 16-bit greys the high
    byte (of 32-bit greys too, if all are below 65,536); EXIF orientation is applied, and EXIF that
    cannot be parsed is ignored. LAB is converted to sRGB. A picture of other colours carries their
    profile, by which `colour.to_srgb` converts what it is resized to; so does one of mode CMYK,
    which without a profile is converted as if its inks were ideal.

    Args:
        path: of the file; links are followed.
        decode: at which size and by what, and whether a profile is carried or ignored.
        preprocessing: of the network that the picture is for; "scaled" needs it, and leaves of a
            JPEG twice the size that it is resized to or more.

    Raises:
        PhotographError: the reason why it cannot be decoded, without the path.
    """
    with open_photograph(path) as file:
        return decode_photograph(file, decode, preprocessing)


@contextmanager
def open_photograph(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file; an `OSError`, in the block too, becomes a `PhotographError`.

    So does a file of more than `MAX_FILE_BYTES`. Links are followed: the user's folders have them.
    """
    try:
        _check_regular(path)  # for the reason, and since some devices act when they are opened
        descriptor = open_regular(path, os.O_RDONLY, follow_links=True)
        with open(descriptor, "rb") as file, READ.released_at_end():
            size = os.fstat(file.fileno()).st_size
            if size > MAX_FILE_BYTES:
                raise PhotographError(
                    f"has {size / 1e9:.1f} GB, at most {MAX_FILE_BYTES / 1e9:.1f} GB are read; "
                    "scale it down first"
                )
            READ.reserve(size)
            yield file
    except OSError as error:
        raise PhotographError(f"cannot be read ({error.strerror or error})") from error


def decode_photograph(
    file: BinaryIO, decode: Decode = EXACT, preprocessing: Preprocessing | None = None
) -> Image.Image:
    """Decode a seekable file, from its beginning, as `load_photograph` does.

    Raises:
        PhotographError: the reason why there is no image.
        OSError: the disk cannot read the file; `open_photograph` converts it.
    """
    file.seek(0, os.SEEK_END)
    if not file.tell():
        raise PhotographError("is empty (0 bytes); copy it again from its source")
    file.seek(0)
    return _decode(file, decode, preprocessing)


def convert_image(image: Image.Image, decode: Decode = EXACT) -> Image.Image:
    """Convert a Pillow image of any mode as `load_photograph` would its file.

    A lazily opened image is read now; its EXIF orientation is applied. The result is a new image.

    Raises:
        PhotographError: the reason why there is no image.
    """
    try:
        with _failures_reported(None):
            return _upright(image, decode, is_callers=True)
    except OSError as error:
        raise PhotographError(f"cannot be read ({error.strerror or error})") from error


def _check_regular(path: Path) -> None:
    """Reject anything but a regular file: opening a pipe, for one, could block forever."""
    if "\0" in str(path):
        raise PhotographError("cannot be read (its name has a null character)")
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        with os.scandir(path):  # raises if the folder cannot be listed
            raise PhotographError("is a folder, expected a photograph; give it as a path instead")
    if not stat.S_ISREG(mode):
        raise PhotographError("is a pipe, socket or device, expected an ordinary file")


def _decode(file: BinaryIO, decode: Decode, preprocessing: Preprocessing | None) -> Image.Image:
    with _failures_reported(file):
        preview = preview_of(file)
    if preview is not None:
        return _decode_preview(preview, decode, preprocessing)
    with _failures_reported(file), _opened(file, decode, preprocessing) as image:
        picture = _upright(image, decode)
        if image.format == "PNG" and is_cut_short(file, image):
            raise damaged("pixels are missing")
        return picture


def _decode_preview(
    preview: Preview, decode: Decode, preprocessing: Preprocessing | None
) -> Image.Image:
    """Decode a raw file's preview; the raw file says how to turn one that does not itself."""
    file = io.BytesIO(preview.jpeg)
    with _failures_reported(file), _opened(file, decode, preprocessing) as image:
        picture = _upright(image, decode)
        transposition = _TRANSPOSITIONS.get(preview.orientation)
        if transposition is None or _orientation(image) is not None:
            return picture
        return turned(picture, transposition)


def _opened(file: BinaryIO, decode: Decode, preprocessing: Preprocessing | None) -> Image.Image:
    """Open a file that is no raw file; the image is not loaded."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    file.seek(0)
    if decode.scale == "scaled" and is_jpeg(head):
        assert preprocessing is not None, "what a picture is scaled for must be said"
        return open_scaled(file, preprocessing)
    if not is_heif(head):
        return Image.open(file, formats=_FORMATS)
    try:
        return open_heif(file)
    except SyntaxError as error:
        raise damaged(str(error)) from error


def _upright(image: Image.Image, decode: Decode, *, is_callers: bool = False) -> Image.Image:
    """Return an upright picture; where nothing has to change, `image` itself, but of a caller's."""
    width, height = image.size
    if width * height > PIXELS.limit:
        raise _too_large(width * height)
    stored = math.prod(stored_size(image))
    if stored > _STORED_PIXELS * PIXELS.limit:
        raise _too_large(stored, "are scaled down while they are decoded", _STORED_PIXELS)
    scans = num_scans(image)
    if scans > _MAX_SCANS:
        raise PhotographError(
            f"has {scans:,} scans, at most {_MAX_SCANS} are decoded; save it as JPEG or PNG"
        )
    with DECODED.released_at_end():
        _reserve_memory(image, decode)
        layout = layout_of(image)
        loaded = _loaded(image, decode)
        transposition = _TRANSPOSITIONS.get(_orientation(image))
        profile = profile_of(image) if decode.colour == "srgb" else None
        picture = loaded if profile and image.mode == "CMYK" else to_rgb(loaded, layout)
        if transposition is not None:
            picture = turned(picture, transposition)
        elif picture is image and is_callers:
            picture = image.copy()
        carry_profile(picture, profile)
        return picture


def _loaded(image: Image.Image, decode: Decode) -> Image.Image:
    """Return the pixels of an image, in its mode: the image itself, unless a GPU decodes it."""
    picture = decoded_on_gpu(image) if decode.scale == "gpu" else None
    if picture is not None:
        return picture
    image.load()
    return image


def silence_libtiff() -> None:
    """Keep libtiff, for the rest of the process, from writing to stderr about files it cannot name.

    What it writes of damage is an error of Pillow's, too.
    """
    library = ctypes.CDLL(_imaging.__file__)  # and what it is linked with
    for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        with suppress(AttributeError):  # a Pillow without libtiff
            set_handler = getattr(library, name)
            set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            set_handler(None)


def _reserve_memory(image: Image.Image, decode: Decode) -> None:
    """Wait until there is memory for an opened image; refuse one for which there never is."""
    # What a PNG says of its orientation may come after the pixels.
    may_turn = image.format == "PNG" or _orientation(image) in _TRANSPOSITIONS
    needed = bytes_needed(image, may_turn=may_turn)
    if decode.scale == "gpu":
        needed += _ARRAY_BYTES * image.width * image.height
    if needed > DECODED.limit:
        raise PhotographError(
            f"needs {needed / 1e6:,.0f} MB to decode, at most {DECODED.limit / 1e6:,.0f} MB are "
            "taken; raise ",
            Argument("max_decoded_memory"),
            " or scale it down first",
        )
    DECODED.reserve(needed)


@contextmanager
def _failures_reported(file: BinaryIO | None) -> Iterator[None]:
    """Turn every failure of Pillow's into a `PhotographError`."""
    try:
        yield
    except (PhotographError, AlexNetDeployError):
        raise
    except UnidentifiedImageError as error:
        assert file is not None
        raise not_an_image(file) from error
    except Image.DecompressionBombError as error:
        pixels = re.search(r"(\d+) pixels", str(error))
        raise _too_large(int(pixels[1]) if pixels else PIXELS.limit + 1) from error
    except MemoryError as error:
        raise PhotographError(
            "needs more memory to decode than is available; use fewer threads"
        ) from error
    except ImportError as error:  # LittleCMS, of which Pillow says so only when it is called
        raise PhotographError(
            f"needs what this build of Pillow was made without ({error}); install a wheel of Pillow"
        ) from error
    except Warning as warning:
        raise PhotographError(
            f"Pillow warns about it ({warning}), and this process turns warnings into errors; "
            "exempt those of the module PIL"
        ) from warning
    except Exception as error:  # Pillow's plugins raise anything on damaged data
        if isinstance(error, OSError) and _is_of_the_disk(error, file):
            raise
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        refusal = of_an_unread_kind if _UNREAD_KIND.search(reason) else damaged
        raise refusal(reason) from error


def _is_of_the_disk(error: OSError, file: BinaryIO | None) -> bool:
    """Tell an error of the disk from one of the data, such as a position before the beginning."""
    return error.errno not in (None, errno.EINVAL) and not isinstance(file, io.BytesIO)


def _orientation(image: Image.Image) -> Any:
    """Return the EXIF orientation, 1 to 8, or anything else if there is none."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF: viewers show such a photograph as it is stored
        return None


def _too_large(pixels: int, what: str = "are decoded", times_limit: int = 1) -> PhotographError:
    limit = times_limit * PIXELS.limit
    return PhotographError(
        f"has {pixels / 1e6:,.1f} megapixels, at most {limit / 1e6:,.1f} {what}; raise ",
        Argument("max_megapixels"),
        " or scale it down first",
    )
