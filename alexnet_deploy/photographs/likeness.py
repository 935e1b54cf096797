"""How alike two photographs are where they show the same, as are those made of one another.

Both are looked at as small squares. One is turned and cut until its greys match the other's best;
then their correlation is measured. Brightness, contrast and colours do not count. It is no proof
that one was made of the other: two shots of a still scene may be as alike.
"""

import hashlib
import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexnet_deploy.model.spec import PRESETS
from alexnet_deploy.photographs.colour import to_srgb
from alexnet_deploy.photographs.pixels import Decode
from alexnet_deploy.photographs.preprocessing import extent_of
from alexnet_deploy.photographs.sources import load_image

SIDE = 128
"""Of a thumbnail, in px, whatever the photograph's shape."""
_SCALED = Decode.of("scaled")
_SCALED_FOR = PRESETS["paper"].preprocessing
"""Leaves 512 px or more of a side."""
_ROWS = 256
_GRIDS = (16, 48)
"""Points a side at which two are compared, first coarsely: fine detail leads astray from afar."""
_STEPS = 8
_HOPELESS = 0.8
"""Correlation on the coarse grid; photographs that were made of one another reach .95."""
_LEAST_CORRELATION = 0.98
_PARTS = 8
"""A side, each looked at by itself: a car of another colour may be a small part of a photograph."""
_MOST_DEVIATION = 0.004
_LEAST_KEPT = 0.7
"""Of a side; what lost more is not looked for."""
_LEAST_CONTRAST = 2.0
"""Standard deviation of greys; below it there is only noise to compare."""
_WHOLE = (0.0, 0.0, float(SIDE), float(SIDE))


@dataclass(frozen=True, slots=True)
class Orientation:
    """How a photograph was turned: mirrored left to right or not, then turned clockwise.

    Attributes:
        mirrored: whether.
        turned: 0, 90, 180 or 270 degrees.
    """

    mirrored: bool = False
    turned: int = 0

    @property
    def inverse(self) -> "Orientation":
        """What turns it back."""
        return self if self.mirrored else Orientation(turned=-self.turned % 360)


UPRIGHT = Orientation()
ORIENTATIONS = tuple(
    itertools.starmap(Orientation, itertools.product((False, True), range(0, 360, 90)))
)


@dataclass(frozen=True, slots=True)
class Likeness:
    """How one photograph matches a part of another.

    Attributes:
        correlation: -1..1, of the greys.
        deviation: what of the contrast of all is other contrast in the worst of 64 parts, 0..1.
        share: of the other's area, that the part has, 0..1.
    """

    correlation: float
    deviation: float
    share: float

    @property
    def is_match(self) -> bool:
        """Whether they differ so little as to be called nearly the same."""
        return self.correlation >= _LEAST_CORRELATION and self.deviation <= _MOST_DEVIATION


def read_thumbnail(data: bytes) -> NDArray[np.uint8]:
    """Decode a photograph's bytes to a square, (`SIDE`, `SIDE`, 3) uint8, RGB, upright.

    Raises:
        PhotographError: the reason why it cannot be decoded.
    """
    picture = load_image(data, _SCALED, _SCALED_FOR)
    small = picture.resize((SIDE, SIDE), Image.Resampling.BOX, extent_of(picture))
    return np.asarray(to_srgb(small))


def pixels_digest(data: bytes) -> bytes:
    """Decode a photograph's bytes at full size; return a SHA-256 of its size and sRGB pixels.

    Raises:
        PhotographError: the reason why it cannot be decoded.
    """
    picture = to_srgb(load_image(data))
    digest = hashlib.sha256(repr(picture.size).encode())
    for top in range(0, picture.height, _ROWS):  # a copy of the whole may not fit memory
        bottom = min(top + _ROWS, picture.height)
        digest.update(picture.crop((0, top, picture.width, bottom)).tobytes())
    return digest.digest()


def greys_of(thumbnail: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the greys of a thumbnail, (`SIDE`, `SIDE`) uint8."""
    return np.asarray(Image.fromarray(thumbnail).convert("L"))


def colourfulness(thumbnail: NDArray[np.uint8]) -> float:
    """Return how far red, green and blue are apart, 0..255, in the mean: 0 for greys."""
    return float(np.ptp(thumbnail, axis=2).mean())


def likeness(
    first: NDArray[np.uint8], other: NDArray[np.uint8], orientation: Orientation
) -> Likeness | None:
    """Return how all of `other` matches a part of `first`, by Gauss-Newton on the part's edges.

    Args:
        first: of `greys_of`.
        other: of `greys_of`.
        orientation: that `first` gets.

    Returns:
        None where they do not match, or have too little contrast to tell.
    """
    turned = first[:, ::-1] if orientation.mirrored else first
    turned = np.ascontiguousarray(np.rot90(turned, -orientation.turned // 90))
    source, target = (Image.fromarray(greys).convert("F") for greys in (turned, other))
    edges, found = np.array(_WHOLE), None
    for grid in _GRIDS:
        goal = _normalized(target, np.array(_WHOLE), grid)
        if goal is None:
            return None
        edges = _fitted(source, goal, edges, grid)
        found = _compared(_normalized(source, edges, grid), goal, edges)
        if found is None:
            return None
    return found


def _compared(
    part: NDArray[np.float32] | None, goal: NDArray[np.float32], edges: NDArray[np.float64]
) -> Likeness | None:
    if part is None or (correlation := float(part @ goal)) < _HOPELESS:
        return None
    squares: NDArray[np.float32] = np.square(goal - correlation * part)
    by_part = squares.reshape(_PARTS, -1, _PARTS, math.isqrt(squares.size) // _PARTS)
    left, top, right, bottom = edges.tolist()
    return Likeness(
        correlation=correlation,
        deviation=float(by_part.sum(axis=(1, 3)).max()),
        share=(right - left) * (bottom - top) / SIDE**2,
    )


def _fitted(
    source: Image.Image, goal: NDArray[np.float32], edges: NDArray[np.float64], grid: int
) -> NDArray[np.float64]:
    """Return the edges, near those given, between which `source` matches `goal` best."""
    best, best_correlation = edges, -1.0
    inwards = np.array([1.0, 1.0, -1.0, -1.0])
    for _ in range(_STEPS):
        now = _normalized(source, edges, grid)
        if now is None or (correlation := float(now @ goal)) <= best_correlation:
            break
        best, best_correlation = edges, correlation
        moved = [_normalized(source, edges + step, grid) for step in np.diag(inwards)]
        differences = [one - now for one in moved if one is not None]
        if len(differences) < len(moved):
            break
        slopes = np.stack(differences, axis=1) * inwards
        step, *_ = np.linalg.lstsq(slopes.T @ slopes, slopes.T @ (goal - now))
        edges = _allowed(edges + step)
    return best


def _allowed(edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keep edges within the thumbnail, and apart."""
    least = _LEAST_KEPT * SIDE
    low = np.clip(edges[:2], 0, SIDE - least)
    return np.concatenate([low, np.clip(edges[2:], low + least, SIDE)])


def _normalized(
    picture: Image.Image, edges: NDArray[np.float64], grid: int
) -> NDArray[np.float32] | None:
    """Return what is between edges at the points of a grid, mean 0 and norm 1; None if flat."""
    left, top, right, bottom = edges.tolist()
    part = picture.resize((grid, grid), Image.Resampling.BILINEAR, (left, top, right, bottom))
    values = np.asarray(part).ravel()
    values = values - values.mean()
    norm = float(np.linalg.norm(values))
    return values / norm if norm > _LEAST_CONTRAST * grid else None
