"""What cameras and phones write beside JPEG: HEIC, and raw files by their embedded preview."""

import io
import struct
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from alexnet_deploy.errors import PhotographError
from alexnet_deploy.photographs import heif_files, jpeg_headers
from alexnet_deploy.photographs.decoding import decode_photograph
from alexnet_deploy.photographs.memory import limit_decoded_memory

SIZE = (300, 220)  # width and height


def picture(size: tuple[int, int] = SIZE) -> Image.Image:
    """Return one whose four quarters can be told apart, and that JPEG keeps."""
    quarters = Image.new("RGB", (2, 2))
    quarters.putdata([(250, 20, 30), (20, 240, 40), (30, 50, 230), (240, 240, 20)])
    return quarters.resize(size, Image.Resampling.NEAREST)


def jpeg(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95, subsampling=0, **options)
    return file.getvalue()


def pixels(data: bytes) -> NDArray[np.int64]:
    return np.asarray(decode_photograph(io.BytesIO(data))).astype(np.int64)


def assert_near(got: NDArray[np.int64], expected: Image.Image, bound: int = 12) -> None:
    assert got.shape == (expected.height, expected.width, 3)
    difference = np.abs(got - np.asarray(expected.convert("RGB")).astype(np.int64))
    assert np.median(difference) <= 3
    assert np.mean(difference > bound) < 0.02  # along the quarters' edges


def dng(preview: bytes, *, orientation: int = 1, sensor: bytes = b"") -> bytes:
    """Return a DNG: a sensor's 16-bit numbers in directory 0, the preview in a directory of it."""
    width, height = 64, 48
    sensor = sensor or bytes(2 * width * height)
    compression = 7 if sensor.startswith(b"\xff\xd8") else 1
    main = {
        254: 0,
        256: width,
        257: height,
        258: 16,
        259: compression,
        262: 32803,
        274: orientation,
    }
    main |= {277: 1, 278: height, 279: len(sensor), 50706: 0x00000401}
    inner = {254: 1, 256: SIZE[0], 257: SIZE[1], 258: 8, 259: 7, 262: 6, 277: 3, 278: SIZE[1]}
    inner |= {279: len(preview)}
    start = 8 + 2 * 6 + 12 * (len(main) + 2 + len(inner) + 1)
    main |= {273: start, 330: 8 + 6 + 12 * (len(main) + 2)}
    inner |= {273: start + len(sensor)}
    directories = b"".join(
        struct.pack("<H", len(tags))
        + b"".join(
            struct.pack("<HHII", tag, 1 if tag == 50706 else 4, 4 if tag == 50706 else 1, value)
            for tag, value in sorted(tags.items())
        )
        + bytes(4)
        for tags in (main, inner)
    )
    return b"II*\0\x08\0\0\0" + directories + sensor + preview


RAWS: dict[str, Callable[[bytes], bytes]] = {
    "DNG": dng,
    "RAF": lambda preview: b"FUJIFILMCCD-RAW 0201".ljust(148, b"\0") + preview + bytes(5000),
    "CR3": lambda preview: b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(500) + preview,
    "RW2": lambda preview: b"IIU\0\x08\0\0\0" + bytes(30) + preview + bytes(900),
    "ORF": lambda preview: b"IIRO\x08\0\0\0" + bytes(30) + preview + bytes(900),
    "MRW": lambda preview: b"\0MRM" + bytes(60) + preview,
}


@pytest.mark.parametrize("kind", RAWS)
def test_a_raw_file_is_its_largest_preview(kind: str) -> None:
    small = jpeg(picture((160, 120)).convert("L"))
    data = RAWS[kind](jpeg(picture())) + small
    assert_near(pixels(data), picture())


def test_a_raw_file_says_how_to_turn_a_preview_that_does_not_itself() -> None:
    turned = picture().transpose(Image.Transpose.ROTATE_270)
    assert_near(pixels(dng(jpeg(picture()), orientation=6)), turned)
    exif = Image.Exif()
    exif[274] = 3
    own = picture().transpose(Image.Transpose.ROTATE_180)
    assert_near(pixels(dng(jpeg(picture(), exif=exif), orientation=6)), own)


def test_the_orientation_of_a_cr3_is_in_a_box_of_its_own() -> None:
    tags = struct.pack("<2sHIHHHII4x", b"II", 42, 8, 1, 274, 3, 1, 8)
    data = b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + b"\0\0\0\x22CMT1" + tags + jpeg(picture())
    assert_near(pixels(data), picture().transpose(Image.Transpose.ROTATE_90))


def test_a_sensor_s_data_are_no_preview_though_they_be_a_jpeg_and_larger() -> None:
    sensor = jpeg(Image.new("RGB", (900, 700), "white"))
    assert_near(pixels(dng(jpeg(picture()), sensor=sensor)), picture())


