"""Decoding awkward files; test_finding.py finds them."""

import errno
import io
import os
import socket
import struct
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, PcxImagePlugin

from alexnet_deploy.errors import ArgumentError, PhotographError
from alexnet_deploy.photographs.decoding import decode_photograph, load_photograph
from alexnet_deploy.photographs.pixel_limit import limit_megapixels
from alexnet_deploy.photographs.suffixes import PHOTO_SUFFIXES, RAW_SUFFIXES


def saved(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def pixels(path: Path) -> NDArray[np.uint8]:
    photograph = load_photograph(path)
    assert photograph.mode == "RGB"
    return np.asarray(photograph)


def noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    "suffix",
    [
        s
        for s in PHOTO_SUFFIXES
        if s not in (".pgm", ".pbm", ".pnm", ".mpo", ".jpc", ".j2c", *RAW_SUFFIXES)
    ],
)
def test_every_suffix_is_of_a_format_that_is_read(suffix: str, tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (40, 30), (200, 100, 50)), tmp_path / f"x{suffix}")
    assert np.abs(pixels(path) - np.array([200, 100, 50])).max() <= 6  # lossy formats
    assert pixels(path).shape == (30, 40, 3)


def test_the_content_counts_and_not_the_suffix(tmp_path: Path) -> None:
    expected = noise(5, 6, 3)
    path = saved(Image.fromarray(expected), tmp_path / "x.jpg", format="PNG")
    np.testing.assert_array_equal(pixels(path), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_exif_orientation_is_applied(orientation: int, suffix: str, tmp_path: Path) -> None:
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16] = (255, 0, 0)
    upright[8:, 16:] = (0, 0, 255)
    # As stored, for each orientation of the EXIF standard: how the camera was held undone.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    options = {"quality": 100, "subsampling": 0} if suffix == "jpg" else {}
    if suffix == "webp":
        options = {"lossless": True}
    path = saved(image, tmp_path / f"x.{suffix}", exif=exif, **options)
    assert np.abs(pixels(path).astype(int) - upright).max() <= 3  # JPEG


def test_damaged_exif_counts_as_none(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (20, 10), "white"), tmp_path / "x.jpg", exif=b"Exif\0\0garbage!")
    assert pixels(path).shape == (10, 20, 3)


def test_one_bit_and_grey_become_rgb(tmp_path: Path) -> None:
    grey = noise(4, 5)
    path = saved(Image.fromarray(grey), tmp_path / "x.png")
    np.testing.assert_array_equal(pixels(path), np.repeat(grey[..., None], 3, axis=2))
    bits = grey > 127
    path = saved(Image.fromarray(bits), tmp_path / "bits.png")
    expected = np.repeat(np.where(bits, 255, 0)[..., None], 3, axis=2)
    np.testing.assert_array_equal(pixels(path), expected)


@pytest.mark.parametrize(("mode", "channels"), [("LA", 2), ("RGBA", 4)])
def test_alpha_lies_over_white(mode: str, channels: int, tmp_path: Path) -> None:
    stored = noise(16, 16, channels)
    path = saved(Image.fromarray(stored, mode), tmp_path / "x.png")
    alpha = stored[..., -1:] / 255.0
    expected = stored[..., :-1] * alpha + 255 * (1 - alpha)
    assert np.abs(pixels(path) - expected).max() <= 0.51  # rounding to whole levels


