"""Decoding on a GPU, by nvImageCodec's decoder for the CPU in the GPU's place.

That one gives Pillow's pixels to the bit, so that all but the arithmetic of a GPU is tested: which
photographs it is given, what becomes of the others, and that a turn or a profile is not lost.
"""

import io
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu_checks import test_decoding
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from alexnet_deploy.errors import DeviceError, MissingPackageError, PhotographError
from alexnet_deploy.index.model import ModelRequest
from alexnet_deploy.inference.run import RunSummary, run
from alexnet_deploy.model.spec import PRESETS
from alexnet_deploy.photographs import gpu_jpegs
from alexnet_deploy.photographs.decoding import convert_image, decode_photograph
from alexnet_deploy.photographs.gpu_jpegs import REFUSALS, check_gpu_decoding
from alexnet_deploy.photographs.memory import limit_decoded_memory
from alexnet_deploy.photographs.pipeline import crop_loader
from alexnet_deploy.photographs.pixels import EXACT, Decode
from alexnet_deploy.photographs.preprocessing import preprocess
from alexnet_deploy.photographs.samples import sample_paths, varied_samples
from alexnet_deploy.runtimes.base import RunnerOptions
from tests.support.colour_profiles import DISPLAY_P3, grey_profile, rgb_profile
from tests.support.fake_runner import FakeRunner
from tests.support.index_runner import Runners, indexed, save, search, update

codec = pytest.importorskip("nvidia.nvimgcodec", reason="pip install nvidia-nvimgcodec-cu13")

ON_GPU = Decode.of("gpu")
PAPER = PRESETS["paper"]


@pytest.fixture(scope="module", autouse=True)
def instead_of_a_gpu() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_jpegs, "_DEVICE", codec.NVIMGCODEC_DEVICE_CPU_ONLY)
        patch.setattr(gpu_jpegs, "_BACKENDS", ("CPU_ONLY",))
        yield


def noise(size: tuple[int, int], channels: int = 3, seed: int = 0) -> Image.Image:
    shape = (size[1], size[0], channels)[: 2 + (channels > 1)]
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


def jpeg(picture: Image.Image, orientation: int = 1, **options: Any) -> bytes:
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    picture.save(file, "JPEG", exif=exif, **{"quality": 90, **options})
    return file.getvalue()


def crop(data: bytes, decode: Decode) -> NDArray[np.uint8] | str:
    """Return what the network sees, or the reason why it sees nothing."""
    try:
        picture = decode_photograph(io.BytesIO(data), decode, PAPER.preprocessing)
    except PhotographError as error:
        return error.reason
    return preprocess(picture, PAPER)


def num_refused(data: bytes) -> int:
    """Return how many JPEGs Pillow decoded for the GPU; it sees the same in any case."""
    before = REFUSALS.count
    np.testing.assert_array_equal(crop(data, ON_GPU), crop(data, EXACT))
    return REFUSALS.count - before


@settings(max_examples=60)
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    subsampling=st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
    channels=st.sampled_from([1, 3]),
    orientation=st.integers(1, 8),
    options=st.fixed_dictionaries(
        {"progressive": st.booleans(), "quality": st.integers(5, 100), "optimize": st.booleans()}
    ),
)
def test_jpegs_of_all_usual_kinds_are_decoded_there_and_turned(
    size: tuple[int, int],
    subsampling: str,
    channels: int,
    orientation: int,
    options: dict[str, Any],
) -> None:
    options |= {"subsampling": subsampling} if channels == 3 else {}
    assert num_refused(jpeg(noise(size, channels), orientation, **options)) == 0


def test_the_samples_are_decoded_there() -> None:
    for path in varied_samples():
        assert num_refused(path.read_bytes()) == 0, path


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_colour_profile_is_not_lost(mode: str) -> None:
    picture = noise((40, 30)).convert(mode)
    profile = rgb_profile(DISPLAY_P3, 1.5) if mode == "RGB" else grey_profile(1.5)
    data = jpeg(picture, icc_profile=profile)
    assert num_refused(data) == 0
    assert not np.array_equal(crop(data, ON_GPU), crop(jpeg(picture), ON_GPU))


