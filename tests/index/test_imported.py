"""Vectors of `embed` in an index: searched like others, once, and resumed; rows that cannot be."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alexnet_deploy.errors import IncompatibleFileError, TooManyFailuresError, UsageError
from alexnet_deploy.figures.sheet_cells import search_row, search_text
from alexnet_deploy.figures.sheets import open_sheet
from alexnet_deploy.index import imported_files
from alexnet_deploy.index.model import ModelRequest
from alexnet_deploy.index.results import Query, SearchResult
from alexnet_deploy.index.status import describe_index, failures_of, readable_index
from alexnet_deploy.inference.failures import FailureLimit
from tests.support.index_runner import (
    LAYER,
    REQUEST,
    Runners,
    counts,
    roots_of,
    save,
    save_colours,
    search,
    update,
    vector_of,
)
from tests.support.vector_files import embedded, outcome, take_in

EXACTLY = ModelRequest(layer=LAYER, decode="exact", batch_size=3, threads=2)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Return ten photographs."""
    return save_colours(tmp_path / "photos", 10)


@pytest.fixture
def vectors(photos: list[Path], runners: Runners) -> Path:
    """Return the file of their vectors, beside `photos`."""
    return embedded(runners, photos, photos[0].parent.with_name("v.parquet"))


@pytest.fixture
def index(vectors: Path) -> Path:
    take_in(vectors.with_name("index"), vectors)
    return vectors.with_name("index")


def found(results: list[SearchResult]) -> list[list[tuple[Path, float, float]]]:
    return [
        [(one.path, one.cosine_similarity, one.l2_distance) for one in result.neighbours]
        for result in results
    ]


def check(index: Path) -> list[str]:
    problems: list[str] = describe_index(index, check=True)["problems"]
    return problems


def test_imported_vectors_are_found_as_those_of_the_photographs(
    photos: list[Path], index: Path
) -> None:
    update(index.with_name("other"), photos[0].parent, request=EXACTLY)
    query = save(index.with_name("q.bmp"), (3, 100, 9))
    vector = vector_of((4, 99, 7))
    queries: list[Query] = [query, photos[2], vector]
    assert found(list(search(index, queries, k=4))) == found(
        list(search(index.with_name("other"), queries, k=4))
    )
    assert check(index) == []
    described = describe_index(index, check=False)
    assert (described["identity"], described["decode"]["scale"]) == (Runners().identity, "exact")
    assert (described["layer"], described["dimension"], described["precision"]) == (
        LAYER,
        8,
        "fp32",
    )
    assert described["roots"] == []
    assert described["imported"] == [{"path": str(index.with_name("v.parquet")), "photographs": 10}]
    assert "imported      " in readable_index(described)


def test_importing_again_adds_nothing_and_a_changed_file_replaces_its_rows(
    photos: list[Path], index: Path, vectors: Path, runners: Runners
) -> None:
    before = (index / "vectors" / "00000.f16").read_bytes()
    assert outcome(take_in(index, vectors)) == (0, 10, 0, 0)
    embedded(runners, photos[3:], vectors)
    assert outcome(take_in(index, vectors)) == (7, 0, 10, 0)
    run = describe_index(index, check=False)["runs"][0]
    assert (run["reused"], run["unchanged"], run["removed"]) == (7, 0, 10)
    (result,) = search(index, [vector_of((1, 99, 7))], k=20)
    assert {one.path for one in result.neighbours} == set(photos[3:])
    assert (index / "vectors" / "00000.f16").read_bytes() == before, "their vectors were there"
    assert check(index) == []