def test_transparent_colours_of_palette_grey_and_rgb_are_white(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    expected = [[[10, 20, 30], [255, 255, 255]]]
    for suffix in ("png", "gif"):
        path = saved(palette, tmp_path / f"x.{suffix}", transparency=1)
        assert pixels(path).tolist() == expected
    grey = Image.fromarray(np.array([[7, 9]], np.uint8))
    path = saved(grey, tmp_path / "grey.png", transparency=9)
    assert pixels(path).tolist() == [[[7] * 3, [255] * 3]]
    rgb = Image.fromarray(np.array([[[10, 20, 30], [1, 2, 3]]], np.uint8))
    path = saved(rgb, tmp_path / "rgb.png", transparency=(1, 2, 3))
    assert pixels(path).tolist() == expected
    # A palette with an alpha for each of its colours.
    path = saved(palette, tmp_path / "bytes.png", transparency=bytes([255, 0]))
    assert pixels(path).tolist() == expected


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk_becomes_rgb(suffix: str, tmp_path: Path) -> None:
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert np.abs(pixels(saved(cyan, tmp_path / f"x.{suffix}")) - np.array([0, 255, 255])).max() < 4


def test_lab_becomes_srgb(tmp_path: Path) -> None:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    red = Image.new("RGB", (4, 4), (200, 30, 40))
    converted = ImageCms.profileToProfile(red, srgb, lab, outputMode="LAB")
    assert converted is not None
    # 8 bits of L, a and b are coarse.
    assert np.abs(pixels(saved(converted, tmp_path / "x.tif")) - np.array([200, 30, 40])).max() < 8


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm", "jp2"])
def test_16_bit_greys_give_their_high_byte(suffix: str, tmp_path: Path) -> None:
    greys = np.random.default_rng(0).integers(0, 65536, (6, 7), dtype=np.uint16)
    path = saved(Image.fromarray(greys), tmp_path / f"x.{suffix}")
    np.testing.assert_array_equal(pixels(path), np.repeat((greys >> 8)[..., None], 3, axis=2))


def test_16_bit_greys_with_the_high_byte_first_are_read(tmp_path: Path) -> None:
    image = Image.frombytes("I;16B", (2, 1), bytes([0x12, 0x34, 0xAB, 0xCD]))
    path = saved(image, tmp_path / "x.tif")
    assert pixels(path).tolist() == [[[0x12] * 3, [0xAB] * 3]]


def test_16_bit_colour_gives_its_high_byte(tmp_path: Path) -> None:
    row = struct.pack(">B3H3H", 0, 0x1234, 0x5678, 0x9ABC, 0xFFFF, 0x00FF, 0x0100)
    path = tmp_path / "x.png"
    path.write_bytes(png(2, 1, zlib.compress(row), depth=16))
    assert pixels(path).tolist() == [[[0x12, 0x56, 0x9A], [0xFF, 0, 1]]]


def test_32_bit_and_floating_point_greys_are_refused(tmp_path: Path) -> None:
    wide = Image.fromarray(np.array([[0, 70_000]], np.int32))
    with pytest.raises(PhotographError, match="from 0 to 70000, expected 0 to 65535"):
        load_photograph(saved(wide, tmp_path / "wide.tif"))
    floats = Image.fromarray(np.zeros((2, 2), np.float32))
    with pytest.raises(PhotographError, match="floating-point"):
        load_photograph(saved(floats, tmp_path / "floats.tif"))


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif", "avif"])
def test_an_animation_gives_its_first_frame(suffix: str, tmp_path: Path) -> None:
    first, *others = (Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue"))
    path = saved(first, tmp_path / f"x.{suffix}", save_all=True, append_images=others)
    assert np.abs(pixels(path) - np.array([255, 0, 0])).max() <= 6


def png(width: int, height: int, data: bytes, *, depth: int = 8) -> bytes:
    """Return an RGB PNG whose header claims `width` x `height`."""
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def test_a_png_is_examined_piece_by_piece() -> None:
    """Of one long chunk, zlib would copy what is left of it at each call."""
    sizes: list[int] = []

    class Counted(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            sizes.append(-1 if size is None else size)
            return super().read(size)

    noise = np.random.default_rng(0).integers(0, 256, (400, 1 + 3 * 400), np.uint8)
    noise[:, 0] = 0  # the filter
    noise[-1] = 0  # a row that might be missing
    data = png(400, 400, zlib.compress(noise.tobytes()))
    assert decode_photograph(Counted(data)).size == (400, 400)
    assert max(sizes) <= 2**16 < len(data)


def test_a_bomb_of_200_megapixels_is_refused_undecoded_whatever_limit_the_process_has_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png(20_000, 10_000, b""))
    for limit in (Image.MAX_IMAGE_PIXELS, None):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(PhotographError, match=r"has 200\.0 megapixels, at most 179\.0"):
            load_photograph(path)


def test_a_photograph_beyond_pillow_s_limit_is_read_by_who_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500_000)
    path = saved(Image.new("1", (2000, 1000)), tmp_path / "x.png")
    with pytest.raises(PhotographError, match=r"has 2\.0 megapixels"):
        load_photograph(path)
    try:
        limit_megapixels(2)
        assert load_photograph(path).size == (2000, 1000)
        limit_megapixels(1.9)
        with pytest.raises(
            PhotographError, match=r"has 2\.0 megapixels, at most 1\.9 .*; raise max_megapixels"
        ):
            load_photograph(path)
    finally:
        limit_megapixels()


@pytest.mark.parametrize("limit", [0, -1, 1e-5, float("nan"), 1e9, "many", None])
def test_what_is_no_number_of_megapixels_is_refused(limit: Any) -> None:
    with pytest.raises(ArgumentError, match=r"max_megapixels is .*, expected a number from 0.1 to"):
        limit_megapixels(limit)


def test_a_transparent_16_bit_grey_is_white(tmp_path: Path) -> None:
    greys = Image.fromarray(np.array([[0x1234, 0x5678]], np.uint16))
    path = saved(greys, tmp_path / "x.png", transparency=0x1234)
    assert pixels(path)[..., 0].tolist() == [[255, 0x56]]


def test_a_bmp_of_a_kind_that_is_not_read_is_not_damaged(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (4, 4)), tmp_path / "x.bmp")
    content = bytearray(path.read_bytes())
    content[28:30] = (2).to_bytes(2, "little")  # bits a pixel, as of bmpsuite's pal2.bmp
    path.write_bytes(content)
    with pytest.raises(PhotographError, match=r"is of a kind that is not read \(Unsupported BMP"):
        load_photograph(path)


