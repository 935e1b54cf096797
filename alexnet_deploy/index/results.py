"""Search results: values, JSON, and a table for people."""

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.files.path_text import path_base64, path_fields, printable
from alexnet_deploy.photographs.sources import ImageInput

Query: TypeAlias = ImageInput | NDArray[np.floating[Any]]
"""A photograph, however it is given, or a vector of the index's layer, (D,) of any float type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """One photograph of the index, compared with a query.

    Attributes:
        path: absolute; of an imported one what it names, where nobody has looked.
        cosine_similarity: -1..1, higher is nearer.
        l2_distance: 0 or more, lower is nearer.
        rotation: 0, 90, 180 or 270, the degrees clockwise by which the query was turned.
        is_identical: whether its file has the bytes of the query's, and has not changed since it
            was indexed. At distance 0 it may be another that only looks alike to the network.
        is_changed: whether its file has another size or time than when it was indexed, so that its
            distance may be that of other content.
        imported: of an imported one what its file of vectors calls it: a path, a URL, a name; None
            for a photograph of a folder.
    """

    path: Path
    cosine_similarity: float
    l2_distance: float
    rotation: int = 0
    is_identical: bool = False
    is_changed: bool = False
    imported: str | None = None

    @property
    def is_gone(self) -> bool:
        """Whether it was indexed here, and there is no file at `path` now."""
        if self.imported is not None:
            return False
        try:
            return not stat.S_ISREG(os.stat(self.path).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:  # it may not be looked at
            return False

    @property
    def remark(self) -> str:
        """What a table or a sheet says.

        "imported", "gone", "changed", "identical", "turned 90", or nothing.
        """
        if self.imported is not None:
            return "imported"
        if self.is_gone:
            return "gone"
        if self.is_changed:
            return "changed"
        if self.is_identical:
            return "identical"
        return f"turned {self.rotation}" if self.rotation else ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SearchResult:
    """The result of one query.

    Attributes:
        query: its `Path` where it was given by one, else the very object that was given.
        neighbours: nearest first.
        error: the reason, if the query cannot be read.
    """

    query: Query
    neighbours: tuple[Neighbour, ...]
    error: str | None

    def to_json(self) -> str:
        """Return one line: {"query", "results"} or {"query", "error"}.

        "query" is its path, "-" where it has none: standard input, a picture in memory, a vector.
        A path that is not UTF-8 comes with "query_base64" or "path_base64". Each result has "path",
        "l2_distance", "cosine_similarity", "rotation", "identical", "changed", "gone" and
        "imported".
        """
        path = self._path()
        encoded = path_base64(path)
        query = {"query": str(path)} | ({} if encoded is None else {"query_base64": encoded})
        if self.error is not None:
            return json.dumps(query | {"error": self.error})
        results = [
            path_fields(neighbour.imported or neighbour.path)
            | {
                "l2_distance": neighbour.l2_distance,
                "cosine_similarity": neighbour.cosine_similarity,
                "rotation": neighbour.rotation,
                "identical": neighbour.is_identical,
                "changed": neighbour.is_changed,
                "gone": neighbour.is_gone,
                "imported": neighbour.imported is not None,
            }
            for neighbour in self.neighbours
        ]
        return json.dumps(query | {"results": results})

    def to_text(self) -> str:
        """Return a table for people: a heading, then a line for each neighbour."""
        lines = [printable(f"neighbours of {self._path()}"), "cosine        L2              path"]
        lines += [
            f"{one.cosine_similarity:6.4f}  {one.l2_distance:8.2f}  {one.remark:10}  "
            f"{printable(one.imported or one.path)}"
            for one in self.neighbours
        ]
        return "\n".join(lines)

    def _path(self) -> Path:
        return self.query if isinstance(self.query, Path) else Path("-")
