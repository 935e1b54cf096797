"""HEIC, which phones take, and other HEIF files that are not AVIF: decoded by pillow-heif."""

from collections.abc import Callable
from typing import BinaryIO

from PIL import Image

from alexnet_deploy.errors import PhotographError
from alexnet_deploy.photographs.suffixes import HEIF_EXTRA

_HEIF = {
    *(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"),
}
_AVIF = {b"avif", b"avis"}
HEAD_BYTES = 64
"""Of a file, with the brands that it names itself of."""


def brands(head: bytes) -> set[bytes]:
    """Return what a file of ISO's kind says it is, from its first bytes; of any other nothing."""
    if head[4:8] != b"ftyp":
        return set()
    size = min(int.from_bytes(head[:4], "big"), len(head))
    return {head[8:12], *(head[at : at + 4] for at in range(16, size - 3, 4))}


def is_heif(head: bytes) -> bool:
    """Return whether a file is a HEIF that Pillow does not read itself, as it does an AVIF."""
    found = brands(head)
    return bool(found & _HEIF) and not found & _AVIF


def open_heif(file: BinaryIO) -> Image.Image:
    """Open a HEIF file, not loaded, as Pillow opens others.

    Raises:
        PhotographError: pillow-heif is not installed.
        SyntaxError: it is damaged.
    """
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise PhotographError(
            "is a HEIC photograph, which needs the package pillow-heif; install it with: pip "
            f"install 'alexnet-deploy[{HEIF_EXTRA}]'"
        ) from error
    opened: Callable[[BinaryIO], Image.Image] = HeifImageFile
    return opened(file)
