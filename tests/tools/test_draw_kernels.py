"""tools/draw_kernels.py: every weight is where it should be, in the colour that it should have."""

import dataclasses
from pathlib import Path
from typing import Any

import draw_kernels
import numpy as np
import pytest
from draw_kernels import colour_share, tower_kernels
from numpy.typing import NDArray
from PIL import Image, ImageColor

from alexnet_deploy.figures.drawing import PAPER
from alexnet_deploy.model.checkpoints import Checkpoint, save_checkpoint
from tests.support.networks import random_checkpoint

# Where kernels lie, px: the layout of the tool in numbers of its own.
SIDE, PITCH, LEFT = 66, 72, 24
TOPS = {"paper": (58, 326), "caffe": (58, 326), "torchvision": (58,)}
SIZES = {"paper": (1194, 596), "caffe": (1194, 596), "torchvision": (1194, 400)}


def with_kernels(preset: str, kernels: NDArray[Any]) -> Checkpoint:
    """Return a network of the preset with these kernels, (K, 3, S, S), in conv1."""
    checkpoint = random_checkpoint(preset)
    arrays = dict(checkpoint.arrays) | {"conv1.weight": kernels}
    return dataclasses.replace(checkpoint, arrays=arrays)


def run_tool(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", ["draw_kernels.py", *map(str, arguments)])
    draw_kernels.main()


def drawn(
    checkpoint: Checkpoint, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> NDArray[np.uint8]:
    """Return the pixels of the tool's picture, (H, W, 3)."""
    save_checkpoint(checkpoint, folder / "net.safetensors")
    run_tool(monkeypatch, folder / "net.safetensors", "-o", folder / "f.png")
    with Image.open(folder / "f.png") as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def places(preset: str, num_kernels: int) -> list[tuple[int, int]]:
    """Return the top left corner of each kernel, in order: 16 a row, tower below tower."""
    per_tower = num_kernels // len(TOPS[preset])
    return [
        (top + PITCH * (position // 16), LEFT + PITCH * (position % 16))
        for top in TOPS[preset]
        for position in range(per_tower)
    ]


@pytest.mark.parametrize("preset", ["paper", "torchvision", "caffe"])
def test_each_weight_is_a_square_of_its_colour_in_its_place(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = random_checkpoint(preset)
    picture = drawn(checkpoint, tmp_path, monkeypatch)
    assert picture.shape[1::-1] == SIZES[preset]
    weights = checkpoint.arrays["conv1.weight"].astype(float)
    corners = places(preset, len(weights))
    assert len(corners) == len(weights) == checkpoint.spec.widths[0]
    for kernel, (top, left) in zip(weights, corners, strict=True):
        largest = max(kernel.max(), -kernel.min())
        expected = np.interp(kernel, [-largest, 0, largest], [0, 127.5, 255])
        square = picture[top : top + SIDE, left : left + SIDE]
        for channel in range(3):
            enlarged = np.kron(expected[channel], np.ones((6, 6)))
            # Half a grey level of rounding, and a little for what lies at half.
            assert np.abs(square[:, :, channel] - enlarged).max() <= 0.501


def test_between_kernels_and_between_towers_is_paper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = drawn(random_checkpoint("paper"), tmp_path, monkeypatch)
    is_paper = (picture == ImageColor.getrgb(PAPER)).all(axis=2)
    for top, left in places("paper", 96):
        around = is_paper[top - 6 : top + SIDE + 6, left - 6 : left + SIDE + 6].copy()
        around[6:-6, 6:-6] = True
        assert around.all()
    # From the last row of tower 1 to the heading of tower 2 there is more than between rows.
    rows_with_ink = np.flatnonzero(~is_paper[268:326].all(axis=1))
    assert rows_with_ink.min() > 4 * 6


def test_red_green_and_blue_are_drawn_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = np.zeros((96, 3, 11, 11), np.float32)
    kernels[0, 0], kernels[1, 1], kernels[50, 2], kernels[95] = 0.5, 7.0, -0.001, -3.0
    picture = drawn(with_kernels("paper", kernels), tmp_path, monkeypatch)
    corners = places("paper", 96)
    colours = [tuple(map(int, picture[corner])) for corner in corners]
    grey = 128  # 127.5, rounded to even
    assert colours[0] == (255, grey, grey)
    assert colours[1] == (grey, 255, grey)
    assert colours[50] == (grey, grey, 0)
    assert colours[95] == (0, 0, 0)
    # A kernel of zeros has no scale; it is grey.
    assert set(colours) - {colours[0], colours[1], colours[50], colours[95]} == {(grey,) * 3}


def test_towers_are_the_parts_that_conv2_reads_apart() -> None:
    for preset, num_towers in (("paper", 2), ("caffe", 2), ("torchvision", 1)):
        checkpoint = random_checkpoint(preset)
        towers = tower_kernels(checkpoint)
        assert len(towers) == num_towers
        joined = np.concatenate(towers).transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(joined, checkpoint.arrays["conv1.weight"])


def test_a_width_that_fills_no_row_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the paper's network with one GPU's half of the kernels: 48, and then 50."""
    full = random_checkpoint("torchvision")
    spec = dataclasses.replace(full.spec, widths=(50, *full.spec.widths[1:]))
    arrays = dict(full.arrays)
    arrays["conv1.weight"] = full.arrays["conv1.weight"][:50]
    arrays["conv1.bias"] = full.arrays["conv1.bias"][:50]
    arrays["conv2.weight"] = full.arrays["conv2.weight"][:, :50]
    narrow = Checkpoint(spec=spec, arrays=arrays)
    picture = drawn(narrow, tmp_path, monkeypatch)
    top, left = 58 + 3 * PITCH, LEFT + PITCH
    assert (picture[top : top + SIDE, left : left + SIDE] != 255).any(axis=2).mean() > 0.9
    assert (picture[top : top + SIDE, left + PITCH :] == 255).all()


def test_the_share_of_colour_is_0_of_grey_and_1_of_opposed_kernels() -> None:
    grey = np.ones((5, 11, 11, 3), np.float32)
    opposed = grey * np.array([1, -1, 0], np.float32)
    assert colour_share(grey) == 0
    assert colour_share(opposed) == 1
    # Energies 3 and 2 at each position.
    assert colour_share(np.concatenate([grey, opposed])) == pytest.approx(2 / 5)
    assert colour_share(np.zeros_like(grey)) == 0


def test_the_share_of_colour_is_said_for_each_tower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kernels = np.ones((96, 3, 11, 11), np.float32)
    kernels[48:] *= np.array([1, -1, 0], np.float32).reshape(3, 1, 1)
    drawn(with_kernels("paper", kernels), tmp_path, monkeypatch)
    said = capsys.readouterr().out
    assert said == "tower 1: 48 kernels, 0.0% colour\ntower 2: 48 kernels, 100.0% colour\n"


def test_without_a_checkpoint_the_bundled_one_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_tool(monkeypatch, "-o", tmp_path / "f.png")
    with Image.open(tmp_path / "f.png") as image:
        assert image.size == SIZES["paper"]


@pytest.mark.parametrize(
    ("checkpoint", "output", "message"),
    [
        ("no.safetensors", "f.png", r"no\.safetensors: no such file; give a file with weights"),
        ("bad.safetensors", "f.png", r"bad\.safetensors: is none of the files that hold weights"),
        ("bad\n.onnx", "f.png", r"bad\\n\.onnx: is none of the files that hold weights"),
        ("good.safetensors", "no/f.png", r"f\.png: cannot be written .*create its folder first"),
    ],
)
def test_wrong_input_is_one_line_that_says_what_to_do(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    checkpoint: str,
    output: str,
    message: str,
) -> None:
    for name in ("bad.safetensors", "bad\n.onnx"):
        (tmp_path / name).write_bytes(b"bad")
    save_checkpoint(random_checkpoint("paper"), tmp_path / "good.safetensors")
    with pytest.raises(SystemExit, match=message) as stopped:
        run_tool(monkeypatch, tmp_path / checkpoint, "-o", tmp_path / output)
    assert "\n" not in str(stopped.value)
    assert not (tmp_path / output).exists()


def test_the_names_of_files_of_any_length_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"{'n' * 200}.safetensors"
    save_checkpoint(random_checkpoint("paper"), path)
    run_tool(monkeypatch, path, "-o", tmp_path / "f.png")
    with Image.open(tmp_path / "f.png") as image:
        margin = np.asarray(image.convert("RGB"))[:, -24:]
    assert (margin == 255).all()
