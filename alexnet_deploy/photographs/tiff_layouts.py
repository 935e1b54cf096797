"""Which TIFF files become the right pixels, and which only seem to.

TIFF is a box of bricks. Pillow refuses most of what it cannot build of them, but not all: some it
decodes to something else. `tests/photographs/test_second_decoder.py` holds what is let through
here to another decoder's pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from alexnet_deploy.errors import PhotographError

Numbers: TypeAlias = Callable[[int], tuple[int, ...]]
"""Returns the whole numbers of a tag of a TIFF, none where it is absent."""

WIDTH, LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_SAMPLES, _MAX_SAMPLE_VALUE, _PLANES, _COLOUR_MAP = 277, 281, 284, 320
_INK_SET, _EXTRA_SAMPLES, _SAMPLE_FORMAT, _SUBSAMPLING = 332, 338, 339, 530

_COMPRESSIONS = {
    **dict.fromkeys((2, 3, 4), "CCITT"),
    **dict.fromkeys((6, 7), "JPEG"),
    **dict.fromkeys((8, 32946), "Deflate"),
    **dict(
        zip((1, 5, 32773, 34925, 50000), ("", "LZW", "PackBits", "LZMA", "Zstandard"), strict=True)
    ),
}
"""Those that are read."""
_UNREAD_COMPRESSIONS = {
    **dict.fromkeys((33003, 33004, 33005, 34712), "JPEG 2000"),
    **dict.fromkeys((22610, 34934), "JPEG XR"),
    **dict.fromkeys((50002, 52546), "JPEG XL"),
    **dict.fromkeys((34676, 34677), "LogLuv"),
    **dict(zip((34887, 34933, 50001), ("LERC", "PNG", "WebP"), strict=True)),
}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_COLOURS = {
    **dict.fromkeys((_WHITE_IS_ZERO, _BLACK_IS_ZERO), "greys"),
    **dict.fromkeys((8, 9, 10), "CIELAB"),
    **dict(zip((_RGB, _PALETTE, _CMYK, _YCBCR), ("RGB", "palette", "CMYK", "YCbCr"), strict=True)),
}
_INTEGERS, _SIGNED, _FLOATS = 1, 2, 3
_ASSOCIATED = 1  # colours that are multiplied by their alpha already


@dataclass(frozen=True, slots=True)
class Layout:
    """What of a TIFF's 16-bit greys Pillow leaves to its caller.

    Attributes:
        bits: that a grey uses, 9 to 16.
        is_negative: whether 0 is white.
    """

    bits: int = 16
    is_negative: bool = False


def tiff_layout(numbers: Numbers) -> Layout:
    """Return how the greys of a TIFF that Pillow has opened are to be read.

    Raises:
        PhotographError: Pillow would decode it to something else.
    """
    photometric, bits = _number(numbers, _PHOTOMETRIC, 0), _bits(numbers)
    is_grey = photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO) and len(bits) == 1
    used = max(bits, default=1)
    most = _number(numbers, _MAX_SAMPLE_VALUE, 0)
    if bits == (16,) * len(bits) and most & (most + 1) == 0 and 0xFF < most < 0xFFFF:
        used = most.bit_length()  # 1023, 4095, ...: of a scanner with that many bits
    if _number(numbers, _COMPRESSION, 1) not in _COMPRESSIONS or _is_misread(
        numbers, photometric, bits, used
    ):
        raise unread(numbers)
    is_deep = is_grey and bits[0] > 8
    return Layout(
        bits=used if is_deep and used <= 16 else 16,
        is_negative=is_deep and photometric == _WHITE_IS_ZERO,
    )


def unread(numbers: Numbers) -> PhotographError:
    """Return the error of a TIFF that is in order, but of a layout that is not read."""
    return PhotographError(
        f"is a TIFF of a kind that is not read ({_description(numbers)}); save it as RGB with 8 "
        "bits a channel"
    )


def _is_misread(numbers: Numbers, photometric: int, bits: tuple[int, ...], used: int) -> bool:
    """Return whether Pillow takes a layout for another."""
    formats = set(numbers(_SAMPLE_FORMAT)) or {_INTEGERS}
    extra = numbers(_EXTRA_SAMPLES)
    is_plain = _number(numbers, _COMPRESSION, 1) == 1
    colours = numbers(_COLOUR_MAP)
    misread = [
        # With 32 bits, mode I, it is seen in the values whether they are greys.
        formats == {_SIGNED} and bits != (32,),
        len(bits) > 1 and used not in bits,  # 12 bits of 16 in colour
        photometric == _PALETTE and bool(colours) and max(colours) < 256,
        photometric == _CMYK and _number(numbers, _INK_SET, 1) != 1,
        photometric == _YCBCR and is_plain and numbers(_SUBSAMPLING) != (1, 1),
    ]
    if _number(numbers, _PLANES, 1) == 2 and len(bits) > 1:
        misread += [
            photometric not in (_RGB, _CMYK),
            is_plain and (set(bits) != {8} or _ASSOCIATED in extra),
        ]
    return any(misread)


def _number(numbers: Numbers, tag: int, default: int) -> int:
    return next(iter(numbers(tag)), default)


def _bits(numbers: Numbers) -> tuple[int, ...]:
    """Return how many bits each channel has."""
    bits, samples = numbers(_BITS), _number(numbers, _SAMPLES, 1)
    return bits * samples if len(bits) == 1 and samples < 64 else bits or (1,)


def _description(numbers: Numbers) -> str:
    bits = _bits(numbers)
    formats = numbers(_SAMPLE_FORMAT) or (_INTEGERS,)
    compression = _number(numbers, _COMPRESSION, 1)
    photometric = _number(numbers, _PHOTOMETRIC, 0)
    colours = _COLOURS.get(photometric, f"photometric interpretation {photometric}")
    extra = numbers(_EXTRA_SAMPLES)
    kind = {_SIGNED: "signed", _FLOATS: "floating-point", 5: "complex", 6: "complex"}
    packed = _UNREAD_COMPRESSIONS.get(
        compression, _COMPRESSIONS.get(compression, f"compression {compression}")
    )
    parts = [
        f"{max(bits)}-bit {kind.get(formats[0], '')} {colours}".replace("  ", " "),
        f"{len(bits)} channels" if len(bits) > 1 else "",
        f"{len(extra)} of them beside the colours" if extra else "",
        "in planes" if _number(numbers, _PLANES, 1) == 2 and len(bits) > 1 else "",
        f"{packed} inside" if packed else "",
    ]
    return ", ".join(filter(None, parts))
