"""What one cell of a sheet says, on paper and on a page: measures, names, the photograph."""

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from alexnet_deploy.errors import PhotographError
from alexnet_deploy.files.path_text import printable
from alexnet_deploy.index.manifest import Metric
from alexnet_deploy.index.results import STDIN, Neighbour, SearchResult
from alexnet_deploy.photographs.decoding import decode_photograph, load_photograph

MAX_RATIO = 8.0
"""Of a photograph longer than so many times its width only the middle is shown."""

NOTHING_FOUND = "no neighbours"
"""What stands beside a query with an empty result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A query or a neighbour, as a person reads it.

    Attributes:
        path: the photograph; `STDIN` for the bytes that came that way.
        heading: "query", or the measure by which a neighbour was ranked.
        remark: the other measure, "identical" where the vectors are; empty for a query.
        error: why there is no photograph, where that is known already.
    """

    path: Path
    heading: str
    remark: str
    error: str | None

    @property
    def name(self) -> str:
        """The file's name, printable."""
        return "standard input" if self.path == STDIN else printable(self.path.name)

    @property
    def folder(self) -> str:
        """The name of the file's folder with a slash, printable; empty where none was given."""
        folder = self.path.parent
        if folder.name:
            return f"{printable(folder.name)}/"
        return "" if folder == Path() else printable(folder)

    @property
    def full_name(self) -> str:
        """The whole path, printable."""
        return self.name if self.path == STDIN else printable(self.path)

    def photograph(self, stdin: bytes | None) -> Image.Image:
        """Decode the photograph.

        Args:
            stdin: the file that standard input held.

        Raises:
            PhotographError: the reason why there is none.
        """
        if self.error is not None:
            raise PhotographError(self.error)
        if self.path == STDIN and stdin is not None:
            return decode_photograph(io.BytesIO(stdin))
        return load_photograph(self.path)


def query_cell(result: SearchResult) -> Cell:
    """Return the cell of the query."""
    return Cell(path=result.query, heading="query", remark="", error=result.error)


def neighbour_cell(neighbour: Neighbour, metric: Metric) -> Cell:
    """Return the cell of a neighbour that was ranked by `metric`."""
    # z: a similarity of -0.0001 is no "-0.000".
    cosine = f"{neighbour.cosine_similarity:z.3f}"
    distance = _distance(neighbour.l2_distance)
    is_cosine = metric == "cosine"
    other = f"L2 {distance}" if is_cosine else f"cos {cosine}"
    return Cell(
        path=neighbour.path,
        heading=cosine if is_cosine else distance,
        remark="identical" if neighbour.l2_distance == 0 else other,
        error=None,
    )


def measures(metric: Metric) -> tuple[str, str]:
    """Return what the two numbers of a neighbour are: the heading's, then the remark's."""
    cosine = "cosine similarity (higher is nearer)"
    distance = "L2 distance (lower is nearer)"
    return (cosine, distance) if metric == "cosine" else (distance, cosine)


def _distance(value: float) -> str:
    """Return an L2 distance with three digits or so; only equal vectors have 0."""
    if 0 < value < 0.01:
        return "<0.01"
    decimals = 0 if value >= 100 or value == 0 else 1 if value >= 10 else 2
    return f"{value:,.{decimals}f}"