def test_jpegs_of_other_kinds_and_other_formats_are_left_to_pillow() -> None:
    picture = noise((50, 40))
    assert num_refused(jpeg(picture.convert("CMYK"))) == 1
    assert num_refused(jpeg(picture, keep_rgb=True)) == 1  # its components are R, G and B
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"  # and so say the last byte's 0
    data = jpeg(picture, subsampling="4:4:4")
    assert num_refused(data[:2] + adobe + data[2:]) == 1
    several = io.BytesIO()  # as telephones write them, with JPEG's suffix
    picture.save(several, "MPO", save_all=True, append_images=[picture])
    assert num_refused(several.getvalue()) == 1
    png = io.BytesIO()
    picture.save(png, "PNG")
    assert num_refused(png.getvalue()) == 0


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32), progressive=st.booleans())
def test_a_damaged_file_is_what_it_is_to_pillow(seed: int, progressive: bool) -> None:
    chance = random.Random(seed)
    data = bytearray(jpeg(noise((60, 50)), progressive=progressive))
    for _ in range(chance.randint(1, 4)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    np.testing.assert_array_equal(crop(bytes(data), ON_GPU), crop(bytes(data), EXACT))


def test_a_file_that_is_cut_short_is_not_given_to_a_decoder_that_would_fill_it_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[int] = []

    def fill_up(data: bytes) -> Image.Image:
        given.append(len(data))
        return Image.new("RGB", (60, 50))

    monkeypatch.setattr(gpu_jpegs, "_decode", fill_up)
    data = jpeg(noise((60, 50)))
    for length in range(3, len(data) - 2, 7):
        assert isinstance(crop(data[:length], ON_GPU), str)
    assert given == []
    assert np.array_equal(crop(data, ON_GPU), np.zeros((224, 224, 3)))


def test_a_callers_picture_is_decoded_as_its_file_is() -> None:
    data, before = jpeg(noise((60, 50)), 6), REFUSALS.count
    converted = convert_image(Image.open(io.BytesIO(data)), ON_GPU)
    np.testing.assert_array_equal(preprocess(converted, PAPER), crop(data, EXACT))
    assert REFUSALS.count == before
    drafted = Image.open(io.BytesIO(data))
    drafted.draft("L", (30, 25))
    assert convert_image(drafted, ON_GPU).size == (25, 30)


def test_what_the_array_takes_is_in_the_bound_of_memory() -> None:
    data = jpeg(noise((1000, 1000)))
    try:
        limit_decoded_memory("6.5MB")  # 4 bytes a pixel, and some for the resize
        assert isinstance(crop(data, EXACT), np.ndarray)
        assert "needs 8 MB to decode, at most 6 MB" in str(crop(data, ON_GPU))
    finally:
        limit_decoded_memory()


def test_a_run_says_how_many_pillow_decoded_for_the_gpu(tmp_path: Path) -> None:
    contents = [jpeg(noise((50, 40))), jpeg(noise((50, 40)).convert("CMYK"))] * 3
    summary, runner = RunSummary(), FakeRunner(RunnerOptions(batch_size=2))
    results = list(run(runner, contents, decode=ON_GPU, threads=2, summary=summary))
    assert [result.error for result in results] == [None] * 6
    assert summary.num_refused == 3
    assert "; Pillow decoded 3 JPEGs for the GPU" in summary.line()


def test_decoders_are_kept_for_later_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []

    def counted(module: Any, new: Any = gpu_jpegs._new_decoder) -> Any:
        made.append(module)
        return new(module)

    monkeypatch.setattr(gpu_jpegs, "_free", {})
    monkeypatch.setattr(gpu_jpegs, "_new_decoder", counted)
    runner = FakeRunner(RunnerOptions(batch_size=2))
    for _ in range(3):
        list(run(runner, [jpeg(noise((50, 40)))] * 8, decode=ON_GPU, threads=2))
    assert 1 <= len(made) <= 2


def test_a_machine_without_a_gpu_says_so_at_the_call(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(gpu_jpegs, "_free", {})
    monkeypatch.setattr(gpu_jpegs, "_DEVICE", 0)
    monkeypatch.setattr(gpu_jpegs, "_BACKENDS", ("GPU_ONLY",))
    with pytest.raises(DeviceError, match=r'cannot decode on a GPU here .*decode="exact"'):
        crop_loader(PAPER, ON_GPU)
    assert capfd.readouterr() == ("", "")
    with pytest.raises(DeviceError, match="cannot decode on a GPU here"):
        decode_photograph(io.BytesIO(jpeg(noise((50, 40)))), ON_GPU)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [(lambda picture: None, "does not decode"), (lambda p: p.rotate(90), "other colours")],
)
def test_a_decoder_that_does_not_do_what_pillow_does_is_refused(
    wrong: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_gpu_decoding()
    right = gpu_jpegs._decode
    monkeypatch.setattr(gpu_jpegs, "_decode", lambda data: wrong(right(data)))
    with pytest.raises(DeviceError, match=message):
        crop_loader(PAPER, ON_GPU)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_jpegs._codec.cache_clear()
    monkeypatch.setitem(sys.modules, "nvidia.nvimgcodec", None)
    monkeypatch.delattr("nvidia.nvimgcodec")
    with pytest.raises(MissingPackageError, match=r"alexnet-deploy\[gpu\]"):
        crop_loader(PAPER, ON_GPU)
    crop_loader(PAPER, EXACT)


def test_what_the_library_says_of_other_formats_is_not_shown() -> None:
    script = "from alexnet_deploy.photographs import gpu_jpegs as g; print(g._codec().__name__)"
    finished = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert (finished.stdout, finished.stderr) == ("nvidia.nvimgcodec\n", "")


def test_an_index_keeps_decoding_on_a_gpu_and_is_not_mixed_where_there_is_none(
    tmp_path: Path, runners: Runners, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, index = tmp_path / "photos", tmp_path / "index"
    first = save(photos / "a.jpg", jpeg(Image.new("RGB", (90, 80), (9, 99, 199))))
    update(index, photos, request=ModelRequest(layer="logits", batch_size=3, decode="gpu"))
    save(photos / "b.jpg", jpeg(Image.new("RGB", (90, 80), (199, 99, 9))))
    update(index, photos)
    assert len(indexed(index)) == 2
    save(photos / "c.jpg", jpeg(Image.new("RGB", (90, 80), (99, 199, 9))))
    monkeypatch.setattr(gpu_jpegs, "_free", {})
    monkeypatch.setattr(gpu_jpegs, "_DEVICE", 0)
    monkeypatch.setattr(gpu_jpegs, "_BACKENDS", ("GPU_ONLY",))
    with pytest.raises(DeviceError, match="cannot decode on a GPU here"):
        update(index, photos)
    assert len(indexed(index)) == 2
    (result,) = search(index, [first])  # whose vector the index has
    assert len(result.neighbours) == 1


def test_the_check_of_a_gpu_compares_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    figures: dict[str, Any] = {}
    samples = sample_paths()[0].parents[1]
    test_decoding.test_jpegs(samples, figures)
    assert figures["photographs"] == 100
    assert (figures["refused"], figures["levels_apart_most"]) == (0, 0)
    assert figures["many_at_once_images_per_s"] > 0
    monkeypatch.setattr(
        gpu_jpegs, "_decode", lambda data, right=gpu_jpegs._decode: turned(right(data))
    )
    monkeypatch.setattr(gpu_jpegs, "_MOST_APART", 255)
    with pytest.raises(AssertionError, match="other pictures"):
        test_decoding.test_jpegs(samples, figures)


def turned(picture: Image.Image | None) -> Image.Image | None:
    return picture and picture.rotate(180)
