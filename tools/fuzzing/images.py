"""Damaged photographs in every format that is opened."""

import io
import random
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from PIL import ExifTags, Image

from alexnet_deploy.installed import has_module
from alexnet_deploy.photographs.decoding import decode_photograph, load_photograph
from alexnet_deploy.photographs.pixel_limit import PIXELS
from alexnet_deploy.photographs.preprocessing import preprocess
from fuzzing.kinds import Kind, check
from fuzzing.mutations import changed_bytes
from tests.support.colour_profiles import (
    ADOBE_GAMMA,
    ADOBE_RGB,
    grey_profile,
    rgb_profile,
    table_profile,
)
from tests.support.fake_runner import SPEC

_SIZE = (24, 17)


def image_kind() -> Kind:
    """Return the kind "image"."""
    return Kind(name="image", write=_write, read=_read)


def _write(folder: Path, rng: random.Random) -> None:
    (folder / "photograph").write_bytes(changed_bytes(rng.choice(seeds()), rng))


def _read(folder: Path) -> None:
    path = folder / "photograph"
    image = load_photograph(path)
    check(image.mode == "RGB" or "icc_profile" in image.info, f"mode {image.mode}")
    check(0 < image.width * image.height <= PIXELS.limit, f"size {image.size}")
    crop = preprocess(image, SPEC)
    side = SPEC.input_size
    check(crop.shape == (side, side, 3) and crop.dtype == "uint8", f"crop {crop.shape}")
    again = decode_photograph(io.BytesIO(path.read_bytes()))
    check(again.size == image.size and again.tobytes() == image.tobytes(), "decoded otherwise")


@cache
def seeds() -> tuple[bytes, ...]:
    """Return good photographs: every format of `decoding`, with modes and options of each."""
    return (*_saved(), *_with_profiles(), _psd(), _sun(), _qoi(), *_raw(), *_heic())


def _saved() -> Iterator[bytes]:
    rgb = Image.effect_mandelbrot(_SIZE, (-2, -1.5, 1, 1.5), 50).convert("RGB")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Make] = "maker"
    rgba = rgb.copy()
    rgba.putalpha(128)
    deep = Image.new("I;16", _SIZE, 1000)
    yield from _files(rgb, "JPEG", {"exif": exif}, {"progressive": True}, {"subsampling": 0})
    yield from _files(rgb.convert("CMYK"), "JPEG", {})
    yield from _files(rgb, "MPO", {"save_all": True, "append_images": [rgb]})
    yield from _files(rgb, "PNG", {"exif": exif}, {"pnginfo": None})
    for image in (rgba, deep, rgb.convert("P"), rgb.convert("1"), rgb.convert("LA")):
        yield from _files(image, "PNG", {})
    yield from _files(rgb.convert("P"), "GIF", {"save_all": True, "append_images": [rgb]})
    yield from _files(rgb, "BMP", {})
    yield from _files(rgb.convert("P"), "BMP", {})
    yield from _files(rgb, "DIB", {})
    yield from _files(rgba, "WEBP", {"lossless": True}, {"exif": exif}, {"quality": 50})
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield from _files(rgb, "TIFF", {"compression": compression})
    yield from _files(rgb.convert("1"), "TIFF", {"compression": "group4"})
    for image in (deep, rgb.convert("LAB"), rgb.convert("F")):
        yield from _files(image, "TIFF", {})
    yield from _files(rgb, "AVIF", {})
    yield from _files(rgba, "JPEG2000", {"irreversible": True}, {"no_jp2": True})
    yield from _files(rgb, "PPM", {})
    yield from _files(deep, "PPM", {})
    yield b"P3 2 2 255 " + b"1 2 3 " * 4
    yield from _files(rgb, "SGI", {})
    yield from _files(rgb, "PCX", {})
    yield from _files(rgba, "TGA", {"compression": "tga_rle"}, {})


def _with_profiles() -> Iterator[bytes]:
    """Yield photographs most of whose bytes are a colour profile's."""
    rgb = Image.effect_mandelbrot(_SIZE, (-2, -1.5, 1, 1.5), 50).convert("RGB")
    curves = rgb_profile(ADOBE_RGB, ADOBE_GAMMA)
    tables = table_profile(b"RGB ", lambda colours: 100 * colours, points=3)
    inks = table_profile(b"CMYK", lambda inks: 100 - 25 * inks[:, :3], points=2)
    yield from _files(rgb, "JPEG", {"icc_profile": curves}, {"icc_profile": tables})
    yield from _files(rgb, "TIFF", {"icc_profile": curves}, {"icc_profile": tables})
    yield from _files(rgb.convert("CMYK"), "TIFF", {"icc_profile": inks})
    yield from _files(rgb.convert("L"), "TIFF", {"icc_profile": grey_profile(1.8)})


def _raw() -> Iterator[bytes]:
    """Yield raw files: a DNG, and one whose preview is found by its marks alone."""
    (jpeg,) = _files(Image.effect_mandelbrot((256, 208), (-2, -1.5, 1, 1.5), 50), "JPEG", {})
    tags = {256: 4, 257: 4, 258: 8, 259: 1, 262: 32803, 273: 8, 274: 6, 277: 1, 279: 16}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    yield b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + jpeg
    yield b"FUJIFILMCCD-RAW 0201" + bytes(64) + jpeg


def _heic() -> Iterator[bytes]:
    """Yield HEIC files, where what makes them is installed."""
    if not has_module("pillow_heif"):
        return
    from pillow_heif import from_pillow

    for mode in ("RGB", "RGBA", "L"):
        image = Image.effect_mandelbrot(_SIZE, (-2, -1.5, 1, 1.5), 50).convert(mode)
        file = io.BytesIO()
        from_pillow(image).save(file)
        yield file.getvalue()


def _files(image: Image.Image, kind: str, *options: dict[str, object]) -> Iterator[bytes]:
    for each in options:
        file = io.BytesIO()
        image.save(file, kind, **each)
        yield file.getvalue()


def _psd() -> bytes:
    """Return a PSD, which Pillow does not write: RGB, 8 bits, without layers, uncompressed."""
    width, height = _SIZE
    head = struct.pack(">4sH6xHIIHH", b"8BPS", 1, 3, height, width, 8, 3)
    return head + struct.pack(">III", 0, 0, 0) + struct.pack(">H", 0) + bytes(3 * width * height)


def _sun() -> bytes:
    """Return a Sun raster, which Pillow does not write: 24 bits, rows of an even length."""
    width, height = _SIZE
    size = 3 * width * height
    return struct.pack(">8I", 0x59A66A95, width, height, 24, size, 1, 0, 0) + bytes(size)


def _qoi() -> bytes:
    """Return a QOI of runs and pixels."""
    width, height = _SIZE
    pixels = b"\xfe\x10\x20\x30" + b"\xff\x10\x20\x30\x40" + b"\xc0" * 40 + b"\x55\xa0\x88"
    head = b"qoif" + struct.pack(">IIBB", width, height, 4, 0)
    return head + pixels * 20 + 7 * b"\0" + b"\1"
