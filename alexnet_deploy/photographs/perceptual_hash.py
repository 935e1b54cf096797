"""Perceptual hashes: 256 bits that stay nearly the same when a photograph is saved again.

`phash` of the package ImageHash: which of the 16 x 16 lowest frequencies of a picture are above
their median. It does not see what a photograph is of, as FC7 does, but where it is light and dark.

A photograph is hashed whole, and so are windows of it, since a cut shifts everything that is left.
A turned or mirrored one needs no hash of its own: its cosine transform has the same numbers, some
with the other sign, and so it has the same bits, but for those of numbers between the median and
its negative.
"""

import itertools

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexnet_deploy.errors import MissingPackageError
from alexnet_deploy.photographs.likeness import SIDE, Orientation

try:
    import imagehash
except ModuleNotFoundError as error:
    raise MissingPackageError("ImageHash", "duplicates", "finding duplicates") from error

_SIZE = 16
HASH_BYTES = _SIZE * _SIZE // 8
_LOSSES = {6: (0, 6), 12: (0, 6, 12)}
"""What windows leave out of each side of a thumbnail, in px, and where they begin."""
_WINDOWS = tuple(
    (left, top, left + SIDE - lost, top + SIDE - lost)
    for lost, starts in _LOSSES.items()
    for left, top in itertools.product(starts, starts)
)
"""A photograph of which up to a fifth was cut off is nearly one of them."""
NUM_HASHES = 1 + len(_WINDOWS)


def hashes_of(thumbnail: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the hashes of a photograph and of its windows, (`NUM_HASHES`, `HASH_BYTES`) uint8.

    Args:
        thumbnail: of `likeness.read_thumbnail`.
    """
    whole = Image.fromarray(thumbnail).convert("L")
    pictures = [whole, *map(whole.crop, _WINDOWS)]
    bits = [imagehash.phash(picture, hash_size=_SIZE).hash for picture in pictures]
    return np.packbits(np.reshape(bits, (NUM_HASHES, -1)), axis=1)


def turned(hashes: NDArray[np.uint8], orientation: Orientation) -> NDArray[np.uint8]:
    """Return, but for a few bits, the hashes that photographs have when they are turned.

    Args:
        hashes: (N, `HASH_BYTES`) uint8.
        orientation: that they get.
    """
    bits = np.unpackbits(hashes, axis=1).reshape(-1, _SIZE, _SIZE)
    other_sign = np.arange(_SIZE, dtype=np.uint8) % 2  # in a mirrored row, of every other wave
    if orientation.mirrored:
        bits = bits ^ other_sign
    for _ in range(orientation.turned // 90):
        bits = bits.transpose(0, 2, 1) ^ other_sign
    return np.packbits(bits.reshape(-1, _SIZE * _SIZE), axis=1)
