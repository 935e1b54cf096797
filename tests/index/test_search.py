"""What a search finds, leaves out, refuses, and says, with a quick runner."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet_deploy.errors import IncompatibleFileError, UsageError
from alexnet_deploy.index.model import ModelRequest
from alexnet_deploy.index.results import SearchResult
from alexnet_deploy.inference.run import RunSummary
from tests.support.index_runner import (
    REQUEST,
    TOO_BRIGHT,
    Colour,
    Runners,
    photograph,
    rows_of,
    save,
    save_colours,
    search,
    update,
    vector_of,
)

RED, GREEN, BLUE, PINK = (200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 60, 60)


@pytest.fixture
def photos(tmp_path: Path, runners: Runners) -> Path:
    """Return a folder of four photographs, which `tmp_path / "index"` is the index of."""
    for name, colour in (("blue", BLUE), ("green", GREEN), ("pink", PINK), ("red", RED)):
        save(tmp_path / "photos" / f"{name}.bmp", colour)
    update(tmp_path / "index", tmp_path / "photos")
    runners.num_opened = 0
    runners.colours.clear()
    return tmp_path / "photos"


def one(directory: Path, query: Path | bytes, **options: Any) -> SearchResult:
    (result,) = search(directory, [query], **options)
    return result


def names(result: SearchResult) -> list[str]:
    assert result.error is None
    return [neighbour.path.name for neighbour in result.neighbours]


def expected_order(query: Colour, others: dict[str, Colour], metric: str) -> list[str]:
    """Sort `others` by what numpy says of their vectors."""
    wide = vector_of(query).astype(np.float64)

    def farness(name: str) -> float:
        row = vector_of(others[name]).astype(np.float64)
        if metric == "l2":
            return float(np.linalg.norm(row - wide))
        return -float(row @ wide / np.linalg.norm(row) / np.linalg.norm(wide))

    return sorted(others, key=farness)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("is_indexed", [True, False])
def test_the_nearest_come_first_with_both_measures(
    photos: Path, index: Path, metric: Any, is_indexed: bool
) -> None:
    others: dict[str, Colour] = {"blue.bmp": BLUE, "green.bmp": GREEN, "pink.bmp": PINK}
    query = photos / "red.bmp"
    if not is_indexed:
        query, others["red.bmp"] = save(photos.with_name("q.bmp"), (180, 10, 0)), RED
    found = one(index, query, metric=metric)
    colour = RED if is_indexed else (180, 10, 0)
    assert names(found) == expected_order(colour, others, metric)
    wide = vector_of(colour).astype(np.float64)
    for neighbour in found.neighbours:
        row = vector_of(others[neighbour.path.name]).astype(np.float64)
        cosine = row @ wide / np.linalg.norm(row) / np.linalg.norm(wide)
        # Float64 sums of eight numbers in another order.
        assert neighbour.cosine_similarity == pytest.approx(cosine, abs=1e-14)
        assert neighbour.l2_distance == pytest.approx(np.linalg.norm(row - wide), rel=1e-14)
        assert neighbour.path == photos / neighbour.path.name


def test_without_a_metric_the_manifest_says_which(photos: Path, index: Path) -> None:
    manifest = json.loads((index / "manifest.json").read_text())
    default = one(index, photos / "green.bmp")
    assert default.neighbours == one(index, photos / "green.bmp", metric="cosine").neighbours
    (index / "manifest.json").write_text(json.dumps(manifest | {"metric": "l2"}))
    by_l2 = one(index, photos / "green.bmp")
    assert by_l2.neighbours == one(index, photos / "green.bmp", metric="l2").neighbours
    distances = [neighbour.l2_distance for neighbour in by_l2.neighbours]
    assert distances == sorted(distances)


@pytest.fixture
def ways(photos: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Return ways to name `red.bmp`."""
    above = photos.parent
    (above / "link.bmp").symlink_to(photos / "red.bmp")
    (above / "linked").symlink_to(photos)
    (above / "twice").symlink_to("linked")
    (photos / "sub").mkdir()
    monkeypatch.chdir(above)
    return {
        "path": photos / "red.bmp",
        "relative": Path("photos/red.bmp"),
        "roundabout": Path("photos/sub/../red.bmp"),
        "link": above / "link.bmp",
        "relative link": Path("link.bmp"),
        "linked folder": Path("linked/red.bmp"),
        "links": above / "twice" / "red.bmp",
    }