def test_a_stopped_import_is_continued_where_it_was_committed(
    vectors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imported_files, "_BATCH_BYTES", 3 * 8 * 4)
    stopped, whole = vectors.with_name("stopped"), vectors.with_name("whole")
    seen: list[str] = []

    def stop(path: str, error: str | None) -> None:
        seen.append(path)
        if len(seen) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take_in(stopped, vectors, on_result=stop)
    monkeypatch.setattr(imported_files, "_BATCH_BYTES", 4 * 8 * 4)  # so it begins within one
    planned: list[int] = []
    assert outcome(take_in(stopped, vectors, on_plan=planned.append)) == (4, 6, 0, 0)
    assert planned == [4]
    assert outcome(take_in(whole, vectors)) == (10, 0, 0, 0)
    for name in ("manifest.json", "vectors/00000.f16"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes()
    queries = [vector_of((4, 99, 7))]
    assert found(list(search(stopped, queries))) == found(list(search(whole, queries)))


def test_a_photograph_that_embed_could_not_read_is_a_failure_with_its_reason(
    photos: list[Path], runners: Runners, tmp_path: Path
) -> None:
    broken = save(tmp_path / "photos" / "broken.bmp", b"no photograph")
    vectors = embedded(runners, [*photos, broken], tmp_path / "v.parquet")
    report = take_in(tmp_path / "index", vectors)
    assert outcome(report) == (10, 0, 0, 1)
    assert dict(failures_of(tmp_path / "index")) == {
        str(broken): "not an image: it begins with 'no photograph'"
    }
    report.check(FailureLimit.parse("1"))
    with pytest.raises(TooManyFailuresError):
        report.check(FailureLimit.parse("0"))


def rewritten(vectors: Path, **columns: pa.Array) -> Path:
    """Replace columns of a file, without what it says of itself."""
    table = pq.read_table(vectors).replace_schema_metadata(None)
    for name, column in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    pq.write_table(table, vectors)
    return vectors


def test_rows_that_cannot_be_used_are_failures_and_the_others_are_found(vectors: Path) -> None:
    lists = pq.read_table(vectors)[LAYER].to_pylist()
    lists[1], lists[2] = lists[1][:-1], lists[2] * 2
    lists[3], lists[4] = [float("nan"), *lists[3][1:]], [1e6, *lists[4][1:]]
    lists[5], lists[6] = None, [None, *lists[6][1:]]
    paths = ["/a", "https://b/1.jpg", "/c", "/d", "/e", "/f", "/g", "", "/h\0i", "/" + "j" * 4096]
    rewritten(
        vectors,
        **{LAYER: pa.array(lists, pa.list_(pa.float32())), "path": pa.array(paths)},
    )
    report = take_in(vectors.with_name("index"), vectors, made_by="somebody")
    assert outcome(report) == (1, 0, 0, 9)
    assert dict(failures_of(report.directory)) == {
        "https://b/1.jpg": "its vector has 7 numbers, expected 8",
        "/c": "its vector has 16 numbers, expected 8",
        "/d": "its vector activations are not numbers (NaN)",
        "/e": "its vector activations reach 1e+06, an index holds up to 65504 (float16); "
        "index a later layer",
        "/f": "it has no vector",
        "/g": "its vector activations are not numbers (NaN)",
        "v.parquet#7": "it has no path",
        "v.parquet#8": "its path holds a NUL",
        "v.parquet#9": "its path has 4,097 bytes, expected at most 4,096",
    }
    assert check(report.directory) == []
    (result,) = search(report.directory, [vector_of((1, 99, 7))])
    assert [one.imported for one in result.neighbours] == ["/a"]


def test_names_that_are_not_utf8_come_back_byte_for_byte(vectors: Path) -> None:
    raw = os.fsdecode(b"/p/\xff.bmp")
    encoded = pa.array(["L3Av/y5ibXA=", "no base64", *[None] * 8], pa.string())
    data = pa.array([b"/\xfe", *(b"/p/%d" % number for number in range(9))], pa.binary())
    rewritten(vectors, path_base64=encoded, path=data.view(pa.string()))
    report = take_in(vectors.with_name("index"), vectors, made_by="somebody")
    assert outcome(report) == (9, 0, 0, 1)
    (result,) = search(report.directory, [vector_of((1, 99, 7))], k=1)
    assert result.neighbours[0].imported == raw
    assert '"path_base64": "L3Av/y5ibXA="' in result.to_json()
    ((path, reason),) = failures_of(report.directory)
    assert (path, reason) == ("v.parquet#1", "its path_base64 is no base64")


def test_a_name_that_two_rows_have_is_told(vectors: Path) -> None:
    rewritten(vectors, path=pa.array(["/a", "/b"] * 5))
    told: list[str] = []
    take_in(vectors.with_name("index"), vectors, made_by="somebody", notify=told.append)
    assert told == [f"{vectors}: 8 of its 10 rows have the name of a later one, which counts"]


def test_vectors_of_another_space_are_refused_and_nothing_is_written(
    photos: list[Path], vectors: Path, runners: Runners
) -> None:
    index = vectors.with_name("index")
    update(index, photos[0].parent, request=REQUEST)  # scaled
    before = (index / "ledger.sqlite").read_bytes()
    with pytest.raises(IncompatibleFileError, match=r"its decode is .*scaled.*, requested was .*"):
        take_in(index, vectors)
    other = embedded(Runners("f" * 64), photos, vectors.with_name("other.parquet"))
    with pytest.raises(IncompatibleFileError, match=r"its identity is 0123.*, requested was fff"):
        take_in(vectors.with_name("new"), vectors, other)
    with pytest.raises(UsageError, match=r"other.parquet: has logits, and fc7 was asked for"):
        take_in(vectors.with_name("new"), other, layer="fc7")
    with pytest.raises(UsageError, match=r"made_by=.x.: .*other.parquet says itself what made its"):
        take_in(vectors.with_name("new"), other, made_by="x")
    assert not vectors.with_name("new").exists()
    assert (index / "ledger.sqlite").read_bytes() == before


def test_runs_for_folders_leave_imported_vectors_alone(
    photos: list[Path], index: Path, vectors: Path
) -> None:
    folder = photos[0].parent
    assert counts(update(index, folder, request=EXACTLY)) == (10, 0, 0, 0, 0)
    assert roots_of(index) == [folder]
    for path in photos[:5]:
        path.unlink()
    assert counts(update(index, folder, prune=True, request=EXACTLY)) == (0, 0, 5, 5, 0)
    assert counts(update(index, request=EXACTLY)) == (0, 0, 5, 0, 0)
    assert outcome(take_in(index, vectors)) == (0, 10, 0, 0)
    update(index, folder.parent, request=EXACTLY)  # which has the file in it
    assert roots_of(index) == [folder.parent]
    assert check(index) == []
    assert update(index, remove=(vectors,), request=EXACTLY).num_removed == 10
    assert describe_index(index, check=False)["imported"] == []
    (result,) = search(index, [vector_of((9, 99, 7))], k=20)
    assert {one.path for one in result.neighbours} == set(photos[5:])


def test_an_index_of_imported_vectors_alone_is_pruned_without_folders(index: Path) -> None:
    assert counts(update(index, prune=True, request=EXACTLY)) == (0, 0, 0, 0, 0)
    assert check(index) == []


def test_damaged_vectors_come_back_when_their_file_is_imported_again(
    index: Path, vectors: Path
) -> None:
    segment = index / "vectors" / "00000.f16"
    data = bytearray(segment.read_bytes())
    data[3 * 16] ^= 1
    segment.write_bytes(data)
    update(index, repair=True, request=EXACTLY)
    assert check(index) == [
        f"1 rows of {vectors} without a vector; alexnet-deploy index --from brings them back"
    ]
    assert outcome(take_in(index, vectors)) == (10, 0, 0, 0)
    assert check(index) == []
    (result,) = search(index, [vector_of((4, 99, 7))], k=1)
    assert result.neighbours[0].path.name == "03.bmp"


def test_no_photograph_is_opened_because_a_file_of_vectors_names_it(
    photos: list[Path], index: Path
) -> None:
    """Nor is it looked for: what is shown does not depend on whether it is there."""

    def shown() -> tuple[str, str, bytes]:
        (result,) = search(index, [vector_of((4, 99, 7))], k=10)
        assert {one.imported for one in result.neighbours} == set(map(str, photos))
        sheet = index.with_name("sheet.html")
        with open_sheet(sheet, search_text("cosine")) as add:
            add(search_row(result, "cosine"))
        return result.to_text(), result.to_json(), sheet.read_bytes()

    text, json, sheet = before = shown()
    assert (text.count("  imported  "), json.count('"imported": true')) == (10, 10)
    assert sheet.count(b"not here, only its vector") == 10
    for path in photos:
        path.unlink()
    assert shown() == before


def test_a_query_is_no_neighbour_of_the_row_that_was_imported_for_it(
    photos: list[Path], index: Path
) -> None:
    (result,) = search(index, [photos[3]], k=20)
    assert {one.path for one in result.neighbours} == {*photos} - {photos[3]}
