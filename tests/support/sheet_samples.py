"""Results of searches that were never made, for the tests of sheets."""

import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from alexnet_deploy.choices import Metric
from alexnet_deploy.figures import loading
from alexnet_deploy.figures.sheet_cells import SheetRow, search_row, search_text
from alexnet_deploy.index.results import Neighbour, Query, SearchResult
from alexnet_deploy.photographs.sources import ImageSource, load_image
from tests.support.fake_runner import save_photograph

TEXT = search_text("cosine")


def row(
    query: Query,
    neighbours: Sequence[Path] = (),
    error: str | None = None,
    metric: Metric = "cosine",
) -> SheetRow:
    """Return the row of a query whose neighbours are farther and farther away."""
    found = tuple(
        Neighbour(path=path, cosine_similarity=0.9 - number / 1000, l2_distance=5.0 + number)
        for number, path in enumerate(neighbours)
    )
    return search_row(SearchResult(query=query, neighbours=found, error=error), metric)


def save_colours(folder: Path, colours: Sequence[tuple[int, int, int]]) -> list[Path]:
    return [save_photograph(folder / f"{'-'.join(map(str, c))}.png", c) for c in colours]


class PhotographsAlive:
    """Count the full-size photographs that are in memory at the same time."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.most = self.num_loaded = self._now = 0
        patch.setattr(loading, "load_image", self._load)

    def _load(self, source: ImageSource, *how: Any) -> Image.Image:
        photograph = load_image(source, *how)
        self._now += 1
        self.num_loaded += 1
        self.most = max(self.most, self._now)
        weakref.finalize(photograph, self._forget)
        return photograph

    def _forget(self) -> None:
        self._now -= 1