@pytest.mark.parametrize(
    "way",
    ["path", "relative", "roundabout", "link", "relative link", "linked folder", "links"],
)
def test_the_query_itself_is_left_out_however_it_is_named(
    index: Path, ways: dict[str, Path], way: str
) -> None:
    found = one(index, ways[way])
    assert sorted(names(found)) == ["blue.bmp", "green.bmp", "pink.bmp"]
    assert found.query == ways[way]


@pytest.mark.parametrize("folder", ["photos/away", "elsewhere", "linked/away"])
def test_a_photograph_that_is_indexed_through_a_link_is_left_out_by_any_of_its_names(
    tmp_path: Path, photos: Path, index: Path, folder: str
) -> None:
    save(tmp_path / "elsewhere" / "far.bmp", (1, 100, 100))
    (photos / "away").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "linked").symlink_to(photos)
    update(index, photos)
    assert photos / "away" / "far.bmp" in rows_of(index)
    assert "far.bmp" not in names(one(index, tmp_path / folder / "far.bmp"))


@pytest.mark.parametrize("k", [1, 2, 9])
def test_an_identical_copy_stays_at_distance_0(photos: Path, index: Path, k: int) -> None:
    for copy in (photos / "a copy.bmp", photos / "sub" / "z.bmp"):
        save(copy, RED)
    update(index, photos)
    for query, copies in (
        ("red.bmp", ["a copy.bmp", "z.bmp"]),
        ("a copy.bmp", ["red.bmp", "z.bmp"]),
    ):
        for name in ("cosine", "l2"):
            metric: Any = name
            found = one(index, photos / query, k=k, metric=metric)
            assert names(found)[:2] == copies[:k]
            assert len(found.neighbours) == min(k, 5)
            for neighbour in found.neighbours[:2][:k]:
                assert (neighbour.l2_distance, neighbour.cosine_similarity) == (0, 1)


def test_photographs_of_one_vector_come_in_the_order_of_their_ids(
    photos: Path, index: Path
) -> None:
    for name in ("z", "y"):  # the same bytes, so one vector
        save(photos / f"{name}.bmp", RED)
        update(index, photos)
    # Another vector with the same numbers.
    save(photos / "x.bmp", photograph(RED, edition=1))
    update(index, photos)
    save(photos / "w.bmp", RED)
    update(index, photos)
    ids = {path.name: row.id for path, row in rows_of(index).items()}
    found = names(one(index, save(photos.with_name("q.bmp"), RED), k=5))
    assert found == ["red.bmp", "z.bmp", "y.bmp", "x.bmp", "w.bmp"]
    assert [ids[name] for name in found] == sorted(ids[name] for name in found)
    for k in range(1, 6):
        assert names(one(index, photos.with_name("q.bmp"), k=k)) == found[:k]


