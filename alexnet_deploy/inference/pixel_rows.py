"""Photographs as points in the space of their pixels, which the paper compares FC7 with.

Krizhevsky et al. 2012, section 6.1: L2 on the photograph as their section 2 prepares it, shorter
side 256 px and the central 256 x 256, RGB, 0..255. N photographs, P = 196608 numbers in each.
"""

import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.files.output_files import errors_of, write_all
from alexnet_deploy.inference.retrieval_figures import Distances
from alexnet_deploy.model.spec import preset_spec

PIXEL_SPEC = dataclasses.replace(preset_spec("paper"), input_size=256)
"""How photographs are prepared for it."""
PIXEL_BYTES = 256 * 256 * 3
_WIDTH = 1024
"""Pixels at a time: so many products of two, each at most 128 * 128, are summed exactly by float32,
which is twice as fast as float64."""


@contextmanager
def open_pixel_rows() -> Iterator["PixelRows"]:
    """Open a file without a name, which is gone when it is closed."""
    with tempfile.TemporaryFile() as file:
        yield PixelRows(file)


class PixelRows:
    """The pixels of photographs, a row for each in a file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, row: int, crop: NDArray[np.uint8]) -> None:
        """Keep the crop of one photograph, by `PIXEL_SPEC`; several threads may do so at once.

        Raises:
            OutputError: the folder for temporary files is full.
        """
        with errors_of(Path(tempfile.gettempdir())):
            write_all(self._file.fileno(), memoryview(crop.tobytes()), row * PIXEL_BYTES)

    def distances(self, rows: NDArray[np.int64]) -> Distances:
        """Rank some rows, (N,), by L2 distance."""
        pixels = np.memmap(self._file, np.uint8, "r").reshape(-1, PIXEL_BYTES)

        def distances(queries: NDArray[np.int64]) -> NDArray[np.float32]:
            products = np.zeros((len(queries), len(rows)))
            squares = np.zeros(len(rows))
            for start in range(0, PIXEL_BYTES, _WIDTH):
                part = pixels[:, start : start + _WIDTH][rows].astype(np.float32) - np.float32(128)
                products += part[queries] @ part.T
                squares += np.einsum("np,np->n", part, part)
            return (squares - 2 * products).astype(np.float32)

        return distances
