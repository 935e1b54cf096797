"""An index as Parquet: whole or not at all, read by other programs, and taken in again."""

import hashlib
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from alexnet_deploy.errors import IncompatibleFileError, UsageError
from alexnet_deploy.index import exported
from alexnet_deploy.index.exported import export_files
from alexnet_deploy.index.integrity import intact_rows
from alexnet_deploy.index.results import Query, SearchResult
from alexnet_deploy.index.status import describe_index
from alexnet_deploy.index.storage import Storage
from tests.support.index_runner import (
    DIMENSION,
    LAYER,
    photograph,
    save,
    save_colours,
    search,
    update,
    vector_of,
)
from tests.support.vector_files import (
    MADE_BY,
    outcome,
    random_vectors,
    take_in,
    write_shards,
)

pytestmark = pytest.mark.usefixtures("runners")

QUERY = vector_of((12, 99, 8))


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Return an index of 24 photographs, two of them copies, one with a name that is not UTF-8."""
    photos = tmp_path / "photos"
    save_colours(photos, 22)
    save(photos / "copy.bmp", photograph((5, 99, 7)))
    save(photos / os.fsdecode(b"\xff.bmp"), (90, 9, 9))
    save(photos / "broken.bmp", b"no photograph")
    update(tmp_path / "index", photos)
    return tmp_path / "index"


def found(result: SearchResult) -> list[tuple[str, float, float, int]]:
    return [
        (str(one.path), one.cosine_similarity, one.l2_distance, one.rotation)
        for one in result.neighbours
    ]


def test_what_was_exported_and_imported_is_searched_with_the_same_bits(
    index: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    report = export_files(index, tmp_path / "out")
    assert (report.num_exported, len(report.files)) == (24, 1)
    assert outcome(take_in(tmp_path / "new", tmp_path / "out")) == (24, 0, 0, 0)
    queries: list[Query] = [QUERY, photos / "04.bmp", save(tmp_path / "q.bmp", (9, 100, 9))]
    for metric in ("cosine", "l2"):
        before = [found(each) for each in search(index, queries, k=30, metric=metric)]
        after = [found(each) for each in search(tmp_path / "new", queries, k=30, metric=metric)]
        assert [len(each) for each in before] == [24, 23, 24]
        assert after == before
    old, new = (describe_index(each, check=True) for each in (index, tmp_path / "new"))
    assert new["problems"] == []
    assert new["vectors"] == old["vectors"], "copies share one there, too"
    for name in ("identity", "layer", "dimension", "preprocessing", "precision", "decode"):
        assert new[name] == old[name]


def test_columns_are_what_the_index_holds(index: Path, tmp_path: Path) -> None:
    export_files(index, tmp_path / "out")
    table = pq.read_table(tmp_path / "out")
    assert table.column_names == ["id", "path", "path_base64", "error", "sha256", LAYER]
    assert str(table.schema.field(LAYER).type) == f"fixed_size_list<element: float>[{DIMENSION}]"
    rows = {row["path"]: row for row in table.to_pylist()}
    path = tmp_path / "photos" / "03.bmp"
    assert rows[str(path)][LAYER] == vector_of((4, 99, 7)).tolist()
    assert rows[str(path)]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    encoded = [row["path_base64"] for row in rows.values() if row["path_base64"] is not None]
    assert len(encoded) == 1
    assert [row["error"] for row in rows.values()] == [None] * 24


def test_an_index_of_another_programs_vectors_is_exported_as_they_were_named(
    tmp_path: Path,
) -> None:
    vectors, urls = random_vectors(5, 7), [f"https://a.example/{n}" for n in range(5)]
    take_in(tmp_path / "index", write_shards(tmp_path / "c", [vectors], [urls]), made_by=MADE_BY)
    export_files(tmp_path / "index", tmp_path / "out")
    table = pq.read_table(tmp_path / "out")
    assert table["path"].to_pylist() == urls
    assert table["sha256"].to_pylist() == [None] * 5
    assert table["vector"].to_pylist() == vectors.tolist()
    assert outcome(take_in(tmp_path / "new", tmp_path / "out")) == (5, 0, 0, 0)
    identity = describe_index(tmp_path / "new", check=False)["identity"]
    assert identity == f"foreign:{MADE_BY}"


def test_files_have_so_many_rows_and_ids_go_on(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exported, "_FILE_ROWS", 10)
    monkeypatch.setattr(exported, "_GROUP_BYTES", 4 * 4 * DIMENSION)
    report = export_files(index, tmp_path / "out")
    assert [file.name for file in report.files] == [
        f"photographs-0000{n}.parquet" for n in range(3)
    ]
    tables = [pq.read_table(file) for file in report.files]
    assert [table.num_rows for table in tables] == [10, 10, 4]
    ids = [key for table in tables for key in table["id"].to_pylist()]
    assert ids == sorted(set(ids))
    assert outcome(take_in(tmp_path / "new", tmp_path / "out")) == (24, 0, 0, 0)


def test_an_export_is_there_whole_or_not_at_all(index: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def stop(path: Path | str, error: str | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_files(index, out, on_result=stop)
    assert list(out.iterdir()) == []
    segment = index / "vectors" / "00000.f16"
    data = segment.read_bytes()
    segment.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(IncompatibleFileError, match="vector 0 was changed since it was written"):
        export_files(index, out)
    assert list(out.iterdir()) == []
    (out / "other").touch()
    with pytest.raises(UsageError, match="holds other, expected a new or an empty folder"):
        export_files(index, out)


def test_an_index_without_vectors_is_not_exported(tmp_path: Path) -> None:
    save(tmp_path / "photos" / "broken.bmp", b"no photograph")
    update(tmp_path / "index", tmp_path / "photos")
    with pytest.raises(UsageError, match="has no vector to export"):
        export_files(tmp_path / "index", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_may_index_and_prune_meanwhile(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exported, "_GROUP_BYTES", 4 * 4 * DIMENSION)
    photos, seen = tmp_path / "photos", []

    def change(path: Path | str, error: str | None) -> None:
        seen.append(path)
        if len(seen) == 1:
            save(photos / "later.bmp", (200, 200, 0))
            for name in ("00.bmp", "20.bmp", "21.bmp"):
                (photos / name).unlink()
            update(index, photos, prune=True)

    report = export_files(index, tmp_path / "out", on_result=change)
    names = [Path(path).name for path in pq.read_table(tmp_path / "out")["path"].to_pylist()]
    assert "later.bmp" not in names
    assert "21.bmp" not in names
    assert report.num_exported == len(names) == len(seen)
    rows = pq.read_table(tmp_path / "out").to_pylist()
    by_name = {Path(row["path"]).name: row[LAYER] for row in rows}
    assert all(by_name[f"{n:02}.bmp"] == vector_of((n + 1, 99, 7)).tolist() for n in range(1, 20))


def test_no_vector_moves_while_a_group_is_read(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = []

    def read(storage: Storage, positions: Sequence[int]) -> NDArray[np.float16]:
        with closing(sqlite3.connect(index / "ledger.sqlite", timeout=0)) as other:
            other.execute("UPDATE vectors SET position = position + 100")
            with pytest.raises(sqlite3.OperationalError, match="locked") as refused:
                other.commit()
        refusals.append(refused.value)
        return intact_rows(storage, positions)

    monkeypatch.setattr(exported, "intact_rows", read)
    assert export_files(index, tmp_path / "out").num_exported == 24
    assert len(refusals) == 2, "the second finds that there are no more"


def expected(index: Path, k: int) -> list[str]:
    (result,) = search(index, [QUERY], k=k)
    return [str(one.path) for one in result.neighbours]


def test_duckdb_reads_an_export_and_finds_the_same(index: Path, tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    (tmp_path / "photos" / os.fsdecode(b"\xff.bmp")).unlink()
    update(index, tmp_path / "photos")
    export_files(index, tmp_path / "out")
    rows = duckdb.execute(
        f"SELECT path, array_cosine_similarity({LAYER}::FLOAT[{DIMENSION}], "
        f"$query::FLOAT[{DIMENSION}]) AS cosine FROM read_parquet($files) "
        "ORDER BY cosine DESC, id LIMIT 5",
        {"query": QUERY.tolist(), "files": str(tmp_path / "out" / "*.parquet")},
    ).fetchall()
    assert [path for path, _ in rows] == expected(index, 5)
    (result,) = search(index, [QUERY], k=5)
    assert [cosine for _, cosine in rows] == pytest.approx(
        [one.cosine_similarity for one in result.neighbours], abs=1e-6
    )


def test_lancedb_takes_in_an_export_and_finds_the_same(index: Path, tmp_path: Path) -> None:
    lancedb = pytest.importorskip("lancedb", reason="lancedb is not installed")
    export_files(index, tmp_path / "out")
    photographs = lancedb.connect(tmp_path / "lance").create_table(
        "photographs", pq.read_table(tmp_path / "out")
    )
    rows = photographs.search(QUERY.astype(np.float32)).distance_type("l2").limit(5).to_list()
    (result,) = search(index, [QUERY], k=5, metric="l2")
    assert [row["path"] for row in rows] == [str(one.path) for one in result.neighbours]
    assert [row["_distance"] ** 0.5 for row in rows] == pytest.approx(
        [one.l2_distance for one in result.neighbours], rel=1e-5
    )


def test_pandas_reads_an_export(index: Path, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    export_files(index, tmp_path / "out")
    frame = pandas.read_parquet(tmp_path / "out")
    path = str(tmp_path / "photos" / "03.bmp")
    (vector,) = frame.loc[frame["path"] == path, LAYER]
    np.testing.assert_array_equal(vector, vector_of((4, 99, 7)).astype(np.float32))
