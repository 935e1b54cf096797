"""The colours of a training set: its mean image and the covariance of its RGB values.

Section 2 of the paper subtracts the mean over the training set from each pixel, and section 4.1
shifts the colour of each image along the principal components of the set's RGB values.
S = 256, the side of a stored picture. All values are grey levels, 0..255, or their squares.
"""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.files.output_files import atomic_write
from alexnet_deploy.files.records import Matching, Within, check_fields

MEAN_IMAGE_NAME = "mean_image.npy"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ColourStatistics:
    """What normalization and augmentation need to know of a training set.

    Attributes:
        mean_image: [S, S, 3] float32, RGB, mean of the pictures.
        covariance: [3, 3] float64, of the RGB values of all pixels, in squared grey levels.
        num_photographs: number that both were computed from.
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

        Section 4.1 of the paper scales its colour shifts by the eigenvalues, which are squared
        grey levels: on ImageNet that would be shifts of 1,500 grey levels. The 2012 code uses
        their square roots (19.7, 37.1 and 121.8 grey levels there), and so does this.

        Returns:
            [3, 3] float64, unit eigenvectors in columns, and [3] float64, in grey levels,
            ascending.
        """
        eigenvalues, eigenvectors = np.linalg.eigh(self.covariance)
        # Rounding can make the zero eigenvalues of an all-grey set slightly negative.
        return eigenvectors, np.sqrt(np.maximum(eigenvalues, 0))


class ColourSums:
    """Sum pictures of side `size` in integers, so that neither order nor grouping matters.

    int64 has room for two billion pictures of 256 x 256.
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
        num_values = self._pixels[..., 0].size * self.num_photographs
        sums = self._pixels.sum(axis=(0, 1)).tolist()
        products = self._products.tolist()
        # Python's integers do not overflow; the division is the only rounding.
        covariance = [
            [(num_values * products[i][j] - sums[i] * sums[j]) / num_values**2 for j in range(3)]
            for i in range(3)
        ]
        return ColourStatistics(
            mean_image=(self._pixels / self.num_photographs).astype(np.float32),
            covariance=np.array(covariance),
            num_photographs=self.num_photographs,
        )


_Level = Annotated[float, Within(0, 255)]
_Rgb = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredStatistics:
    """Colour statistics as stored in JSON; the mean image is a file of its own.

    Attributes:
        num_photographs, covariance: as in `ColourStatistics`.
        channel_mean, channel_std: of R, G and B, for readers other than this program.
        mean_image_sha256: of the whole of `mean_image.npy`, in hexadecimal.
    """

    num_photographs: Annotated[int, Within(1)]
    channel_mean: tuple[_Level, _Level, _Level]
    channel_std: tuple[_Level, _Level, _Level]
    covariance: tuple[_Rgb, _Rgb, _Rgb]
    mean_image_sha256: Annotated[str, Matching("[0-9a-f]{64}")]

    def __post_init__(self) -> None:
        """Convert lists to tuples, and raise `IncompatibleFileError` for impossible values."""
        check_fields(self)


def save_statistics(statistics: ColourStatistics, folder: Path) -> StoredStatistics:
    """Write `mean_image.npy` into `folder`; return the rest.

    Raises:
        OutputError: the file cannot be written.
    """
    data = io.BytesIO()
    np.save(data, statistics.mean_image.astype("<f4"), allow_pickle=False)
    with atomic_write(folder / MEAN_IMAGE_NAME) as file:
        file.write(data.getvalue())
    return StoredStatistics(
        num_photographs=statistics.num_photographs,
        channel_mean=statistics.channel_mean.tolist(),
        channel_std=statistics.channel_std.tolist(),
        covariance=statistics.covariance.tolist(),
        mean_image_sha256=hashlib.sha256(data.getvalue()).hexdigest(),
    )


def load_statistics(folder: Path, stored: StoredStatistics) -> ColourStatistics:
    """Read back what `save_statistics` wrote and returned.

    Raises:
        IncompatibleFileError: the mean image is missing, or is not the one whose hash was stored.
    """
    path = folder / MEAN_IMAGE_NAME
    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != stored.mean_image_sha256:
            raise ValueError("its sha256 is not the one recorded when it was written")
        return ColourStatistics(
            mean_image=np.load(io.BytesIO(data), allow_pickle=False),
            covariance=np.array(stored.covariance),
            num_photographs=stored.num_photographs,
        )
    except (OSError, ValueError) as error:
        raise IncompatibleFileError(
            f"{path}: cannot be used ({error}); run prepare again, which reuses what it can"
        ) from error
