"""A photograph gives the same pixels however it comes in; what is none is told at the call."""

import io
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from alexnet_deploy.errors import PhotographError, UsageError
from alexnet_deploy.photographs.colour import to_srgb
from alexnet_deploy.photographs.decoding import load_photograph
from alexnet_deploy.photographs.sources import image_sources, load_image
from tests.support.colour_profiles import DISPLAY_P3, grey_profile, rgb_profile, table_profile

WIDTH, HEIGHT = 23, 17


def noise(*shape: int, dtype: type = np.uint8) -> NDArray[Any]:
    return np.random.default_rng(1).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(HEIGHT, WIDTH, 3)).save(path, "JPEG", exif=exif, quality=90)


def rotated_tiff(path: Path) -> None:
    Image.fromarray(noise(HEIGHT, WIDTH, 3)).save(path, "TIFF", tiffinfo={274: 8})


def animated(path: Path) -> None:
    frames = [Image.fromarray(noise(HEIGHT, WIDTH, 3) // (n + 1)) for n in range(2)]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:])


def with_background(path: Path) -> None:
    image = Image.fromarray(noise(HEIGHT, WIDTH, 3)).quantize(16)
    image.save(path, "PNG", transparency=3)


def camera_of_adobe_rgb(path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769).update({0xA001: 0xFFFF, 0xA005: {1: "R03"}})
    Image.fromarray(noise(HEIGHT, WIDTH, 3)).save(path, "JPEG", exif=exif)


def with_profile(path: Path, mode: str, profile: bytes) -> None:
    Image.fromarray(noise(HEIGHT, WIDTH, 3)).convert(mode).save(path, "TIFF", icc_profile=profile)


INKS = table_profile(b"CMYK", lambda inks: 100 - 25 * inks[:, :3], points=3)
SAVERS: dict[str, Callable[[Path], None]] = {
    "rgb": lambda path: Image.fromarray(noise(HEIGHT, WIDTH, 3)).save(path, "PNG"),
    "jpeg": lambda path: Image.fromarray(noise(HEIGHT, WIDTH, 3)).save(path, "JPEG"),
    "cmyk": lambda path: (
        Image.fromarray(noise(HEIGHT, WIDTH, 3)).convert("CMYK").save(path, "JPEG")
    ),
    "grey": lambda path: Image.fromarray(noise(HEIGHT, WIDTH)).save(path, "PNG"),
    "16 bits": lambda path: Image.fromarray(noise(HEIGHT, WIDTH, dtype=np.uint16)).save(
        path, "PNG"
    ),
    "bilevel": lambda path: Image.fromarray(noise(HEIGHT, WIDTH)).convert("1").save(path, "PNG"),
    "alpha": lambda path: Image.fromarray(noise(HEIGHT, WIDTH, 4)).save(path, "PNG"),
    "palette": with_background,
    "turned": rotated,
    "turned TIFF": rotated_tiff,
    "animated": animated,
    "Display P3": lambda path: with_profile(path, "RGB", rgb_profile(DISPLAY_P3, None)),
    "grey of another gamma": lambda path: with_profile(path, "L", grey_profile(1.8)),
    "inks of a printer": lambda path: with_profile(path, "CMYK", INKS),
    "Adobe RGB": camera_of_adobe_rgb,
}


def pixels(picture: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(to_srgb(picture))


def ways_in(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the photograph as a path, its bytes, a file, and Pillow's image, opened and read."""
    yield "str", str(path)
    yield "bytes", path.read_bytes()
    yield "memoryview", memoryview(path.read_bytes())
    yield "file in memory", io.BytesIO(path.read_bytes())
    with path.open("rb") as file, Image.open(path) as opened, Image.open(path) as loaded:
        yield "file", file
        yield "opened image", opened
        loaded.load()
        yield "read image", loaded


@pytest.mark.parametrize("kind", SAVERS)
def test_the_same_photograph_gives_the_same_pixels(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "photograph"
    SAVERS[kind](path)
    expected = pixels(load_photograph(path))
    for name, given in ways_in(path):
        (source,) = image_sources(given)
        assert np.array_equal(pixels(load_image(source)), expected), name
    # Decoded and converted by the caller: an array of what the file shows.
    (source,) = image_sources(expected)
    assert np.array_equal(np.asarray(load_image(source)), expected)


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH, 3), (HEIGHT, WIDTH), (3, 3, 3)])
def test_an_array_is_rgb_or_grey_as_it_was_when_it_was_taken(shape: tuple[int, ...]) -> None:
    array = noise(*shape)
    expected = array.copy() if array.ndim == 3 else np.stack([array] * 3, axis=-1)
    (source,) = image_sources(array)
    array[:] = 0
    assert np.array_equal(np.asarray(load_image(source)), expected)


def test_one_image_a_list_and_a_batch_as_one_array_are_told_apart(tmp_path: Path) -> None:
    arrays = noise(2, HEIGHT, WIDTH, 3)
    assert len(list(image_sources(arrays))) == 2
    assert len(list(image_sources(arrays[0]))) == 1
    assert len(list(image_sources([arrays[0], tmp_path / "x.jpg"]))) == 2
    assert len(list(image_sources("x.jpg"))) == 1
    assert list(image_sources([])) == []


def test_an_image_is_as_it_was_when_it_was_taken() -> None:
    for mode in ("RGB", "L"):
        image = Image.new(mode, (4, 3), "white")
        (source,) = image_sources([image])
        image.paste(0, (0, 0, 4, 3))
        assert load_image(source).getpixel((0, 0)) == (255, 255, 255)


def test_what_names_images_is_not_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="images is of type dict"):
        image_sources({"a": tmp_path})
    (source,) = image_sources("a\0b.jpg")
    with pytest.raises(PhotographError, match="its name has a null character"):
        load_image(source)


def test_an_iterable_is_read_when_its_images_are_wanted() -> None:
    taken = []

    def frames() -> Iterator[NDArray[np.uint8]]:
        for number in range(3):
            taken.append(number)
            yield noise(HEIGHT, WIDTH, 3)

    sources = image_sources(frames())
    assert taken == []
    next(sources)
    assert taken == [0]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (5, "of type int, expected a path, the bytes"),
        (None, "of type NoneType"),
        (noise(HEIGHT, WIDTH, 4), r"an array \(17, 23, 4\) of uint8, expected \(H, W, 3\)"),
        (noise(HEIGHT, WIDTH, 3).astype(np.float32), r"an array \(17, 23, 3\) of float32"),
        (np.empty((0, 5, 3), np.uint8), r"an array \(0, 5, 3\)"),
        (Image.new("RGB", (0, 5)), "an image of 0 x 5 px, expected 1 px or more"),
        (io.StringIO("x"), "a file open for text, expected one open in binary mode"),
    ],
)
def test_what_is_no_image_is_told_at_the_call_with_its_place(wrong: Any, said: str) -> None:
    with pytest.raises(UsageError, match=f"images is {said}"):
        image_sources(wrong)
    with pytest.raises(UsageError, match=rf"images\[1\] is {said}"):
        image_sources(["x.jpg", wrong])
    with pytest.raises(UsageError, match=rf"images\[1\] is {said}"):
        list(image_sources(iter(["x.jpg", wrong])))


