"""Draw the first layer's kernels by tower, as in Krizhevsky et al. 2012, figure 3.

    python tools/draw_kernels.py [CHECKPOINT] -o FILE.png

CHECKPOINT is what `alexnet-deploy export` takes: .safetensors, or .pt (needs torch); by default the
bundled checkpoint. Kernels are drawn in order, 16 per row; the groups of conv2 are the towers that
conv1 feeds. In the paper's network kernels 1-48 are tower 1, at the top; torchvision's network is
one block of 64.

Each kernel has its own scale: a weight of 0 is mid-grey, and the kernel's largest weight, of either
sign, is black or full in its channel. So the patterns of weak kernels are visible, but not their
strength. Pixels are enlarged, not smoothed.

Also printed, for each tower, is the share of its weights' energy that is colour: the sum of squares
after subtracting the mean of red, green and blue at each position. The paper's section 6.1 finds
the kernels of one tower largely colour-agnostic, those of the other colour-specific.

K kernels of S x S px (11 in all presets).
"""

import argparse
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from alexnet_deploy.errors import AlexNetDeployError
from alexnet_deploy.figures.drawing import (
    INK,
    PAPER,
    QUIET,
    built_in_font,
    drawable,
    shortened,
)
from alexnet_deploy.figures.png_files import DPI
from alexnet_deploy.files.output_files import atomic_write
from alexnet_deploy.files.path_text import printable
from alexnet_deploy.importing.opening import open_weights
from alexnet_deploy.model.checkpoints import Checkpoint
from alexnet_deploy.model.default import bundled_checkpoint

COLUMNS = 16  # kernels per row, as in figure 3
SCALE = 6  # px per weight
GAP, TOWER_GAP = 6, 24  # px between kernels, and between towers
MARGIN, HEADING_HEIGHT, FOOT_HEIGHT = 24, 34, 36
HEADING_SIZE, FOOT_SIZE = 20, 17
ZERO = 127.5  # grey level of a weight of 0


def main() -> None:
    """Draw the kernels and print the colour shares."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, nargs="?", default=bundled_checkpoint())
    parser.add_argument("-o", "--output", type=Path, required=True, help="PNG file to write")
    arguments = parser.parse_args()
    try:
        checkpoint = open_weights(arguments.checkpoint)
        towers = tower_kernels(checkpoint)
        with atomic_write(arguments.output) as file:
            draw_kernels(towers, arguments.checkpoint.name).save(file, format="PNG", dpi=DPI)
    except AlexNetDeployError as error:
        raise SystemExit(printable(str(error))) from error
    for number, kernels in enumerate(towers, start=1):
        print(f"tower {number}: {len(kernels)} kernels, {colour_share(kernels):.1%} colour")


def tower_kernels(checkpoint: Checkpoint) -> list[NDArray[np.float32]]:
    """Return the kernels of each tower, (K, S, S, 3), RGB.

    A kernel belongs to the group of conv2 that reads it, not to a tower of LRN: Caffe's network
    normalizes across both but still feeds two groups.
    """
    weights = checkpoint.dense("conv1", np.dtype(np.float32)).transpose(0, 2, 3, 1)
    return np.split(weights, checkpoint.spec.groups[1])


def draw_kernels(towers: list[NDArray[np.float32]], name: str) -> Image.Image:
    """Draw every kernel, tower below tower; see the module docstring.

    Args:
        towers: as returned by `tower_kernels`, all of one size.
        name: of the checkpoint, for the caption.
    """
    heights = [tower_height(kernels) for kernels in towers]
    width = 2 * MARGIN + COLUMNS * pitch(towers[0]) - GAP
    height = 2 * MARGIN + sum(heights) + (len(towers) - 1) * TOWER_GAP + FOOT_HEIGHT
    canvas = Image.new("RGB", (width, height), PAPER)
    top, first = MARGIN, 1
    for number, kernels in enumerate(towers, start=1):
        numbers = f"kernels {first} to {first + len(kernels) - 1}"
        heading = f"Tower {number}, {numbers}" if len(towers) > 1 else numbers
        draw_tower(canvas, kernels, top, heading)
        top += heights[number - 1] + TOWER_GAP
        first += len(kernels)
    font = built_in_font(FOOT_SIZE)
    scaling = "conv1, each kernel on its own scale, a weight of 0 is grey; "
    room = width - 2 * MARGIN - math.ceil(font.getlength(scaling))
    foot = scaling + shortened(drawable(printable(name)), font, room, tail=0.5)
    place = (MARGIN, height - MARGIN)
    ImageDraw.Draw(canvas).text(place, foot, font=font, anchor="ls", fill=QUIET)
    return canvas


def draw_tower(canvas: Image.Image, kernels: NDArray[np.float32], top: int, heading: str) -> None:
    """Draw a heading and below it the kernels, `top` px from the top."""
    font = built_in_font(HEADING_SIZE)
    place = (MARGIN, top + HEADING_HEIGHT - 10)
    ImageDraw.Draw(canvas).text(place, heading, font=font, anchor="ls", fill=INK)
    for position, kernel in enumerate(kernels):
        row, column = divmod(position, COLUMNS)
        small = Image.fromarray(grey_levels(kernel))
        large = small.resize((small.width * SCALE, small.height * SCALE), Image.Resampling.NEAREST)
        left = MARGIN + column * pitch(kernels)
        canvas.paste(large, (left, top + HEADING_HEIGHT + row * pitch(kernels)))


def tower_height(kernels: NDArray[np.float32]) -> int:
    """Return the height of heading and kernels, px."""
    return HEADING_HEIGHT + math.ceil(len(kernels) / COLUMNS) * pitch(kernels) - GAP


def pitch(kernels: NDArray[np.float32]) -> int:
    """Return the distance from kernel to kernel, px."""
    size: int = kernels.shape[1]
    return size * SCALE + GAP


def grey_levels(kernel: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return weights as 0..255, symmetric about 0, at the kernel's own scale; all grey if all 0."""
    largest = float(np.abs(kernel).max()) or 1.0
    return np.rint(ZERO + ZERO * kernel.astype(np.float64) / largest).astype(np.uint8)


def colour_share(kernels: NDArray[np.float32]) -> float:
    """Return the colour share of the sum of squares, 0..1; see the module docstring."""
    weights = kernels.astype(np.float64)
    colour = weights - weights.mean(axis=-1, keepdims=True)
    return float((colour**2).sum() / max((weights**2).sum(), np.finfo(np.float64).tiny))


if __name__ == "__main__":
    main()
