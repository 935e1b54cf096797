"""Colour profiles: numbers become the sRGB that they mean, as computed here from what is published.

The profiles and the second computation are in `tests.support.colour_profiles`.
"""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL._util import DeferredError

from alexnet_deploy.errors import PhotographError
from alexnet_deploy.figures.drawing import fitted
from alexnet_deploy.installed import has_module
from alexnet_deploy.model.spec import PRESETS
from alexnet_deploy.photographs.colour import to_srgb
from alexnet_deploy.photographs.decoding import decode_photograph
from alexnet_deploy.photographs.icc_profiles import MAX_PROFILE_BYTES
from alexnet_deploy.photographs.pixels import Decode
from alexnet_deploy.photographs.preprocessing import preprocess
from alexnet_deploy.photographs.sources import image_sources
from tests.support.colour_profiles import (
    ADOBE_GAMMA,
    ADOBE_RGB,
    DISPLAY_P3,
    SRGB,
    Floats,
    converted,
    gamma_curve,
    grey_profile,
    lab_converted,
    profile,
    rgb_profile,
    srgb_curve,
    table_profile,
)

IGNORED = Decode.of(colour="ignored")
P3 = rgb_profile(DISPLAY_P3, None)
ADOBE = rgb_profile(ADOBE_RGB, ADOBE_GAMMA)
NOISE = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
GREYS = np.arange(256, dtype=np.uint8)[np.newaxis].repeat(3, axis=0)


def of_p3(pixels: NDArray[np.uint8]) -> Floats:
    return converted(pixels, DISPLAY_P3, srgb_curve)


def of_adobe(pixels: NDArray[np.uint8]) -> Floats:
    return converted(pixels, ADOBE_RGB, gamma_curve(ADOBE_GAMMA))


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    if kind == "HEIF":
        from pillow_heif import from_pillow

        image.info.update(options)
        from_pillow(image).save(file)
    else:
        image.save(file, kind, **options)
    return file.getvalue()


