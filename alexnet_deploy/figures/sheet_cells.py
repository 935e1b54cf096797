"""The content of a sheet, PNG or HTML, row by row: measures, names, photographs."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image

from alexnet_deploy.choices import Metric
from alexnet_deploy.errors import PhotographError
from alexnet_deploy.figures.loading import load_drawn
from alexnet_deploy.files.path_text import printable
from alexnet_deploy.index.results import Neighbour, Query, SearchResult
from alexnet_deploy.photographs.sources import ImageInput, image_source

MAX_RATIO = 8.0
"""Of a photograph with a larger aspect ratio only the middle is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A photograph, as displayed.

    Attributes:
        photograph: as given.
        heading: "query", or the measure by which it was ranked.
        remark: another measure, or what `Neighbour.remark` says; may be empty.
        error: why there is no photograph, if already known.
        imported: see `Neighbour.imported`.
    """

    photograph: Query
    heading: str
    remark: str
    error: str | None
    imported: str | None = None

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
        """The whole path, or what the photograph was imported as, printable."""
        return self.name if self.path is None else printable(self.imported or self.path)

    def image(self) -> Image.Image:
        """Decode the photograph.

        Raises:
            PhotographError: the reason why it cannot be decoded.
        """
        if self.error is not None:
            raise PhotographError(self.error)
        if isinstance(self.photograph, np.ndarray) and self.photograph.ndim == 1:
            raise PhotographError("a vector, which has no picture")
        return load_drawn(image_source(cast(ImageInput, self.photograph)))


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetRow:
    """A photograph in a frame, and those that belong to it.

    Attributes:
        lead: in the frame; None leaves its place empty.
        cells: beside it.
        title: above them; may be empty.
        nothing: what stands there if `cells` is empty.
    """

    lead: Cell | None
    cells: tuple[Cell, ...]
    title: str = ""
    nothing: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetText:
    """What a sheet says of itself.

    Attributes:
        title: of the page.
        legend: what is shown, and what the numbers are.
        rows: what a row is, in the plural.
        cells: what its cells are, in the plural.
    """

    title: str
    legend: str
    rows: str
    cells: str


def search_text(metric: Metric) -> SheetText:
    """Return the text of a sheet of search results, whose neighbours were ranked by `metric`."""
    cosine = "cosine similarity (higher is nearer)"
    distance = "L2 distance (lower is nearer)"
    heading, remark = (cosine, distance) if metric == "cosine" else (distance, cosine)
    return SheetText(
        title="Nearest photographs",
        legend=f"Neighbours, the nearest first. In bold: {heading}. At the right: {remark}.",
        rows="queries",
        cells="neighbours",
    )


def search_row(result: SearchResult, metric: Metric) -> SheetRow:
    """Return the row of one query."""
    return SheetRow(
        lead=Cell(photograph=result.query, heading="query", remark="", error=result.error),
        cells=tuple(neighbour_cell(one, metric) for one in result.neighbours),
        nothing="no neighbours" if result.error is None else "",
    )


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
        # Nothing is opened because a file of vectors names it.
        error=None if neighbour.imported is None else "not here, only its vector",
        imported=neighbour.imported,
    )


def _distance(value: float) -> str:
    """Return an L2 distance with about three digits; only equal vectors show 0."""
    if 0 < value < 0.01:
        return "<0.01"
    decimals = 0 if value >= 100 or value == 0 else 1 if value >= 10 else 2
    return f"{value:,.{decimals}f}"
