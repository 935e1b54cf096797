"""What a sheet says of a photograph: numbers, folder and name."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from alexnet_deploy.choices import Metric
from alexnet_deploy.figures.sheet_cells import Cell, neighbour_cell, search_row
from alexnet_deploy.index.results import Neighbour, Query, SearchResult
from alexnet_deploy.photographs.pixel_limit import limit_megapixels
from tests.support.fake_runner import UNSPOKEN


def cell_of(cosine: float, l2: float, metric: Metric, path: Path, **flags: Any) -> Cell:
    neighbour = Neighbour(path=path, cosine_similarity=cosine, l2_distance=l2, **flags)
    return neighbour_cell(neighbour, metric)


@pytest.mark.parametrize(
    ("cosine", "l2", "metric", "heading", "remark"),
    [
        (0.87149, 41.26, "cosine", "0.871", "L2 41.3"),
        (0.87149, 41.26, "l2", "41.3", "cos 0.871"),
        (1.0, 0.0, "cosine", "1.000", "L2 0"),
        (1.0, 0.0, "l2", "0", "cos 1.000"),
        (0.99999, 0.004, "cosine", "1.000", "L2 <0.01"),
        (0.99999, 0.004, "l2", "<0.01", "cos 1.000"),
        (-0.0001, 12345.6, "cosine", "0.000", "L2 12,346"),
        (-0.5, 9.876, "cosine", "-0.500", "L2 9.88"),
        (0.5, 456.7, "l2", "457", "cos 0.500"),
    ],
)
def test_the_number_that_ranked_comes_first(
    cosine: float, l2: float, metric: Metric, heading: str, remark: str
) -> None:
    cell = cell_of(cosine, l2, metric, Path(__file__))
    assert (cell.heading, cell.remark) == (heading, remark)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_what_is_known_of_the_file_comes_before_the_other_number(
    metric: Metric, tmp_path: Path
) -> None:
    assert cell_of(1.0, 0.0, metric, Path(__file__), is_identical=True).remark == "identical"
    assert cell_of(1.0, 0.0, metric, tmp_path / "gone", is_identical=True).remark == "gone"


@pytest.mark.parametrize(
    ("query", "folder", "name"),
    [
        (Path("/photos/airplanes/image_0001.jpg"), "airplanes/", "image_0001.jpg"),
        (Path("query.jpg"), "", "query.jpg"),
        (Path("../query.jpg"), "../", "query.jpg"),
        (Path("/query.jpg"), "/", "query.jpg"),
        (Path("/p", UNSPOKEN, UNSPOKEN), "caf\\xe9\\n.png/", "caf\\xe9\\n.png"),
        (b"its bytes", "", "standard input"),
    ],
)
def test_the_last_folder_stands_before_the_name(query: Query, folder: str, name: str) -> None:
    cell = search_row(SearchResult(query=query, neighbours=(), error=None), "cosine").lead
    assert cell is not None
    assert (cell.folder, cell.name) == (folder, name)
    assert cell.full_name.endswith(name)


def test_what_a_new_index_reads_can_be_drawn(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    Image.new("RGB", (2048, 2048)).save(path)
    limit_megapixels(1.05)
    try:
        assert cell_of(0.5, 1.0, "cosine", path).image().size == (512, 512)
    finally:
        limit_megapixels()
