"""ICC profiles made from published numbers, and what they mean computed without a library for them.

ICC.1:2022 for the format; primaries of IEC 61966-2-1 (sRGB), SMPTE EG 432-1 with sRGB's curve
(Display P3), and Adobe RGB (1998).
"""

import struct
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Chromaticities = tuple[tuple[float, float], ...]

D65 = (0.3127, 0.3290)
D50 = np.array([0.9642, 1.0, 0.8249])  # of the connection space
SRGB: Chromaticities = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
DISPLAY_P3: Chromaticities = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
ADOBE_RGB: Chromaticities = ((0.640, 0.330), (0.210, 0.710), (0.150, 0.060))
ADOBE_GAMMA = 2 + 51 / 256

_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def srgb_curve(values: Floats) -> Floats:
    """Return how much light 0..1 of sRGB or Display P3 is."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def gamma_curve(gamma: float) -> Callable[[Floats], Floats]:
    """Return the curve of a power of 0..1."""
    return lambda values: np.asarray(values**gamma)


def to_xyz(chromaticities: Chromaticities) -> Floats:
    """Return (3, 3): light of three primaries of a white of D65, adapted to D50, by columns."""
    columns = np.array([(x / y, 1.0, (1 - x - y) / y) for x, y in chromaticities]).T
    white = np.array([D65[0] / D65[1], 1.0, (1 - sum(D65)) / D65[1]])
    columns = columns * np.linalg.solve(columns, white)
    cones = _BRADFORD @ D50 / (_BRADFORD @ white)
    return np.asarray(np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD @ columns)


def converted(
    pixels: NDArray[np.uint8], chromaticities: Chromaticities, curve: Callable[[Floats], Floats]
) -> Floats:
    """Return (..., 3) of 0..255 in sRGB, clipped and not rounded, of pixels in another space."""
    light = curve(pixels / 255.0) @ to_xyz(chromaticities).T @ np.linalg.inv(to_xyz(SRGB)).T
    return _encoded(light)


def lab_converted(lab: Floats) -> Floats:
    """Return (..., 3) of 0..255 in sRGB, clipped and not rounded, of CIE LAB of a white of D50."""
    lightness, red, yellow = np.moveaxis(lab, -1, 0)
    grey = (lightness + 16) / 116
    middle = np.stack([grey + red / 500, grey, grey - yellow / 200], axis=-1)
    xyz = D50 * np.where(middle > 6 / 29, middle**3, 3 * (6 / 29) ** 2 * (middle - 4 / 29))
    return _encoded(xyz @ np.linalg.inv(to_xyz(SRGB)).T)


def _encoded(light: Floats) -> Floats:
    light = np.clip(light, 0, 1)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray(255 * encoded)


def rgb_profile(chromaticities: Chromaticities, gamma: float | None) -> bytes:
    """Return a profile of primaries and one curve: a gamma, or None for sRGB's curve."""
    names = (b"rXYZ", b"gXYZ", b"bXYZ")
    tags = {
        name: b"XYZ " + bytes(4) + _fixed(*column)
        for name, column in zip(names, to_xyz(chromaticities).T, strict=True)
    }
    curve = _table(srgb_curve) if gamma is None else _gamma(gamma)
    return profile(b"RGB ", b"XYZ ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve))


def grey_profile(gamma: float) -> bytes:
    """Return a profile of greys."""
    return profile(b"GRAY", b"XYZ ", {b"kTRC": _gamma(gamma)})


def table_profile(space: bytes, lab_of: Callable[[Floats], Floats], points: int = 9) -> bytes:
    """Return a printer's profile: a table of what the amounts of its colours give.

    Args:
        space: b"RGB " or b"CMYK".
        lab_of: (N, 3) or (N, 4) of 0..1 to (N, 3) CIE L 0..100, a, b -128..127.
        points: of the table along each channel.
    """
    channels = len(space.strip())
    axes = np.meshgrid(*[np.linspace(0, 1, points)] * channels, indexing="ij")
    lab = lab_of(np.stack([axis.ravel() for axis in axes], axis=1))
    values = np.rint(np.clip((lab + np.array([0, 128, 128])) / [100, 255, 255], 0, 1) * 65280)
    head = b"mft2" + struct.pack(">4xBBBx", channels, 3, points)
    head += _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + struct.pack(">HH", 2, 2)
    curve = struct.pack(">HH", 0, 65535)
    table = head + channels * curve + values.astype(">u2").tobytes() + 3 * curve
    return profile(space, b"Lab ", {b"A2B0": table}, kind=b"prtr")


def profile(
    space: bytes, connection: bytes, tags: dict[bytes, bytes], kind: bytes = b"mntr"
) -> bytes:
    """Return a profile of version 2 that has these tags, and a white point of D50."""
    tags = {b"wtpt": b"XYZ " + bytes(4) + _fixed(*D50), **tags}
    entries, data, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        entries += name + struct.pack(">II", start + len(data), len(value))
        data += value + bytes(-len(value) % 4)
    body = struct.pack(">I", len(tags)) + entries + data
    head = struct.pack(">I4xI", 128 + len(body), 0x02400000) + kind + space + connection
    head += bytes(12) + b"acsp" + bytes(28) + _fixed(*D50)
    return head.ljust(128, b"\0") + body


def _fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _gamma(gamma: float) -> bytes:
    return b"curv" + struct.pack(">4xIH", 1, round(gamma * 256))


def _table(curve: Callable[[Floats], Floats]) -> bytes:
    values = np.rint(65535 * curve(np.linspace(0, 1, 1024))).astype(">u2")
    return b"curv" + struct.pack(">4xI", len(values)) + values.tobytes()