@pytest.mark.parametrize("kind", RAWS)
def test_a_raw_file_without_a_preview_is_named(kind: str) -> None:
    for preview in (jpeg(picture((160, 120))), b"", b"\xff\xd8\xff"):
        with pytest.raises(PhotographError, match="is a camera raw file without a preview of 200"):
            pixels(RAWS[kind](preview))


def test_fill_bytes_are_passed_over_but_not_by_the_million() -> None:
    data = jpeg(picture())
    filled = data[:2] + b"\xff" * 20 + data[2:]
    header = jpeg_headers.read_header(filled)
    assert header is not None
    assert (header.width, header.height) == picture().size
    assert jpeg_headers.read_header(data[:2] + b"\xff" * 10_000 + data[2:]) is None


def test_thousands_of_previews_and_millions_of_tiles_are_told_apart_at_once() -> None:
    """Each tile beside each preview would be 16 billion comparisons, of a file of 3 MB."""
    tiles = np.tile(np.array([[9, 1]], "<u4"), (65_536, 1))
    small = jpeg(picture((64, 48)))
    previews = small[: small.index(b"\xff\xda") + 20] * 4000 + jpeg(picture())
    start = 8 + 32 * (2 + 5 * 12 + 4)
    numbers = tiles.T.tobytes()
    tags = [(262, 1, 32803), (324, 65_536, start), (325, 65_536, start + len(numbers) // 2)]
    tags += [(256, 1, 64), (257, 1, 48)]
    directories = b"".join(
        struct.pack("<H", len(tags))
        + b"".join(struct.pack("<HHII", tag, 4, *values) for tag, *values in sorted(tags))
        + struct.pack("<I", 8 + (number + 1) * 66 if number < 31 else 0)
        for number in range(32)
    )
    data = b"II*\0\x08\0\0\0" + directories + numbers + previews
    assert_near(pixels(data), picture())


def test_a_cut_preview_is_damaged() -> None:
    whole = dng(jpeg(picture()))
    with pytest.raises(PhotographError, match="damaged or cut short"):
        pixels(whole[:-3000])


def test_rawpy_finds_the_same_preview() -> None:
    rawpy = pytest.importorskip("rawpy", reason="the second reader; it is in [dev]")
    preview = jpeg(picture())
    with rawpy.imread(io.BytesIO(dng(preview))) as raw:
        found = raw.extract_thumb()
    with Image.open(io.BytesIO(found.data)) as seen, Image.open(io.BytesIO(preview)) as own:
        np.testing.assert_array_equal(np.asarray(seen), np.asarray(own))


def heic(image: Image.Image, **options: Any) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif", reason="HEIC needs the extra [photos]")
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, **{"quality": 95, "chroma": 444} | options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_a_heic_is_what_it_was_made_of(mode: str) -> None:
    image = picture().convert(mode)
    assert_near(pixels(heic(image)), picture().convert("L" if mode == "L" else "RGB"))


def test_a_heic_is_upright_and_its_alpha_lies_over_white() -> None:
    exif = Image.Exif()
    exif[274] = 6
    turned = picture().transpose(Image.Transpose.ROTATE_270)
    assert_near(pixels(heic(picture(), exif=exif.tobytes())), turned)
    clear = picture().convert("RGBA")
    clear.putalpha(0)
    assert_near(pixels(heic(clear)), Image.new("RGB", SIZE, "white"))


@pytest.mark.parametrize("bits", [10, 12])
def test_a_heic_of_more_than_8_bits_gives_its_high_byte(
    bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="HEIC needs the extra [photos]")
    monkeypatch.setattr(pillow_heif.options, "SAVE_HDR_TO_12_BIT", bits == 12)
    for samples, mode in (
        (np.asarray(picture()), "RGB;16"),
        (np.asarray(picture().convert("L")), "L;16"),
    ):
        deep = samples.astype(np.uint16) * 257
        file = io.BytesIO()
        image = pillow_heif.from_bytes(mode=mode, size=SIZE, data=deep.tobytes())
        image.save(file, quality=95, chroma=444)
        assert_near(pixels(file.getvalue()), Image.fromarray(samples))


def test_what_is_wrong_with_a_heic_is_said() -> None:
    whole = heic(picture())
    for length in (40, 200, len(whole) // 2, len(whole) - 20):
        with pytest.raises(PhotographError, match=r"damaged or cut short \(.*; copy it again"):
            pixels(whole[:length])
    limit_decoded_memory("500KB")
    try:
        with pytest.raises(PhotographError, match="needs 1 MB to decode, at most"):
            pixels(whole)
    finally:
        limit_decoded_memory()


def test_a_heic_without_its_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(PhotographError, match=r"HEIC.*pip install 'alexnet-deploy\[photos\]'"):
        pixels(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))


def test_an_avif_is_not_taken_for_a_heic() -> None:
    file = io.BytesIO()
    picture().save(file, "AVIF", quality=95)
    assert not heif_files.is_heif(file.getvalue()[:64])
    assert_near(pixels(file.getvalue()), picture())