def test_a_query_that_is_indexed_needs_no_engine(
    photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the runner was opened")

    monkeypatch.setattr("alexnet_deploy.index.model.open_runner_of", refuse)
    copy = save(photos.with_name("copy.bmp"), RED)
    summary = RunSummary()
    results = list(search(index, [photos / "red.bmp", copy], summary=summary))
    assert [len(result.neighbours) for result in results] == [3, 4]
    assert (summary.num_done, summary.num_failed) == (2, 0)


@pytest.mark.parametrize("resources", [None, "those of a GPU"])
@pytest.mark.parametrize("device", ["auto", "cpu", "cuda"])
def test_what_a_gpu_was_asked_for_and_faiss_does_on_the_cpu_is_said_once(
    photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch, device: Any, resources: str | None
) -> None:
    from alexnet_deploy.index import exact_search

    used, nearest = list[object](), exact_search.nearest

    def scan(*arguments: Any, gpu: object, **others: Any) -> Any:
        used.append(gpu)
        return nearest(*arguments, **others)

    monkeypatch.setattr("alexnet_deploy.index.session.current_gpu", lambda: None)
    monkeypatch.setattr("alexnet_deploy.index.exact_scan.gpu_resources", lambda: resources)
    monkeypatch.setattr(exact_search, "nearest", scan)
    notes: list[str] = []
    queries = [photos / "red.bmp"] * 40  # a few at once
    list(search(index, queries, ModelRequest(device=device), notify=notes.append))
    assert used == [None if device == "cpu" else resources] * 2
    is_said = device == "cuda" and resources is None
    assert ["FAISS compares the vectors on the CPU" in note for note in notes] == [True] * is_said


def test_other_queries_open_it_once(photos: Path, index: Path, runners: Runners) -> None:
    queries = save_colours(photos.with_name("queries"), 70)
    queries[40:40] = [photos / "red.bmp"]
    results = list(search(index, queries, REQUEST))
    assert [result.query for result in results] == queries
    assert runners.num_opened == 1
    assert runners.colours == [(number + 1, 99, 7) for number in range(70)]
    assert all(
        len(result.neighbours) == 4 - (result.query in set[object](photos.iterdir()))
        for result in results
    )


def test_a_changed_query_leaves_out_what_its_own_path_had(
    photos: Path, index: Path, runners: Runners
) -> None:
    save(photos / "red.bmp", (0, 190, 10))
    assert names(one(index, photos / "red.bmp"))[0] == "green.bmp"
    assert runners.colours == [(0, 190, 10)]
    assert "red.bmp" not in names(one(index, photos / "red.bmp"))


def test_queries_that_cannot_be_read_keep_their_place(photos: Path, index: Path) -> None:
    bad = save(photos.with_name("bad.jpg"), b"bad")
    new = save(photos.with_name("new.bmp"), (9, 9, 9))
    queries = [bad, photos / "red.bmp", photos / "missing.bmp", new, photos, bad]
    summary = RunSummary()
    results = list(search(index, queries, summary=summary))
    assert [result.query for result in results] == queries
    assert [result.error is None for result in results] == [False, True, False, True, False, False]
    assert [len(result.neighbours) for result in results] == [0, 3, 0, 4, 0, 0]
    assert "not an image" in (results[0].error or "")
    assert "No such file" in (results[2].error or "")
    assert (summary.num_done, summary.num_failed) == (2, 4)


def test_the_bytes_of_a_file_are_a_query_of_no_path(
    photos: Path, index: Path, runners: Runners
) -> None:
    indexed = one(index, photograph(RED))
    assert runners.num_opened == 0
    assert (indexed.query, names(indexed)[0]) == (photograph(RED), "red.bmp")
    other = one(index, photograph((210, 0, 0)))
    assert (runners.colours, len(other.neighbours)) == ([(210, 0, 0)], 4)
    assert one(index, b"text").error is not None
    assert "empty" in (one(index, b"").error or "")


def test_what_is_farther_than_the_limit_is_left_out(photos: Path, index: Path) -> None:
    query = photos / "red.bmp"
    for name in ("cosine", "l2"):
        metric: Any = name
        found = one(index, query, metric=metric).neighbours
        for count, neighbour in enumerate(found, start=1):
            distance = neighbour.l2_distance
            if metric == "cosine":
                distance = 1 - neighbour.cosine_similarity
            # The limit itself may be lost to the rounding of 1 - cosine.
            above, below = distance + 1e-12, distance - 1e-12
            assert one(index, query, metric=metric, max_distance=above).neighbours == found[:count]
            assert (
                one(index, query, metric=metric, max_distance=below).neighbours
                == found[: count - 1]
            )
        assert one(index, query, metric=metric, max_distance=0).neighbours == ()
        assert one(index, query, metric=metric, max_distance=float("inf")).neighbours == found


def test_a_limit_of_0_finds_copies(photos: Path, index: Path) -> None:
    query = save(photos.with_name("q.bmp"), photograph(RED, edition=7))
    for name in ("cosine", "l2"):
        metric: Any = name
        assert names(one(index, query, metric=metric, max_distance=0)) == ["red.bmp"]


def test_what_is_no_query_is_refused(photos: Path, index: Path) -> None:
    for wrong in (5, {photos / "red.bmp": 1}, np.ones(7)):
        with pytest.raises(
            UsageError, match=r"queries\[0\] is (of type (int|dict)|a vector \(7,\))"
        ):
            search(index, wrong)  # type: ignore[arg-type]


def test_no_query_finds_nothing(index: Path) -> None:
    assert list(search(index, [])) == list(search(index, iter([]))) == []


def test_an_empty_index_has_no_neighbours(photos: Path, index: Path, tmp_path: Path) -> None:
    for path in photos.iterdir():
        path.unlink()
    update(index, prune=True)
    query = save(tmp_path / "q.bmp", RED)
    results = list(search(index, [query, tmp_path / "missing.bmp"]))
    assert [result.neighbours for result in results] == [(), ()]
    assert [result.error is None for result in results] == [True, False]


@pytest.mark.parametrize(
    ("request_", "difference"),
    [
        (ModelRequest(layer="fc7"), "layer"),
        (ModelRequest(precision="bf16"), "precision"),
        (ModelRequest(model=Path("other.onnx")), "identity"),
        (ModelRequest(decode="exact"), "requested was pillow.* at exact size"),
        (ModelRequest(decode="gpu"), "requested was nvimgcodec.* at exact size"),
        (ModelRequest(colour="ignored"), "requested was .* profiles ignored"),
    ],
    ids=["layer", "precision", "model", "exact", "gpu", "colour"],
)
def test_another_vector_space_is_refused_even_if_no_engine_is_needed(
    photos: Path, index: Path, runners: Runners, request_: ModelRequest, difference: str
) -> None:
    runners.identity = "f" * 64
    with pytest.raises(IncompatibleFileError, match=difference) as caught:
        list(search(index, [photos / "red.bmp"], request_))
    assert caught.value.exit_code == 5
    assert str(index) in str(caught.value)


def test_a_model_that_was_replaced_is_refused_once_it_is_needed(
    photos: Path, index: Path, runners: Runners
) -> None:
    runners.identity = "f" * 64
    assert len(one(index, photos / "red.bmp").neighbours) == 3
    with pytest.raises(IncompatibleFileError, match="cannot be compared"):
        one(index, save(photos.with_name("q.bmp"), (1, 2, 3)))


def test_a_query_beyond_float16_has_an_error_and_the_others_their_results(
    photos: Path, index: Path
) -> None:
    bright = save(photos.with_name("bright.bmp"), TOO_BRIGHT)
    dark = save(photos.with_name("dark.bmp"), (1, 1, 1))
    summary = RunSummary()
    first, second = search(index, [bright, dark], summary=summary)
    assert (summary.num_done, summary.num_failed) == (1, 1)
    assert "its logits activations reach 1e+06" in (first.error or "")
    assert first.neighbours == ()
    assert len(second.neighbours) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k is 0, expected 1 or more"),
        ({"k": -3}, "k is -3"),
        ({"k": "3"}, "k is '3', expected a whole number, 1 or more"),
        ({"max_distance": "1"}, "max_distance is '1', expected 0 or more"),
        ({"metric": "L2"}, "metric is 'L2', expected one of cosine, l2"),
        ({"max_distance": -0.5}, "max_distance is -0.5, expected 0 or more"),
        ({"max_distance": float("nan")}, "max_distance is nan"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_the_call(
    index: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        search(index, [], **options)


def test_no_index_is_refused_at_the_call(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist; make it with"):
        search(tmp_path / "nowhere", [])
    with pytest.raises(IncompatibleFileError, match=r"manifest\.json"):
        search(tmp_path, [])
