"""The content of one cell of a sheet, PNG or HTML: measures, names, the photograph."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image

from alexnet_deploy.choices import Metric
from alexnet_deploy.errors import PhotographError
from alexnet_deploy.files.path_text import printable
from alexnet_deploy.index.results import Neighbour, Query, SearchResult
from alexnet_deploy.photographs.sources import ImageInput, image_source, load_image

MAX_RATIO = 8.0
"""Of a photograph with a larger aspect ratio only the middle is shown."""

NOTHING_FOUND = "no neighbours"
"""The text beside a query with an empty result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A query or a neighbour, as displayed.

    Attributes:
        photograph: as given.
        heading: "query", or the measure by which a neighbour was ranked.
        remark: the other measure, or what `Neighbour.remark` says; empty for a query.
        error: why there is no photograph, if already known.
    """

    photograph: Query
    heading: str
    remark: str
    error: str | None

    @property
    def path(self) -> Path | None:
        """The file, if the photograph was given as one."""
        return self.photograph if isinstance(self.photograph, Path) else None

    @property
    def name(self) -> str:
        """The file's name, printable."""
        return "standard input" if self.path is None else printable(self.path.name)

    @property
    def folder(self) -> str:
        """The name of the file's folder with a slash, printable; empty if there is none."""
        folder = Path() if self.path is None else self.path.parent
        if folder.name:
            return f"{printable(folder.name)}/"
        return "" if folder == Path() else printable(folder)

    @property
    def full_name(self) -> str:
        """The whole path, printable."""
        return self.name if self.path is None else printable(self.path)

    def image(self) -> Image.Image:
        """Decode the photograph.

        Raises:
            PhotographError: the reason why it cannot be decoded.
        """
        if self.error is not None:
            raise PhotographError(self.error)
        if isinstance(self.photograph, np.ndarray) and self.photograph.ndim == 1:
            raise PhotographError("a vector, which has no picture")
        return load_image(image_source(cast(ImageInput, self.photograph)))


def query_cell(result: SearchResult) -> Cell:
    """Return the cell of the query."""
    return Cell(photograph=result.query, heading="query", remark="", error=result.error)


def neighbour_cell(neighbour: Neighbour, metric: Metric) -> Cell:
    """Return the cell of a neighbour that was ranked by `metric`."""
    # z: a similarity of -0.0001 is not shown as "-0.000".
    cosine = f"{neighbour.cosine_similarity:z.3f}"
    distance = _distance(neighbour.l2_distance)
    is_cosine = metric == "cosine"
    other = f"L2 {distance}" if is_cosine else f"cos {cosine}"
    return Cell(
        photograph=neighbour.path,
        heading=cosine if is_cosine else distance,
        remark=neighbour.remark or other,
        error=None,
    )


def measures(metric: Metric) -> tuple[str, str]:
    """Return the names of a neighbour's two measures: the heading's, then the remark's."""
    cosine = "cosine similarity (higher is nearer)"
    distance = "L2 distance (lower is nearer)"
    return (cosine, distance) if metric == "cosine" else (distance, cosine)


def _distance(value: float) -> str:
    """Return an L2 distance with about three digits; only equal vectors show 0."""
    if 0 < value < 0.01:
        return "<0.01"
    decimals = 0 if value >= 100 or value == 0 else 1 if value >= 10 else 2
    return f"{value:,.{decimals}f}"
