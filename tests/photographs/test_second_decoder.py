"""Made files of every kind, decoded by another decoder too: the same pixels, or refused by name.

Tifffile reads the tags of a TIFF in Python, and imagecodecs the rest.
"""

import io
import itertools
import re
import struct
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from alexnet_deploy.errors import PhotographError
from alexnet_deploy.photographs.decoding import decode_photograph, silence_libtiff

imagecodecs = pytest.importorskip("imagecodecs", reason="the second decoder; it is in [dev]")
tifffile = pytest.importorskip("tifffile", reason="the second decoder; it is in [dev]")

HEIGHT, WIDTH = 22, 37
Made = tuple[str, bytes]
Tags = dict[int, tuple[int, ...]]
UNSUPPORTED = "kind that is not read|floating-point greys|32-bit greys from|which is not read"
LOSSY = {"jpeg": 12, "JPEG": 12, "webp": 8, "avif": 8, "jpeg2000": 3, "YCbCr": 3}


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> None:
    silence_libtiff()


def colours() -> NDArray[np.float64]:
    """Return (H, W, 3) from 0 to 1, each channel another slope."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    across, down = x / (WIDTH - 1), y / (HEIGHT - 1)
    return np.stack([across, down, (across + 1 - down) / 2], axis=-1)


def scaled(values: NDArray[np.float64], bits: int) -> NDArray[Any]:
    whole: NDArray[Any] = (values * (2**bits - 1) + 0.5).astype(
        np.uint8 if bits <= 8 else np.uint16
    )
    return whole


def over_white(
    samples: NDArray[Any], bits: int, *, is_associated: bool = False
) -> NDArray[np.float64]:
    """Return (H, W, 3) from 0 to 255 of greys or RGB of so many bits, the last channel alpha."""
    if samples.ndim == 2:
        samples = samples[..., np.newaxis]
    high: NDArray[Any] = samples * (255 / (2**bits - 1))
    high = samples.astype(np.int64) >> (bits - 8) if bits > 8 else high
    has_alpha = high.shape[2] in (2, 4)
    seen = high[..., :-1] if has_alpha else high
    alpha: NDArray[Any] = high[..., -1:] if has_alpha else np.full((1, 1, 1), 255.0)
    colour = seen if is_associated else seen * (alpha / 255)
    return np.broadcast_to(colour + 255 - alpha, (*high.shape[:2], 3)).astype(np.float64)


def compared(name: str, data: bytes, expected: NDArray[np.float64]) -> str:
    """Return "read" or "refused"; fail where the pixels are other than expected."""
    try:
        got = np.asarray(decode_photograph(io.BytesIO(data))).astype(np.float64)
    except PhotographError as caught:
        reason = str(caught)
        if re.search(UNSUPPORTED, reason) is None:
            pytest.fail(f"{name}: {reason}")
        return "refused"
    allowed = next((bound for part, bound in LOSSY.items() if part in name), 1.01)
    assert got.shape == expected.shape, name
    assert np.abs(got - expected).max() <= allowed, name
    return "read"


TYPES = (np.uint8, np.uint16, np.uint32, np.int8, np.int16, np.float16, np.float32)
COMPRESSIONS = (None, "lzw", "zlib", "packbits", "zstd", "lzma", "jpeg", "webp", "jpegxl")
LAYOUTS = itertools.product(
    TYPES,
    ("contig", "separate"),
    ("rgb", "minisblack", "miniswhite"),
    (None, "assocalpha", "unassalpha"),
    (*COMPRESSIONS, "jpeg2000"),
    "<>",
    (None, (16, 16)),
)


def tiffs() -> Iterator[Made]:
    """Write what tifffile can of `LAYOUTS`."""
    for kind, planes, photometric, alpha, compression, order, tile in LAYOUTS:
        dtype = np.dtype(kind)
        most = 1.0 if dtype.kind == "f" else float(np.iinfo(dtype.name).max)
        samples = (colours() * most).astype(dtype)
        if photometric != "rgb":
            samples = samples[..., :1] if photometric == "minisblack" else most - samples[..., :1]
        if alpha:
            full = np.full_like(samples[..., :1], 0.75 * most)
            samples = np.concatenate([np.minimum(samples, full), full], axis=-1)
        samples = np.moveaxis(samples, 2, 0) if planes == "separate" else samples
        if 1 in (samples.shape[0], samples.shape[-1]):
            samples = samples.squeeze()
        file = io.BytesIO()
        try:
            tifffile.imwrite(
                file,
                samples.astype(dtype),
                photometric=photometric,
                planarconfig=None if samples.ndim == 2 else planes,
                extrasamples=[alpha] if alpha else None,
                compression=compression,
                predictor=compression in ("lzw", "zlib") and dtype.kind != "f",
                byteorder=order,
                tile=tile,
                metadata=None,
            )
        except (ValueError, TypeError, RuntimeError, NotImplementedError):  # no such TIFF
            continue
        yield (
            f"{dtype} {planes} {photometric} {alpha} {compression} {order} {tile}",
            file.getvalue(),
        )


def seen_by_tifffile(data: bytes) -> NDArray[np.float64]:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        samples = page.asarray()
        if page.planarconfig == 2 and samples.ndim == 3:
            samples = np.moveaxis(samples, 0, 2)
        bits = page.bitspersample
        if page.photometric == 0:
            samples = samples.copy()
            grey = samples if samples.ndim == 2 else samples[..., 0]
            grey[...] = 2**bits - 1 - grey
        return over_white(samples, bits, is_associated=1 in page.extrasamples)


def test_a_tiff_is_what_tifffile_sees_or_is_refused() -> None:
    counts: Counter[str] = Counter()
    for name, data in tiffs():
        is_number = "uint8" in name or "uint16" in name
        expected = seen_by_tifffile(data) if is_number else np.zeros((1, 1, 3))
        outcome = compared(name, data, expected)
        assert is_number or outcome == "refused", name
        counts[outcome] += 1
    assert counts["read"] > 250
    assert counts["refused"] > 500


def tiff(tags: Tags, data: bytes, *, is_big: bool = False) -> bytes:
    """Return a TIFF of one strip, whose tags are numbers of 2 bytes, offset and size of 4."""
    tags = {256: (WIDTH,), 257: (HEIGHT,), 259: (1,), 273: (0,), 278: (HEIGHT,), 279: (0,)} | tags
    head, entry, count, room = (8, "<HHI", "<H", 4) if not is_big else (16, "<HHQ", "<Q", 8)
    size = struct.calcsize(entry) + room
    after = head + struct.calcsize(count) + size * len(tags) + room
    entries, values = b"", b""
    tags |= {273: (after + sum(2 * len(v) for v in tags.values() if 2 * len(v) > room),)}
    tags |= {279: (len(data),)}
    for tag, numbers in sorted(tags.items()):
        is_long = tag in (273, 279)
        packed = struct.pack(f"<{len(numbers)}{'I' if is_long else 'H'}", *numbers)
        if len(packed) > room:
            where, values = struct.pack("<Q", after + len(values))[:room], values + packed
        else:
            where = packed.ljust(room, b"\0")
        entries += struct.pack(entry, tag, 4 if is_long else 3, len(numbers)) + where
    mark = b"II*\0" + struct.pack("<I", head)
    mark = mark if not is_big else b"II+\0\x08\0\0\0" + struct.pack("<Q", head)
    return mark + struct.pack(count, len(tags)) + entries + bytes(room) + values + data


def packed(samples: NDArray[Any], bits: int, *, is_reversed: bool = False) -> bytes:
    """Return rows of samples of so many bits, each of whole bytes."""
    rows = samples.reshape(HEIGHT, -1)
    each = (rows[..., np.newaxis] >> np.arange(bits)[::-1]) & 1
    data = np.packbits(each.reshape(HEIGHT, -1).astype(np.uint8), axis=1)
    data = np.unpackbits(data, axis=1).reshape(-1, 8)[:, ::-1] if is_reversed else data
    return (np.packbits(data, axis=1) if is_reversed else data).tobytes()


def odd_tiffs() -> Iterator[tuple[str, bytes, NDArray[np.float64] | None]]:
    """Yield TIFFs that few programs write, with their pixels; None where another is no judge."""
    for bits, photometric, fill_order in itertools.product((1, 2, 4, 8, 12), (0, 1), (1, 2)):
        greys = scaled(colours()[..., 0], bits)
        seen = over_white(greys, bits)
        stored = 2**bits - 1 - greys if photometric == 0 else greys
        tags: Tags = {258: (bits,), 262: (photometric,), 266: (fill_order,)}
        data = packed(stored, bits, is_reversed=fill_order == 2)
        yield f"{bits} bits, {photometric}, fill order {fill_order}", tiff(tags, data), seen
    palette = np.random.default_rng(0).integers(0, 256, (3, 256))
    indices = scaled(colours()[..., 0], 8)
    seen = palette[:, indices].transpose(1, 2, 0).astype(np.float64)
    for factor in (257, 256, 1):
        tags = {258: (8,), 262: (3,), 320: tuple((palette * factor).ravel().tolist())}
        yield f"palette times {factor}", tiff(tags, indices.tobytes()), seen
    for bits in (10, 12, 14, 16):
        most = 2**bits - 1
        greys, rgb = scaled(colours()[..., 0], bits), scaled(colours(), bits)
        tags = {258: (16,), 262: (1,), 281: (most,)}
        yield f"{bits} bits in 16", tiff(tags, greys.tobytes()), over_white(greys, bits)
        stored = (most - greys).astype(np.uint16).tobytes()
        yield f"negative {bits} in 16", tiff(tags | {262: (0,)}, stored), over_white(greys, bits)
        tags = {258: (16,) * 3, 262: (2,), 277: (3,), 281: (most,) * 3}
        yield f"RGB with {bits} bits in 16", tiff(tags, rgb.tobytes()), over_white(rgb, bits)
    yield from odd_colours(scaled(colours(), 8))


def odd_colours(
    rgb: NDArray[Any],
) -> Iterator[tuple[str, bytes, NDArray[np.float64] | None]]:
    """Yield TIFFs of more than greys; see `odd_tiffs`."""
    seen = over_white(rgb, 8)
    for is_big in (False, True):
        tags: Tags = {258: (8,) * 3, 262: (2,), 277: (3,)}
        yield f"big: {is_big}", tiff(tags, rgb.tobytes(), is_big=is_big), seen
    inks = np.concatenate([255 - rgb, np.zeros_like(rgb[..., :1])], axis=2)
    for ink_set in (1, 2):
        tags = {258: (8,) * 4, 262: (5,), 277: (4,), 332: (ink_set,)}
        yield f"inks {ink_set}", tiff(tags, inks.tobytes()), seen if ink_set == 1 else None
        deep = inks.astype(np.uint16) * 257
        tags |= {258: (16,) * 4}
        yield f"inks {ink_set} deep", tiff(tags, deep.tobytes()), seen if ink_set == 1 else None
    ycbcr = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    for subsampling in ((1, 1), (2, 2), None):
        tags = {258: (8,) * 3, 262: (6,), 277: (3,)}
        tags |= {} if subsampling is None else {530: subsampling}
        known = seen if subsampling == (1, 1) else None
        yield f"YCbCr {subsampling}", tiff(tags, ycbcr.tobytes()), known
    for photometric, bits in itertools.product((8, 9, 10), (8, 16)):
        tags = {258: (bits,) * 3, 262: (photometric,), 277: (3,)}
        grey = np.zeros((HEIGHT, WIDTH, 3), np.uint8 if bits == 8 else np.uint16)
        grey[..., 0] = 2**bits - 1  # L of white
        white = np.full((HEIGHT, WIDTH, 3), 255.0) if photometric == 8 else None
        yield f"CIELAB {photometric} {bits}", tiff(tags, grey.tobytes()), white
    red = np.full((HEIGHT, WIDTH, 3), (138, 81, 70), np.uint8)  # 54.3, 80.8, 69.9
    tags = {258: (8,) * 3, 262: (8,), 277: (3,)}
    yield "CIELAB jpeg-like", tiff(tags, red.tobytes()), np.full(red.shape, (255.0, 0, 0))


def test_a_tiff_that_few_programs_write_is_right_or_refused() -> None:
    counts: Counter[str] = Counter()
    for name, data, expected in odd_tiffs():
        outcome = compared(name, data, np.zeros((1, 1, 3)) if expected is None else expected)
        assert expected is not None or outcome == "refused", name
        counts[outcome] += 1
    assert counts["read"] > 30


def coded(samples: NDArray[Any], bits: int) -> Iterator[Made]:
    """Yield what imagecodecs writes of greys or RGB, perhaps with alpha, in other formats."""
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    depth = {"level": 95, "bitspersample": bits}
    exact = {"level": 0, "reversible": True, "bitspersample": bits}
    options: dict[str, tuple[str, dict[str, Any]]] = {
        "webp lossless": ("webp", {"lossless": True}),
        "webp": ("webp", {"level": 95}),
        "jpeg2000": ("jpeg2k", exact | {"codecformat": "jp2"}),
        "jpeg2000 codestream": ("jpeg2k", exact | {"codecformat": "j2k"}),
        "avif": ("avif", depth),
        "qoi": ("qoi", {}),
        "bmp": ("bmp", {}),
        "jpegxl": ("jpegxl", {"lossless": True}),
        "jpegxr": ("jpegxr", {}),
    }
    if bits in (8, 16):  # with 16 of which 12 are used, a PNG does not say so
        options["png"] = ("png", {})
    if channels < 4:  # its inks are another matter
        options |= {"jpeg": ("jpeg", depth), "lossless jpeg": ("jpeg", depth | {"lossless": True})}
    for name, (codec, how) in options.items():
        try:
            data = getattr(imagecodecs, f"{codec}_encode")(samples, **how)
        except (ValueError, TypeError, RuntimeError):  # no such file
            continue
        yield f"{name} {bits} bits, {channels} channels", data


def test_other_formats_are_what_they_were_made_of_or_are_refused() -> None:
    outcomes = {}
    for bits, channels in itertools.product((8, 10, 12, 16), (1, 2, 3, 4)):
        samples = scaled(np.concatenate([colours(), colours()[..., :1]], axis=2), bits)
        samples = samples[..., :channels] if channels != 2 else samples[..., 2:]
        samples = np.ascontiguousarray(samples.squeeze())
        for name, data in coded(samples, bits):
            outcomes[name] = compared(name, data, over_white(samples, bits))
    read = {name for name, outcome in outcomes.items() if outcome == "read"}
    usual = {name for name in outcomes if " 8 bits, 3" in name and name[:5] != "jpegx"}
    assert usual <= read
    assert {"jpeg 12 bits, 3 channels", "jpeg2000 12 bits, 3 channels"} <= outcomes.keys() - read
    assert {"png 16 bits, 4 channels", "avif 12 bits, 3 channels"} <= read
