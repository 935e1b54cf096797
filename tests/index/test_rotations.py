"""Queries that are turned: what is found, at which rotation, and that nothing is found twice."""

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from alexnet_deploy.index.ranking import Ranking
from alexnet_deploy.index.results import Query
from alexnet_deploy.index.rotations import ROTATIONS, TurningRunner, nearest_of
from alexnet_deploy.inference.run import RunSummary
from tests.support.index_runner import Runners, save, search, update, vector_of

CORNERS = ((200, 0, 0), (0, 200, 0), (0, 0, 200), (90, 90, 9))  # clockwise, from the top left


def file_of(quarters: int) -> bytes:
    """Return a file whose corners differ, turned clockwise by quarters."""
    first, second, third, fourth = np.roll(np.array(CORNERS, np.uint8), quarters, axis=0)
    pixels = np.array([[first, second], [fourth, third]]).repeat(40, axis=0).repeat(40, axis=1)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "BMP")
    return file.getvalue()


@pytest.fixture
def photos(tmp_path: Path, runners: Runners) -> Path:
    """Return an indexed folder; the network sees the colour of a crop's upper left corner."""
    for quarters in range(4):
        save(tmp_path / "photos" / f"{90 * quarters}.bmp", file_of(quarters))
    save(tmp_path / "photos" / "other.bmp", (9, 250, 240))
    update(tmp_path / "index", tmp_path / "photos")
    runners.colours.clear()
    return tmp_path / "photos"


@pytest.mark.parametrize("asked", ["in the index", "not in the index"])
def test_a_turned_copy_is_found_with_its_rotation(
    photos: Path, runners: Runners, asked: str
) -> None:
    query = file_of(0) if asked == "in the index" else file_of(0) + b"more"
    summary = RunSummary()
    (result,) = search(photos.with_name("index"), [query], rotations=True, summary=summary, k=5)
    found = {one.path.name: (one.rotation, one.l2_distance) for one in result.neighbours}
    other = found.pop("other.bmp")
    assert found == {f"{degrees}.bmp": (degrees, 0.0) for degrees in ROTATIONS}
    assert other[1] > 0
    assert (summary.num_done, summary.num_failed) == (1, 0)
    identical = [one.path.name for one in result.neighbours if one.is_identical]
    assert identical == (["0.bmp"] if asked == "in the index" else [])


def test_without_rotations_it_is_not_found(photos: Path, runners: Runners) -> None:
    (result,) = search(photos.with_name("index"), [photos / "0.bmp"], k=5)
    assert [one.rotation for one in result.neighbours] == [0] * 4
    assert min(one.l2_distance for one in result.neighbours) > 0
    assert runners.colours == []


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_the_best_k_of_all_rotations_are_the_best_of_more(photos: Path, metric: str) -> None:
    queries: list[Query] = [
        photos / "90.bmp",
        file_of(2) + b"more",
        vector_of((9, 9, 200)),
        photos / "no.bmp",
    ]
    index = photos.with_name("index")
    for_all = list(search(index, queries, rotations=True, metric=metric, k=9))
    for_two = list(search(index, queries, rotations=True, metric=metric, k=2))
    pairs = list(zip(for_all, for_two, strict=True))
    assert all(few.neighbours == many.neighbours[:2] for many, few in pairs)
    assert [len(many.neighbours) for many in for_all] == [4, 5, 5, 0]
    assert {one.rotation for one in for_all[2].neighbours} == {0}, "a vector cannot be turned"
    assert "No such file" in (for_all[3].error or "")


def ranking_of(positions: list[int], cosines: list[float]) -> Ranking:
    values = np.array(cosines)
    return Ranking(
        positions=np.array(positions),
        cosine_similarity=values,
        l2_distance=np.sqrt(2 - 2 * values),
        num_compared=len(positions),
    )


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_each_vector_is_ranked_once_where_it_is_nearest(metric: str) -> None:
    rankings = [
        ranking_of([3, 1, 2], [0.9, 0.5, 0.4]),
        ranking_of([1, 3, 7], [0.8, 0.9, 0.4]),
        ranking_of([], []),
    ]
    ranking, numbers = nearest_of(rankings, metric)  # type: ignore[arg-type]
    assert ranking.positions.tolist() == [3, 1, 2, 7]
    assert ranking.cosine_similarity.tolist() == [0.9, 0.8, 0.4, 0.4]
    assert numbers.tolist() == [0, 1, 0, 1]


def test_an_image_is_turned_clockwise_in_its_own_row(photos: Path, runners: Runners) -> None:
    class Corner:
        """Returns the upper left pixel of each image."""

        spec = identity = options = description = None

        def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
            return {"corner": images[:, 0, 0].astype(np.float32)}

    images = np.arange(2 * 2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 2, 3)
    turned = TurningRunner(Corner()).run(images)["corner"]  # type: ignore[arg-type]
    for image, rows in zip(images, turned, strict=True):
        clockwise = [image[0, 0], image[1, 0], image[1, 1], image[0, 1]]
        assert rows.tolist() == [corner.tolist() for corner in clockwise]