def test_what_pillow_warns_of_is_left_to_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Pillow warns above its limit and refuses above twice that; pytest turns warnings to errors.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)
    path = saved(Image.new("RGB", (20, 10)), tmp_path / "x.png")
    with pytest.raises(
        PhotographError, match=r"Pillow warns about it .*exceeds limit.*exempt those"
    ):
        pixels(path)
    filters = list(warnings.filters)
    with pytest.warns(Image.DecompressionBombWarning):
        assert pixels(path).shape == (10, 20, 3)
    assert warnings.filters == filters


def test_a_truncated_jpeg_is_reported_at_whatever_length(tmp_path: Path) -> None:
    whole = saved(Image.fromarray(noise(64, 64, 3)), tmp_path / "whole.jpg").read_bytes()
    path = tmp_path / "x.jpg"
    for length in (4, 30, 200, 600, len(whole) // 2, len(whole) - 200):
        path.write_bytes(whole[:length])
        with pytest.raises(PhotographError, match=r"damaged or cut short \(.*\); copy it again"):
            load_photograph(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"<!DOCTYPE html>\n<html>", "not an image: it begins with '<!DOCTYPE html>'"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "damaged or cut|pip install 'alexnet-deploy.photos.'"),
        (b"\0\0\0\x1cftypavif\0\0\0\0mif1miaf", "begins as an AVIF|damaged"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "is a film or sound, not a photograph"),
        (b"\xff\x0a\xfa\x7f\1\x90\x28", "is a JPEG XL, which is not read; convert it"),
        (b"%PDF-1.7", "is a PDF, which is not read"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "damaged or cut short"),
        (b"FUJIFILMCCD-RAW 0201", "camera raw file without a preview of 200 px"),
        (
            b"RIFF\x24\0\0\0AVI LIST",
            r"not an image: it begins with 'RIFF\$\\x00\\x00\\x00AVI LIST'",
        ),
        (b"RIFF\x24\0\0\0WEBP", "damaged or cut short .begins as a WebP"),
        (b"\n\n", "not an image: it begins with ''"),
        (b"\xfe\x00\x80", r"not an image: it begins with '\\xfe\\x00\\x80'"),
    ],
)
def test_what_is_no_image_is_named(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(PhotographError, match=reason):
        load_photograph(path)


def test_folders_pipes_and_missing_files_have_reasons(tmp_path: Path) -> None:
    with pytest.raises(PhotographError, match="is a folder"):
        load_photograph(tmp_path)
    with pytest.raises(PhotographError, match=r"cannot be read \(No such file"):
        load_photograph(tmp_path / "gone.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.jpg"))
    for name in ("pipe.jpg", "socket.jpg", "device.jpg"):
        (tmp_path / f"to-{name}").symlink_to(os.devnull if name == "device.jpg" else name)
        with pytest.raises(PhotographError, match="is a pipe, socket or device"):
            load_photograph(tmp_path / f"to-{name}")


