"""Embeddings on disk: what is read back is what the runner said, row by row."""

import io
import json
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet_deploy.errors import (
    MissingPackageError,
    NoPhotographsError,
    OutputError,
    TooManyFailuresError,
    UsageError,
)
from alexnet_deploy.inference import embeddings
from alexnet_deploy.inference.embeddings import EmbeddingFiles, embed, files_of
from alexnet_deploy.inference.run import PhotographResult
from alexnet_deploy.model.spec import ModelSpec
from alexnet_deploy.photographs.pixels import EXACT
from alexnet_deploy.runtimes.base import RunnerOptions
from tests.support.fake_runner import SPEC, UNSPOKEN, FakeRunner, save_photograph
from tests.support.waiting import threads_have_ended, wait_until


def engine_for(*layers: str) -> FakeRunner:
    return FakeRunner(RunnerOptions(outputs=layers, batch_size=2, precision="fp16"))


def three_photographs(folder: Path) -> list[Path]:
    """Save red 10, a broken file, and red 20 under a name that is hard to write down."""
    first = save_photograph(folder / "a.png", (10, 0, 0))
    broken = folder / "b.png"
    broken.write_bytes(b"")
    return [first, broken, save_photograph(folder / UNSPOKEN, (20, 0, 0))]


def test_one_layer_is_one_array_and_the_paths_of_its_rows(tmp_path: Path) -> None:
    photographs = three_photographs(tmp_path / "in")
    seen: list[Path] = []
    output = tmp_path / "v.npy"
    written = embed(
        engine_for("fc7"), photographs, output, on_result=lambda result: seen.append(result.source)
    )
    names = tmp_path / "v.paths.jsonl"
    assert written == EmbeddingFiles(
        files=(output, names),
        shapes={"fc7": (4096,)},
        num_rows=2,
        num_failed=1,
        left_out={},
        identity="0123456789abcdef",
        precision="fp16",
        decode=EXACT,
    )
    array = np.load(output, mmap_mode="r")
    assert (array.shape, array.dtype) == ((2, 4096), np.float32)
    assert array[:, 0].tolist() == [10, 20]
    paths = [json.loads(line)["path"] for line in names.read_text("ascii").splitlines()]
    assert paths == [str(photographs[0]), str(photographs[2])]
    assert seen == photographs
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "v.npy", "v.paths.jsonl"]


def test_several_layers_are_one_array_each_and_maps_keep_their_shape(tmp_path: Path) -> None:
    photograph = save_photograph(tmp_path / "a.png", (7, 0, 0))
    layers = ("fc7", "conv5")
    written = embed(engine_for(*layers), [photograph], tmp_path / "v.npy", layers=layers)
    assert [path.name for path in written.files] == ["v.fc7.npy", "v.conv5.npy", "v.paths.jsonl"]
    assert np.load(tmp_path / "v.fc7.npy").shape == (1, 4096)
    maps = np.load(tmp_path / "v.conv5.npy")
    assert maps.shape == (1, 256, 13, 13)
    assert maps.max() == maps.min() == 7


def test_what_was_written_is_told_in_json_and_in_words(tmp_path: Path) -> None:
    written = EmbeddingFiles(
        files=(Path("v.npy"), Path("v.paths.jsonl")),
        shapes={"fc7": (4096,)},
        num_rows=1200,
        num_failed=3,
        left_out={".heic": 2},
        identity="abc",
        precision="int8",
        decode=EXACT,
    )
    assert written.to_json() == (
        '{"files": ["v.npy", "v.paths.jsonl"], "num_rows": 1200, "num_failed": 3, '
        '"left_out": {".heic": 2}, "identity": "abc", "precision": "int8", '
        '"decode": {"decoder": "pillow-13+libheif-1.23", "scale": "exact", "colour": "srgb"}, '
        '"layers": ["fc7"], "shapes": {"fc7": [4096]}}'
    )
    assert written.describe() == (
        "v.npy: fc7 1,200 x 4096 float32\nv.paths.jsonl: the path of each row"
    )


ROWS = st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=40)


