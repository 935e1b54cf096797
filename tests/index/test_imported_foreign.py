"""Vectors of other programs: clip-retrieval's files, plain Parquet, and files that are broken."""

import io
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from alexnet_deploy.errors import AlexNetDeployError, IncompatibleFileError, UsageError
from alexnet_deploy.index.model import ModelRequest
from alexnet_deploy.index.status import describe_index, readable_index
from tests.support.index_runner import save, search, update
from tests.support.vector_files import (
    MADE_BY,
    outcome,
    random_vectors,
    take_in,
    write_columns,
    write_shards,
)

pytestmark = pytest.mark.usefixtures("runners")

DIMENSION = 12
VECTORS = random_vectors(25, DIMENSION)
URLS = [f"https://photographs.example/{number}.jpg?s=1" for number in range(25)]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Return a folder of clip-retrieval: 25 rows in three files, of float16 and float32."""
    parts = [slice(0, 10), slice(10, 20), slice(20, 25)]
    arrays: list[NDArray[np.floating]] = [VECTORS[part].astype(np.float16) for part in parts]
    arrays[1] = VECTORS[parts[1]]
    return write_shards(tmp_path / "clip", arrays, [URLS[part] for part in parts])


@pytest.fixture
def index(shards: Path) -> Path:
    assert outcome(take_in(shards.with_name("index"), shards, made_by=MADE_BY)) == (25, 0, 0, 0)
    return shards.with_name("index")


def nearest(query: NDArray[np.float32], k: int) -> list[tuple[str, float]]:
    """Return the nearest by cosine similarity, computed here."""
    wide = VECTORS.astype(np.float64)
    cosines = wide @ query / np.linalg.norm(wide, axis=1) / np.linalg.norm(query)
    order = np.argsort(-cosines)[:k]
    return [(URLS[number], cosines[number]) for number in order]


def test_the_shards_of_clip_retrieval_are_one_index(index: Path, shards: Path) -> None:
    query = random_vectors(1, DIMENSION, seed=1)[0]
    (result,) = search(index, [query], k=5)
    found = [(one.imported, one.cosine_similarity) for one in result.neighbours]
    assert [name for name, _ in found] == [name for name, _ in nearest(query, 5)]
    assert [value for _, value in found] == pytest.approx([v for _, v in nearest(query, 5)])
    assert {one.remark for one in result.neighbours} == {"imported"}
    assert f'"path": "{found[0][0]}"' in result.to_json()
    described = describe_index(index, check=True)
    assert described["problems"] == []
    assert (described["identity"], described["layer"]) == (f"foreign:{MADE_BY}", "vector")
    assert [file["photographs"] for file in described["imported"]] == [10, 10, 5]
    assert "another program" in readable_index(described)
    assert outcome(take_in(index, shards)) == (0, 25, 0, 0), "its name is the index's"


def test_what_was_imported_is_searched_for_by_its_name(index: Path) -> None:
    (result,) = search(index, [URLS[7]], k=3)
    assert [one.imported for one in result.neighbours] == [
        name for name, _ in nearest(VECTORS[7], 4)
    ][1:]
    assert result.error is None


def test_no_photograph_can_be_searched_for_or_indexed_there(index: Path, tmp_path: Path) -> None:
    photograph = save(tmp_path / "photos" / "a.bmp", (1, 2, 3))
    message = rf"were imported, made by {MADE_BY}, and no network here .* vector of 12 numbers"
    with pytest.raises(UsageError, match=message):
        list(search(index, [photograph]))
    before = (index / "ledger.sqlite").read_bytes()
    with pytest.raises(UsageError, match=message):
        update(index, tmp_path / "photos", request=ModelRequest())
    assert (index / "ledger.sqlite").read_bytes() == before


def test_vectors_of_which_nobody_says_what_made_them_are_refused(
    shards: Path, index: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"does not say what made its vectors.*with made_by, such"):
        take_in(tmp_path / "new", shards)
    with pytest.raises(IncompatibleFileError, match=rf"identity is foreign:{MADE_BY}, requested"):
        take_in(index, shards, made_by="another")
    longer = write_shards(tmp_path / "longer", [random_vectors(1, 13)], [["a"]])
    with pytest.raises(IncompatibleFileError, match="dimension is 12, requested was 13"):
        take_in(index, longer)
    with pytest.raises(UsageError, match="made_by is '', expected 1 to 900 characters"):
        take_in(index, shards, made_by="")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "kind",
    [pa.list_(pa.float16()), pa.large_list(pa.float64()), pa.list_(pa.float32(), DIMENSION)],
    ids=str,
)
def test_any_parquet_file_with_names_and_one_list_of_floats_will_do(
    kind: pa.DataType, tmp_path: Path
) -> None:
    columns = {
        "url": URLS,
        "embedding": pa.array(VECTORS.tolist(), pa.list_(pa.float32())).cast(kind),
    }
    file = write_columns(tmp_path / "v.parquet", columns)
    assert outcome(take_in(tmp_path / "index", file, made_by="m")) == (25, 0, 0, 0)
    (result,) = search(tmp_path / "index", [VECTORS[3]], k=1)
    assert (result.neighbours[0].imported, result.neighbours[0].l2_distance) == (URLS[3], 0)


def npy(header: bytes, data: bytes = b"") -> bytes:
    file = io.BytesIO()
    file.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data)
    return file.getvalue()


def header(descr: str, shape: str) -> bytes:
    return f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}".encode() + b"\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no array",
        b"PK\x03\x04" + bytes(60),
        npy(header("<f2", "(1000000000000, 4096)")),
        npy(header("<f2", f"({2**62}, {2**62})")),
        npy(header("<f2", "(10, -1)")),
        npy(header("<f2", "(10, 0)")),
        npy(header("|O", "(10, 1)"), b"cos\nsystem\n(S'false'\ntR." * 9),
        npy(header("<i4", "(10, 2)"), bytes(80)),
        npy(header("<f2", "(20,)"), bytes(40)),
        npy(header("<f2", "(9, 2)"), bytes(36)),
        npy(b"{" * 500 + b"\n"),
        npy(header("<f2", "(10, 2)"), bytes(39)),
    ],
)
def test_an_npy_that_is_none_is_refused(content: bytes, tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "clip", [random_vectors(10, 2)], [URLS[:10]])
    (folder / "img_emb" / "img_emb_0.npy").write_bytes(content)
    with pytest.raises(IncompatibleFileError, match=r"img_emb_0.npy: cannot be imported \(.+\)"):
        take_in(tmp_path / "index", folder, made_by="m")
    assert not (tmp_path / "index").exists()


def with_columns(**columns: object) -> Callable[[Path], Path]:
    return lambda folder: write_columns(folder / "v.parquet", columns)


def two_of_one_name(folder: Path) -> Path:
    columns = [pa.array(["a"]), pa.array(["b"]), pa.array([[1.0]])]
    pq.write_table(pa.table(columns, names=["path", "path", "x"]), folder / "v.parquet")
    return folder / "v.parquet"


def name_that_is_not_utf8(folder: Path) -> Path:
    file = write_columns(folder / "v.parquet", {"path": ["a"], "name": [[1.0]]})
    file.write_bytes(file.read_bytes().replace(b"name", b"n\xffme"))
    return file


def written(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (with_columns(path=["a"]), "of its columns none holds lists"),
        (with_columns(path=["a"], x=[[1.0]], y=[[1.0]]), "of its columns x, y holds"),
        (with_columns(name=["a"], x=[[1.0]]), "no column path, url, image_path of strings"),
        (with_columns(path=[1], x=[[1.0]]), "no column path, url, image_path of strings"),
        (with_columns(path=["a"], x=[[]]), "has no numbers|vectors have 0 numbers|columns none"),
        (with_columns(path=["a"], x=pa.array([None], pa.list_(pa.float32()))), "has no vector"),
        (two_of_one_name, "two of its columns have one name"),
        (written("v.parquet", b"PAR1" + bytes(100) + b"PAR1"), "cannot be read as Parquet"),
        (name_that_is_not_utf8, "cannot be read as Parquet .*codec can't decode"),
        (written("v.parquet", b""), "cannot be read as Parquet"),
        (written("v.csv", b"1,2"), "is no file of vectors; give a .parquet file"),
        (written("img_emb_0.npy", b""), "metadata_0.parquet: cannot be read"),
        (lambda folder: folder, "holds no vectors; give a .parquet file"),
        (lambda folder: folder / "nowhere.parquet", "nowhere.parquet: cannot be read"),
    ],
)
def test_a_file_that_cannot_be_imported_is_refused(
    make: Callable[[Path], Path], message: str, tmp_path: Path
) -> None:
    (tmp_path / "files").mkdir()
    with pytest.raises(AlexNetDeployError, match=message):
        take_in(tmp_path / "index", make(tmp_path / "files"), made_by="m")
    assert not (tmp_path / "index").exists()


def test_a_file_that_is_damaged_inside_keeps_what_came_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alexnet_deploy.index.imported_files._BATCH_BYTES", 4096 * 4)
    columns = {"path": [str(n) for n in range(3000)], "x": list(random_vectors(3000, 64))}
    file = write_columns(tmp_path / "v.parquet", columns)
    data = bytearray(file.read_bytes())
    middle = len(data) * 3 // 4
    data[middle : middle + 4096] = bytes(4096)
    file.write_bytes(data)
    with pytest.raises(IncompatibleFileError, match="cannot be read as Parquet"):
        take_in(tmp_path / "index", file, made_by="m")
    described = describe_index(tmp_path / "index", check=True)
    assert described["problems"] == []
    assert 0 < described["photographs"]["indexed"] < 3000


def test_a_manifest_does_not_pass_vectors_of_another_program_for_a_networks(index: Path) -> None:
    manifest = index / "manifest.json"
    manifest.write_text(manifest.read_text().replace(f"foreign:{MADE_BY}", "0123456789abcdef" * 4))
    with pytest.raises(IncompatibleFileError, match="layer is 'vector', expected that of its"):
        list(search(index, [VECTORS[2]]))


def test_the_ledger_of_a_stranger_holds_no_name_that_none_can_have(index: Path) -> None:
    with closing(sqlite3.connect(index / "ledger.sqlite")) as connection:
        connection.execute("UPDATE photographs SET path = X'6100' WHERE id = 3")
        connection.commit()
    with pytest.raises(IncompatibleFileError, match=r"damaged .*is none that is imported"):
        list(search(index, [VECTORS[2]], k=1))
    assert len(describe_index(index, check=True)["problems"]) == 1


def test_imported_vectors_are_compressed_filtered_and_told_of(shards: Path) -> None:
    directory = shards.with_name("small")
    take_in(directory, shards, made_by=MADE_BY, ann="compressed")
    description = describe_index(directory, check=True)
    assert (description["compressed"]["vectors"], description["problems"]) == (25, [])
    assert description["runs"][0]["runner"] == "imported"
    query = random_vectors(1, DIMENSION, seed=1)[0]
    told: list[str] = []
    (result,) = search(directory, [query], k=30, glob="1*.jpg*", notify=told.append)
    found = [one.imported for one in result.neighbours]
    assert found == [url for url, _ in nearest(query, 25) if url.split("/")[-1].startswith("1")]
    (result,) = search(directory, [query], k=30, since="2001-01-01", notify=told.append)
    assert not result.neighbours  # they have no time