def seen(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(to_srgb(decode_photograph(io.BytesIO(data))))


def stored(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(decode_photograph(io.BytesIO(data), IGNORED))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF", "MPO", "HEIF"])
def test_a_profile_is_found_in_every_format(kind: str) -> None:
    if kind == "HEIF" and not has_module("pillow_heif"):
        pytest.skip("HEIC needs the package pillow-heif")
    for icc, expected in ((P3, of_p3), (ADOBE, of_adobe)):
        data = saved(Image.fromarray(NOISE), kind, icc_profile=icc)
        assert np.abs(seen(data) - expected(stored(data))).max() <= 1
        crop = preprocess(decode_photograph(io.BytesIO(data)), PRESETS["paper"])
        unconverted = preprocess(decode_photograph(io.BytesIO(data), IGNORED), PRESETS["paper"])
        assert np.abs(crop - expected(unconverted)).max() <= 1


def test_palettes_alpha_and_greys_with_a_profile_of_colours_are_converted() -> None:
    images = {
        "P": Image.fromarray(NOISE).quantize(200),
        "RGBA": Image.fromarray(np.dstack([NOISE, NOISE[..., :1]])),
        "L": Image.fromarray(GREYS),
    }
    for mode, image in images.items():
        data = saved(image, "PNG", icc_profile=ADOBE)
        assert np.abs(seen(data) - of_adobe(stored(data))).max() <= 1, mode
    assert seen(saved(Image.new("RGBA", (4, 4)), "PNG", icc_profile=P3)).min() == 255


def test_greys_are_converted_by_their_own_profile() -> None:
    def of_gamma(pixels: NDArray[np.uint8]) -> Floats:
        return converted(pixels, SRGB, gamma_curve(round(1.8 * 256) / 256))

    sixteen = Image.fromarray(GREYS.astype(np.uint16) * 257)
    transparent = Image.fromarray(np.dstack([GREYS, GREYS]))
    for image in (Image.fromarray(GREYS), sixteen, transparent):
        data = saved(image, "PNG", icc_profile=grey_profile(1.8))
        assert np.abs(seen(data) - of_gamma(stored(data))).max() <= 1.5


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_what_its_inks_give(kind: str) -> None:
    def lab_of(inks: Floats) -> Floats:
        """The darker the more ink, without a hue where all are equal; linear, as between points."""
        cyan, magenta, yellow, _ = inks.T
        return np.stack([100 - 25 * inks.sum(axis=1), magenta - cyan, yellow - cyan], axis=1) * [
            [1, 30, 30]
        ]

    inks = np.random.default_rng(0).integers(0, 256, (40, 50, 4), dtype=np.uint8)
    smooth = Image.fromarray(inks, "CMYK").resize((50, 40), box=(0, 0, 5, 4))
    data = saved(smooth, kind, icc_profile=table_profile(b"CMYK", lab_of), quality=95)
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "CMYK"
        expected = lab_converted(lab_of(np.asarray(image).reshape(-1, 4) / 255))
    got = seen(data)
    assert got.shape == (40, 50, 3)
    difference = np.abs(got.reshape(-1, 3) - expected)
    assert difference.max() <= 4
    assert difference.mean() < 1
    assert np.abs(got - stored(data).astype(int)).mean() > 10


def test_a_pillow_without_littlecms_refuses_what_it_cannot_convert(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lab = Image.fromarray(NOISE).convert("LAB")
    photographs = [
        saved(Image.fromarray(NOISE), "PNG", icc_profile=rgb_profile(SRGB, 1.5)),
        saved(lab, "TIFF"),
    ]
    monkeypatch.setattr(ImageCms, "core", DeferredError(ImportError("no _imagingcms")))
    for data in photographs:
        with pytest.raises(PhotographError, match=r"made without .*; install a wheel of Pillow"):
            seen(data)
    assert stored(photographs[0]).shape == NOISE.shape


def test_a_camera_set_to_adobe_rgb_says_so_in_exif() -> None:
    def photograph(index: str, colour_space: int) -> bytes:
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0xA001] = colour_space
        exif.get_ifd(0x8769)[0xA005] = {1: index}
        return saved(Image.fromarray(NOISE), "JPEG", exif=exif)

    adobe = photograph("R03", 0xFFFF)
    assert np.abs(seen(adobe) - of_adobe(stored(adobe))).max() <= 1
    for data in (photograph("R98", 0xFFFF), photograph("R03", 1)):
        np.testing.assert_array_equal(seen(data), stored(data))


def test_profiles_that_mean_srgb_or_nothing_change_no_bit() -> None:
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    of_inks = table_profile(b"CMYK", lambda inks: 100 - 25 * inks[:, :3])
    link = P3[:12] + b"link" + P3[16:]
    floats = profile(b"RGB ", b"XYZ ", {b"D2B0": b"mpet"})
    tables = table_profile(b"RGB ", lambda colours: 100 * colours, points=3)
    vast = tables.replace(b"\x03\x03\x03\0", b"\x03\x03\xff\0")  # points along each axis
    others = [of_inks, grey_profile(1.8), link, floats, vast, P3[:100], P3[:200], b"\0" * 3000]
    huge = P3.ljust(MAX_PROFILE_BYTES + 1, b"\0")
    for icc in (own, rgb_profile(SRGB, None), *others, huge):
        data = saved(Image.fromarray(NOISE), "TIFF", icc_profile=icc)
        picture = decode_photograph(io.BytesIO(data))
        assert to_srgb(picture) is picture
        np.testing.assert_array_equal(np.asarray(picture), NOISE)
    for mode in ("CMYK", "LAB"):
        other = saved(Image.fromarray(NOISE).convert(mode), "TIFF", icc_profile=P3)
        np.testing.assert_array_equal(seen(other), stored(other))


@given(st.data())
def test_a_damaged_profile_is_used_or_ignored(data: st.DataObject) -> None:
    icc = bytearray(data.draw(st.sampled_from([P3, ADOBE, table_profile(b"RGB ", lambda v: v, 3)])))
    for _ in range(data.draw(st.integers(1, 4))):
        icc[data.draw(st.integers(0, len(icc) - 1))] = data.draw(st.integers(0, 255))
    cut = icc[: data.draw(st.integers(1, len(icc)))]
    for damaged in (icc, cut):
        shown = seen(saved(Image.fromarray(NOISE[:4, :4]), "TIFF", icc_profile=bytes(damaged)))
        assert shown.shape == (4, 4, 3)


def test_a_callers_image_keeps_its_profile() -> None:
    given_image = Image.fromarray(NOISE)
    for decode in (Decode.of(), IGNORED):
        given_image.info["icc_profile"] = P3
        (source,) = image_sources(given_image, decode)
        assert given_image.info["icc_profile"] == P3
        assert np.array_equal(np.asarray(given_image), NOISE)
        expected = of_p3(NOISE) if decode != IGNORED else NOISE
        assert isinstance(source, Image.Image)
        assert np.abs(np.asarray(to_srgb(source)) - expected).max() <= 1


def test_threads_that_share_a_profile_give_the_same_bits() -> None:
    inks = table_profile(b"CMYK", lambda inks: 100 - 25 * inks[:, :3])
    smooth = Image.effect_mandelbrot((400, 300), (-2, -1.5, 1, 1.5), 50)
    images: list[tuple[str, bytes]] = [("RGB", P3), ("RGB", ADOBE), ("CMYK", inks)]
    photographs = [saved(smooth.convert(mode), "TIFF", icc_profile=icc) for mode, icc in images]
    expected = [seen(data) for data in photographs]
    with ThreadPoolExecutor(8) as threads:
        shown = list(threads.map(seen, 20 * photographs))
    assert all(np.array_equal(one, other) for one, other in zip(shown, 20 * expected, strict=True))


def test_what_is_drawn_is_converted() -> None:
    data = saved(Image.fromarray(NOISE), "PNG", icc_profile=P3)
    shown, plain = (
        np.asarray(fitted(decode_photograph(io.BytesIO(data), decode), 30, 30))
        for decode in (Decode.of(), IGNORED)
    )
    assert np.abs(shown - of_p3(plain)).max() <= 1