@settings(max_examples=25)
@given(ROWS, st.sampled_from(["fc7", "pool5", "probabilities"]), st.sampled_from([1, 3, 10**6]))
def test_any_number_of_rows_reads_back_from_npy_and_parquet(
    values: list[float], layer: str, group_bytes: int
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra [parquet]")
    from alexnet_deploy.inference import parquet_files

    shape = SPEC.layer_shapes()[layer]
    rows = [np.full(shape, value, np.float32) for value in values]
    for row in rows:
        row.flat[-1] = 0.5  # not the same everywhere, so that a mixed-up axis shows

    def fake_run(*_: object, **__: object) -> Iterator[PhotographResult[Path]]:
        for index, row in enumerate(rows):
            yield PhotographResult(source=Path(f"{index}.jpg"), outputs={layer: row}, error=None)

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(embeddings, "run", fake_run)
        patch.setattr(parquet_files, "_ROW_GROUP_BYTES", group_bytes)
        for suffix in (".npy", ".parquet"):
            embed(engine_for(layer), [], Path(folder) / f"v{suffix}", layers=(layer,))
        array = np.array(np.load(Path(folder) / "v.npy", mmap_mode="r"))
        table = parquet.read_table(Path(folder) / "v.parquet")
    expected = np.array(rows, np.float32).reshape(-1, *shape)
    np.testing.assert_array_equal(array, expected)
    column = table[layer].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    np.testing.assert_array_equal(column.reshape(-1, *shape), expected)
    assert table["id"].to_pylist() == list(range(len(rows)))
    assert table["path"].to_pylist() == [f"{index}.jpg" for index in range(len(rows))]


def test_parquet_holds_path_id_vectors_and_the_model(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra [parquet]")
    import pyarrow

    photographs = three_photographs(tmp_path / "in")
    layers = ("fc7", "pool5")
    output = tmp_path / "v.parquet"
    written = embed(engine_for(*layers), photographs, output, layers=layers)
    assert written.files == (output,)
    table = parquet.read_table(output)
    assert table.column_names == ["id", "path", "path_base64", "fc7", "pool5"]
    assert table.schema.field("fc7").type == pyarrow.list_(pyarrow.float32(), 4096)
    assert table.schema.field("pool5").metadata == {b"alexnet_deploy.shape": b"[256, 6, 6]"}
    assert table["path"][0].as_py() == str(photographs[0])
    assert table["path"][1].as_py().endswith("caf\\xe9\n.png")
    assert table["path_base64"][0].as_py() is None
    assert table["path_base64"][1].as_py()
    assert [vector[0] for vector in table["fc7"].to_pylist()] == [10, 20]
    spec = table.schema.metadata[b"alexnet_deploy.spec"].decode()
    assert ModelSpec.from_json(spec) == SPEC
    assert table.schema.metadata[b"alexnet_deploy.identity"] == b"0123456789abcdef"
    assert table.schema.metadata[b"alexnet_deploy.precision"] == b"fp16"


def test_parquet_without_pyarrow_names_the_extra_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    monkeypatch.delitem(
        __import__("sys").modules, "alexnet_deploy.inference.parquet_files", raising=False
    )
    with pytest.raises(MissingPackageError, match=r"alexnet-deploy\[parquet\]"):
        embed(engine_for("fc7"), [], tmp_path / "v.parquet")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "a full disk elsewhere")])
def test_what_stops_a_run_leaves_the_old_files_and_is_not_blamed_on_them(
    tmp_path: Path, suffix: str, error: BaseException
) -> None:
    photographs = [save_photograph(tmp_path / "in" / f"{n}.png", (n, 0, 0)) for n in range(5)]
    output = tmp_path / f"v{suffix}"
    output.write_text("old")

    def stop(_: PhotographResult[Path]) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        embed(engine_for("fc7"), photographs, output, on_result=stop)
    assert caught.value is error
    wait_until(threads_have_ended)  # although the error still holds the frame that has the results
    assert output.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", output.name]


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_no_photographs_and_a_missing_folder_leave_nothing(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(NoPhotographsError):
        embed(engine_for("fc7"), [], tmp_path / f"v{suffix}")
    with pytest.raises(OutputError, match="no-such"):
        embed(engine_for("fc7"), [], tmp_path / "no-such" / f"v{suffix}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_a_run_without_a_row_keeps_the_old_files(tmp_path: Path, suffix: str) -> None:
    broken = tmp_path / "b.png"
    broken.write_bytes(b"")
    output = tmp_path / f"v{suffix}"
    output.write_text("old")
    with pytest.raises(TooManyFailuresError, match="not written, because none of 2 "):
        embed(engine_for("fc7"), [broken, broken], output)
    assert output.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.png", output.name]


def test_a_pipe_is_refused_for_npy_and_takes_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra [parquet]")
    photographs = three_photographs(tmp_path / "in")
    read: list[bytes] = []
    for suffix in (".npy", ".parquet"):
        pipe = tmp_path / f"v{suffix}"
        os.mkfifo(pipe)
        reader = threading.Thread(target=lambda pipe=pipe: read.append(pipe.read_bytes()))
        reader.start()
        if suffix == ".npy":
            with pytest.raises(UsageError, match=r"v\.npy: is a pipe .* regular file"):
                embed(engine_for("fc7"), photographs, pipe)
        else:
            embed(engine_for("fc7"), photographs, pipe)
        reader.join(10)
    assert read[0] == b""
    assert parquet.read_table(io.BytesIO(read[1])).num_rows == 2


@pytest.mark.parametrize("name", ["v.csv", "v", "v.npz"])
def test_another_suffix_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"\.npy or \.parquet"):
        files_of(Path(name), ("fc7",))


def test_a_layer_that_the_network_or_the_engine_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="choose from: conv1"):
        embed(engine_for("fc7"), [], tmp_path / "v.npy", layers=("fc9",))
    with pytest.raises(UsageError, match="open it with 'fc6'"):
        embed(engine_for("fc7"), [], tmp_path / "v.npy", layers=("fc6",))
