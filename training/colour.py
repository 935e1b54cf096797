"""The colours of a training set: its mean image and the covariance of its RGB values.

Section 2 of the paper subtracts the mean activity over the training set from each pixel, and
section 4.1 shifts each image's colour along the principal components of the set's RGB values.
S = 256, the side of a stored picture. All values are grey levels, 0..255, or their squares.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.files.output_files import atomic_write

MEAN_IMAGE_NAME = "mean_image.npy"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ColourStatistics:
    """What normalisation and augmentation know of a training set.

    Attributes:
        mean_image: [S, S, 3] float32, RGB, mean of the pictures.
        covariance: [3, 3] float64, of the RGB values of all pixels, in squared grey levels.
        num_photographs: that both were taken over.
    """

    mean_image: NDArray[np.float32]
    covariance: NDArray[np.float64]
    num_photographs: int

    @property
    def channel_mean(self) -> NDArray[np.float64]:
        """Mean R, G and B, [3]."""
        mean: NDArray[np.float64] = self.mean_image.mean(axis=(0, 1), dtype=np.float64)
        return mean

    @property
    def channel_std(self) -> NDArray[np.float64]:
        """Standard deviations of R, G and B, [3]."""
        return np.sqrt(self.covariance.diagonal())

    def principal_components(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the eigenvectors of the covariance, and the standard deviation along each.

        The paper's section 4.1 scales its colour shifts by the eigenvalues, which are squared
        grey levels: on ImageNet they would shift by a thousand. The 2012 code takes their square
        roots, 19.7, 37.1 and 121.8 grey levels there, and so does this.

        Returns:
            [3, 3] float64, eigenvectors of length 1 in the columns, and [3] float64, in grey
            levels, ascending.
        """
        eigenvalues, eigenvectors = np.linalg.eigh(self.covariance)
        # Rounding can take the 0 of a grey-only set below it.
        return eigenvectors, np.sqrt(np.maximum(eigenvalues, 0))


class ColourSums:
    """Sum up pictures of side `size`, in whole numbers: neither order nor grouping matters.

    `int64` has room for 2,000 million pictures of 256 x 256.
    """

    def __init__(self, size: int) -> None:
        self.num_photographs = 0
        self._pixels = np.zeros((size, size, 3), np.int64)
        self._products = np.zeros((3, 3), np.int64)  # of two channels, over all pixels

    def add(self, images: NDArray[np.uint8]) -> None:
        """Add pictures: [n, S, S, 3] uint8, RGB."""
        self.num_photographs += len(images)
        self._pixels += images.sum(axis=0, dtype=np.int64)
        for image in images:
            channels = image.reshape(-1, 3).T.astype(np.int64, order="C")
            self._products += np.einsum("ip,jp->ij", channels, channels)

    def statistics(self) -> ColourStatistics:
        """Return mean and covariance of at least one picture."""
        if not self.num_photographs:
            raise ValueError("no picture was added, so there is no mean")
        num_values = self._pixels[..., 0].size * self.num_photographs
        sums = self._pixels.sum(axis=(0, 1)).tolist()
        products = self._products.tolist()
        # Python's whole numbers have no largest; the division is the only rounding.
        covariance = [
            [(num_values * products[i][j] - sums[i] * sums[j]) / num_values**2 for j in range(3)]
            for i in range(3)
        ]
        return ColourStatistics(
            mean_image=(self._pixels / self.num_photographs).astype(np.float32),
            covariance=np.array(covariance),
            num_photographs=self.num_photographs,
        )


def save_statistics(statistics: ColourStatistics, folder: Path) -> dict[str, Any]:
    """Write `mean_image.npy` into `folder`; return the rest as fields for JSON.

    Returns:
        "num_photographs", "channel_mean", "channel_std" and "covariance" (RGB), and
        "mean_image_sha256", of the whole file.

    Raises:
        OutputError: the file cannot be written.
    """
    data = io.BytesIO()
    np.save(data, statistics.mean_image.astype("<f4"), allow_pickle=False)
    with atomic_write(folder / MEAN_IMAGE_NAME) as file:
        file.write(data.getvalue())
    return {
        "num_photographs": statistics.num_photographs,
        "channel_mean": statistics.channel_mean.tolist(),
        "channel_std": statistics.channel_std.tolist(),
        "covariance": statistics.covariance.tolist(),
        "mean_image_sha256": hashlib.sha256(data.getvalue()).hexdigest(),
    }


def load_statistics(folder: Path, fields: Mapping[str, Any]) -> ColourStatistics:
    """Read back what `save_statistics` wrote and returned.

    Raises:
        IncompatibleFileError: the file is missing, is not the one that the fields speak of, or
            the fields are none.
    """
    path = folder / MEAN_IMAGE_NAME
    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != fields["mean_image_sha256"]:
            raise ValueError("its sha256 is not the one that was noted when it was written")
        mean_image = np.load(io.BytesIO(data), allow_pickle=False)
        covariance = np.array(fields["covariance"], np.float64)
        if covariance.shape != (3, 3) or not np.isfinite(covariance).all():
            raise ValueError(f"covariance {json.dumps(fields['covariance'])} is no 3x3 matrix")
        return ColourStatistics(
            mean_image=mean_image,
            covariance=covariance,
            num_photographs=int(fields["num_photographs"]),
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise IncompatibleFileError(
            f"{path}: cannot be used ({error}); run prepare again, it goes on where it can"
        ) from error
