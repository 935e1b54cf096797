"""The paper's ten-crop evaluation, as a runner that averages ten views of each photograph.

Krizhevsky et al. 2012, section 4.1: the four corners and the centre of the 256x256 picture, and
the mirror images of these five; the outputs of the softmax are averaged.

N photographs per batch, S side of the resized picture (256 px), H the network's input size (224).
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.runtimes.base import Runner, check_images

NUM_CROPS = 10


def ten_crops(pictures: NDArray[np.uint8], size: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the ten views: top left, top right, bottom left, bottom right, centre, each mirrored.

    Args:
        pictures: (N, S, S, 3) uint8.
        size: side of a view in px, at most S; at S all five crops are the same.

    Yields:
        (N, size, size, 3) uint8, contiguous; each view, then its mirror image.
    """
    last = pictures.shape[1] - size
    middle = round(last / 2.0)  # rounds half to even, like the centre crop of `preprocessing`
    for top, left in ((0, 0), (0, last), (last, 0), (last, last), (middle, middle)):
        crop = pictures[:, top : top + size, left : left + size]
        yield np.ascontiguousarray(crop)
        yield np.ascontiguousarray(crop[:, :, ::-1])


class TenCropRunner:
    """A runner whose input is the whole S x S picture and whose outputs are means over ten views.

    It replaces the wrapped runner anywhere, at ten times the work. Each output is averaged
    directly: `probabilities` are the mean of softmax outputs, as in the paper, not the softmax of a
    mean. A `mean_image` is part of the network, so its centre is subtracted from every view, as in
    the 2012 code.

    Attributes:
        spec: the wrapped runner's with `preprocessing.resize_to` as the input size, so that
            photographs are cropped to the whole picture; its map shapes do not apply.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        side = runner.spec.preprocessing.resize_to
        self.spec = dataclasses.replace(runner.spec, input_size=side)
        self.identity = runner.identity
        self.options = runner.options
        self.description = f"{runner.description}, {NUM_CROPS} crops"

    def run(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        """Compute the mean outputs of one full batch.

        Args:
            images: (batch_size, S, S, 3) uint8, RGB, resized and cropped to `resize_to`.
        """
        check_images(images, self.spec, self.options.batch_size)
        sums: dict[str, NDArray[np.float32]] = {}
        for crops in ten_crops(images, self._runner.spec.input_size):
            for name, output in self._runner.run(crops).items():
                sums[name] = sums[name] + output if name in sums else output
        return {name: total / np.float32(NUM_CROPS) for name, total in sums.items()}

    def close(self) -> None:
        """Close the wrapped runner."""
        self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