def test_a_file_that_cannot_be_read_is_a_failed_photograph(tmp_path: Path) -> None:
    file = io.BytesIO(b"x")
    file.close()
    (source,) = image_sources([file])
    with pytest.raises(PhotographError, match=r"cannot be read .*closed file"):
        load_image(source)
    lazy = Image.open(io.BytesIO(damaged_jpeg()))
    (source,) = image_sources(lazy)
    with pytest.raises(PhotographError, match="damaged or cut short"):
        load_image(source)


def damaged_jpeg() -> bytes:
    file = io.BytesIO()
    Image.fromarray(noise(200, 200, 3)).save(file, "JPEG")
    return file.getvalue()[:3000]


def test_two_threads_may_be_given_one_image_that_is_not_read_yet(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    Image.fromarray(noise(400, 300, 3)).save(path)
    expected = np.asarray(load_photograph(path))
    for _ in range(20):
        image = Image.open(path)
        barrier = threading.Barrier(4)

        def load(image: Image.Image = image, barrier: threading.Barrier = barrier) -> Any:
            barrier.wait()
            (source,) = image_sources(image)
            return np.asarray(load_image(source))

        with ThreadPoolExecutor(4) as executor:
            loaded = [executor.submit(load) for _ in range(4)]
        assert all(np.array_equal(one.result(), expected) for one in loaded)


def test_a_path_like_object_is_a_path(tmp_path: Path) -> None:
    class Entry(os.PathLike[str]):
        def __fspath__(self) -> str:
            return str(tmp_path / "x.jpg")

    assert list(image_sources(Entry())) == [tmp_path / "x.jpg"]
