"""Scaled decoding: what may be halved, what may not, and what stays where it was."""

import io
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from alexnet_deploy.errors import PhotographError
from alexnet_deploy.model.spec import PRESETS
from alexnet_deploy.photographs import scaled_jpegs
from alexnet_deploy.photographs.decoding import decode_photograph
from alexnet_deploy.photographs.memory import limit_decoded_memory
from alexnet_deploy.photographs.pixel_limit import limit_megapixels
from alexnet_deploy.photographs.pixels import EXACT, Decode
from alexnet_deploy.photographs.preprocessing import preprocess, resized_size

SCALED = Decode.of("scaled")
PAPER = PRESETS["paper"]
SIDES = st.integers(1, 65_535) | st.integers(1, 5_000)


def jpeg(picture: Image.Image, orientation: int = 1, **options: Any) -> bytes:
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    picture.save(file, options.pop("format", "JPEG"), quality=90, exif=exif, **options)
    return file.getvalue()


def resized_header(size: tuple[int, int], **options: Any) -> bytes:
    """Return a small JPEG whose header says that it is of another size."""
    data = bytearray(jpeg(Image.new("RGB", (8, 8)), **options))
    at = data.index(b"\xff\xc2" if options.get("progressive") else b"\xff\xc0")
    data[at + 5 : at + 9] = size[1].to_bytes(2, "big") + size[0].to_bytes(2, "big")
    return bytes(data)


@cache
def picture(size: tuple[int, int]) -> Image.Image:
    """Return waves that have another phase at each place, so that no shift goes unseen."""
    x, y = np.arange(size[0]) / size[0], np.arange(size[1])[:, None] / size[1]
    waves = [np.sin(30 * x + 9 * y**2), np.sin(25 * y - 7 * x**2), np.sin(20 * x * y + 12 * y)]
    return Image.fromarray((127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8))


def crop(data: bytes, decode: Decode, preset: str = "paper") -> NDArray[np.int64]:
    spec = PRESETS[preset]
    decoded = decode_photograph(io.BytesIO(data), decode, spec.preprocessing)
    return preprocess(decoded, spec).astype(np.int64)


@given(SIDES, SIDES, st.sampled_from(sorted(PRESETS)))
@settings(max_examples=300)
def test_twice_the_size_is_left_and_no_more_than_need_be(
    width: int, height: int, preset: str
) -> None:
    """However it is to be turned: sizes and what is asked for turn together."""
    preprocessing = PRESETS[preset].preprocessing
    header = io.BytesIO(resized_header((width, height)))
    left = scaled_jpegs.open_scaled(header, preprocessing).size
    for size, kept in (((width, height), left), ((height, width), left[::-1])):
        wanted = resized_size(size, preprocessing)
        divisor = round(size[0] / kept[0]) if size[0] >= 16 else 1
        assert kept == tuple(-(-side // divisor) for side in size)
        spare = min(side / least for side, least in zip(size, wanted, strict=True))
        assert divisor == max(one for one in (1, 2, 4, 8) if one == 1 or 2 * one <= spare)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(2070, 1203), (1600, 2055)])
def test_a_scaled_crop_shows_the_same_place(size: tuple[int, int], orientation: int) -> None:
    """Their sizes are no multiples: a pixel at an edge is only in part of the photograph."""
    data = jpeg(picture(size), orientation)
    decoded = decode_photograph(io.BytesIO(data), SCALED, PAPER.preprocessing)
    assert max(decoded.size) == -(-max(size) // 2)
    difference = crop(data, SCALED) - crop(data, EXACT)
    assert np.abs(difference).mean() < 0.5
    assert np.abs(difference).max() <= 6


@pytest.mark.parametrize(
    ("format_", "size", "mode"),
    [
        ("JPEG", (1000, 1023), "RGB"),
        ("JPEG", (300, 200), "CMYK"),
        ("JPEG", (4000, 1000), "L"),
        ("MPO", (500, 375), "RGB"),
        ("PNG", (1100, 1030), "RGB"),
        ("WEBP", (1100, 1030), "RGB"),
    ],
)
def test_where_nothing_can_be_halved_nothing_changes(
    format_: str, size: tuple[int, int], mode: str
) -> None:
    data = jpeg(picture(size).convert(mode), 6, format=format_)
    assert np.array_equal(crop(data, SCALED), crop(data, EXACT))


def test_a_scaled_mpo_is_its_first_picture() -> None:
    second = Image.new("RGB", (2048, 1536), "red")
    data = jpeg(picture((2048, 1536)), format="MPO", append_images=[second], save_all=True)
    assert np.abs(crop(data, SCALED) - crop(data, EXACT)).mean() < 0.5


def test_a_text_in_a_png_is_no_extent() -> None:
    from PIL.PngImagePlugin import PngInfo

    texts, file = PngInfo(), io.BytesIO()
    texts.add_text("alexnet_deploy.extent", "(0, 0, 9, 9)")
    picture((600, 500)).save(file, "PNG", pnginfo=texts)
    assert crop(file.getvalue(), EXACT).shape == (224, 224, 3)


def test_the_limit_of_pixels_counts_what_is_decoded() -> None:
    data = jpeg(picture((2048, 2048)))
    try:
        limit_megapixels(1.05)
        crop(data, SCALED)
        with pytest.raises(PhotographError, match=r"has 4\.2 megapixels, at most 1\.1 are decoded"):
            crop(data, EXACT)
        limit_megapixels(1)
        with pytest.raises(
            PhotographError,
            match=r"has 4\.2 megapixels, at most 4\.0 are scaled down .*; raise max_megapixels",
        ):
            crop(data, SCALED)
    finally:
        limit_megapixels()


def test_a_phone_s_200_megapixels_need_no_option() -> None:
    """Pillow's own limit does not stop them; libjpeg takes what is missing at the end for grey."""
    with pytest.raises(PhotographError, match=r"has 199\.8 megapixels, at most 179\.0"):
        crop(resized_header((16_320, 12_240)), EXACT)
    assert crop(resized_header((16_320, 12_240)), SCALED).shape == (224, 224, 3)
    with pytest.raises(
        PhotographError, match=r"has 4,294\.8 megapixels, at most 715\.8 are scaled"
    ):
        crop(resized_header((65_535, 65_535)), SCALED)


def test_a_progressive_jpeg_counts_the_coefficients_of_all_its_pixels() -> None:
    limit_decoded_memory("100MB")
    try:
        with pytest.raises(PhotographError, match=r"needs 1,2\d\d MB to decode, at most 100 MB"):
            crop(resized_header((16_320, 12_240), progressive=True), SCALED)
        assert crop(resized_header((16_320, 12_240)), SCALED).shape == (224, 224, 3)
    finally:
        limit_decoded_memory()


@pytest.mark.parametrize("decode", [EXACT, Decode.of("scaled")])
def test_a_jpeg_of_countless_scans_is_refused_before_they_are_decoded(decode: Decode) -> None:
    data = jpeg(picture((8, 8)), progressive=True)
    start = data.rindex(b"\xff\xda")
    usual = io.BytesIO(data[:-2] + 80 * data[start:-2] + data[-2:])
    assert decode_photograph(usual, decode, PRESETS["paper"].preprocessing).size == (8, 8)
    countless = io.BytesIO(data[:-2] + 2**20 * data[start:-2] + data[-2:])
    with pytest.raises(PhotographError, match=r"1,048,\d{3} scans, at most 100 are decoded"):
        decode_photograph(countless, decode, PRESETS["paper"].preprocessing)