def test_a_pipe_put_in_the_place_of_a_file_that_was_looked_at_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = saved(Image.new("RGB", (4, 4)), tmp_path / "x.png").stat()
    os.mkfifo(tmp_path / "pipe.jpg")
    monkeypatch.setattr(Path, "stat", lambda _: looked_at)
    with pytest.raises(PhotographError, match="it is not a regular file"):
        load_photograph(tmp_path / "pipe.jpg")


def test_a_file_of_30_gb_is_refused_unread_and_links_to_photographs_are_followed(
    tmp_path: Path,
) -> None:
    photograph = saved(Image.new("RGB", (4, 4)), tmp_path / "x.png")
    (tmp_path / "link.png").symlink_to(photograph)
    assert pixels(tmp_path / "link.png").shape == (4, 4, 3)
    os.truncate(photograph, 30 * 10**9)  # a hole: it takes no space
    with pytest.raises(PhotographError, match=r"has 30\.0 GB, at most 1\.1 GB are read; scale"):
        load_photograph(tmp_path / "link.png")


def test_a_position_before_the_beginning_is_damage_and_so_is_any_error_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(Image.new("L", (3, 3)), tmp_path / "x.pcx")
    path.write_bytes(
        path.read_bytes()[:100]
    )  # a PCX looks for its palette 769 bytes before the end
    with pytest.raises(PhotographError, match=r"damaged or cut short \(Invalid argument\)"):
        load_photograph(path)

    def fail(_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(PcxImagePlugin.PcxImageFile, "_open", fail)
    with pytest.raises(PhotographError, match=r"cannot be read \(Input/output error\)"):
        load_photograph(path)
    with pytest.raises(PhotographError, match=r"damaged or cut short \(Input/output error\)"):
        decode_photograph(io.BytesIO(path.read_bytes()))


def test_damage_of_any_kind_is_a_reason_and_nothing_else(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for suffix in ("jpg", "png", "gif", "tif", "webp", "bmp", "jp2", "pcx", "tga", "qoi", "avif"):
        path = tmp_path / f"x.{suffix}"
        whole = saved(Image.fromarray(noise(24, 24, 3)), path).read_bytes()
        for _ in range(25):
            damaged = bytearray(whole)
            for position in generator.integers(0, min(len(whole), 400), 6):
                damaged[position] = generator.integers(256)
            path.write_bytes(damaged[: generator.integers(1, len(damaged) + 1)])
            with suppress(PhotographError):
                assert load_photograph(path).mode == "RGB"


def test_files_are_closed(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (8, 8)), tmp_path / "x.jpg")
    before = os.listdir("/proc/self/fd")
    kept = [load_photograph(path) for _ in range(5)]
    assert os.listdir("/proc/self/fd") == before
    assert len(kept) == 5
