"""Embeddings on disk: what is read back is what the runner said, row by row."""

import dataclasses
import io
import json
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from alexnet_deploy.errors import (
    IncompatibleFileError,
    MissingPackageError,
    NoPhotographsError,
    OutputError,
    TooManyFailuresError,
    UsageError,
)
from alexnet_deploy.inference import embeddings, partial_rows
from alexnet_deploy.inference.embeddings import (
    EmbeddingFiles,
    EmbedOptions,
    Failure,
    embed,
    files_of,
)
from alexnet_deploy.inference.provenance import Provenance, provenance_of
from alexnet_deploy.inference.run import PhotographResult, RunSummary
from alexnet_deploy.runtimes.base import RunnerOptions
from tests.support.fake_runner import SPEC, UNSPOKEN, FakeRunner, save_photograph
from tests.support.waiting import threads_have_ended, wait_until

EMPTY = "is empty (0 bytes); copy it again from its source"


def engine_for(*layers: str) -> FakeRunner:
    return FakeRunner(RunnerOptions(outputs=layers, batch_size=2, precision="fp16"))


def three_photographs(folder: Path) -> list[Path]:
    """Save red 10, a broken file, and red 20 under a name that is hard to write down."""
    first = save_photograph(folder / "a.png", (10, 0, 0))
    broken = folder / "b.png"
    broken.write_bytes(b"")
    return [first, broken, save_photograph(folder / UNSPOKEN, (20, 0, 0))]


def test_one_layer_is_one_array_with_its_record_and_the_paths_of_its_rows(tmp_path: Path) -> None:
    photographs = three_photographs(tmp_path / "in")
    seen: list[Path] = []
    output = tmp_path / "v.npy"
    options = EmbedOptions(command=("alexnet-deploy", "embed"))
    runner, summary = engine_for("fc7"), RunSummary()
    summary.left_out("in/x.heic")
    written = embed(
        runner,
        photographs,
        output,
        options,
        summary=summary,
        on_result=lambda result: seen.append(result.source),
    )
    names, record = tmp_path / "v.paths.jsonl", tmp_path / "v.json"
    expected = dataclasses.replace(
        provenance_of(runner, ("fc7",), command=options.command),
        date=written.provenance.date,
        num_rows=3,
        num_failed=1,
        left_out={".heic": 1},
    )
    failure = Failure(row=1, path=photographs[1], error=EMPTY)
    assert written == EmbeddingFiles(
        files=(output, record, names), provenance=expected, failures=(failure,)
    )
    assert Provenance.from_json(record.read_bytes(), "v.json") == expected
    assert (expected.precision, expected.layers[0].relu) == ("fp16", "after")
    array = np.load(output, mmap_mode="r")
    assert (array.shape, array.dtype) == ((3, 4096), np.float32)
    np.testing.assert_array_equal(array[:, 0], [10, np.nan, 20])
    lines = [json.loads(line) for line in names.read_text("ascii").splitlines()]
    assert [line["path"] for line in lines] == list(map(str, photographs))
    assert [line.get("error") for line in lines] == [None, failure.error, None]
    assert seen == photographs
    assert set(os.listdir(tmp_path)) == {"in", "v.npy", "v.json", "v.paths.jsonl"}


def test_several_layers_are_one_array_each_and_maps_keep_their_shape(tmp_path: Path) -> None:
    photograph = save_photograph(tmp_path / "a.png", (7, 0, 0))
    layers = ("fc7", "conv5")
    written = embed(
        engine_for(*layers), [photograph], tmp_path / "v.npy", EmbedOptions(layers=layers)
    )
    assert [path.name for path in written.files] == [
        "v.fc7.npy",
        "v.conv5.npy",
        "v.json",
        "v.paths.jsonl",
    ]
    assert np.load(tmp_path / "v.fc7.npy").shape == (1, 4096)
    maps = np.load(tmp_path / "v.conv5.npy")
    assert maps.shape == (1, 256, 13, 13)
    assert maps.max() == maps.min() == 7


def test_what_was_written_is_told_in_json_and_in_words(tmp_path: Path) -> None:
    runner = engine_for("conv5", "fc7")
    options = EmbedOptions(layers=("conv5", "fc7"), pool="max", dtype="float16")
    written = embed(runner, three_photographs(tmp_path / "in"), tmp_path / "v.npy", options)
    told = json.loads(written.to_json())
    assert told.pop("files") == [str(file) for file in written.files]
    ((row, path, error),) = [tuple(failure.values()) for failure in told.pop("failures")]
    assert (row, path, error) == (1, str(tmp_path / "in" / "b.png"), EMPTY)
    assert told == json.loads((tmp_path / "v.json").read_bytes())
    assert [line.rpartition(": ")[2] for line in written.describe().splitlines()] == [
        "conv5 3 x 256 float16",
        "fc7 3 x 4096 float16",
        "how they were made",
        "the path of each row",
    ]


def test_two_precisions_leave_two_records(tmp_path: Path) -> None:
    photograph = save_photograph(tmp_path / "a.png", (7, 0, 0))
    records = []
    for precision in ("fp32", "int8"):
        runner = FakeRunner(RunnerOptions(outputs=("fc7",), precision=precision))
        embed(runner, [photograph], tmp_path / "v.npy")
        records.append(json.loads((tmp_path / "v.json").read_bytes()))
    assert [record["precision"] for record in records] == ["fp32", "int8"]


def test_maps_are_pooled_and_vectors_stay(tmp_path: Path) -> None:
    photograph = save_photograph(tmp_path / "a.png", (7, 0, 0))
    layers = ("conv5", "fc7")
    embed(
        engine_for(*layers),
        [photograph],
        tmp_path / "v.npy",
        EmbedOptions(layers=layers, pool="mean"),
    )
    pooled = np.load(tmp_path / "v.conv5.npy")
    assert (pooled.shape, pooled.max(), pooled.min()) == ((1, 256), 7, 7)
    assert np.load(tmp_path / "v.fc7.npy").shape == (1, 4096)
    with pytest.raises(UsageError, match=r'pool="mean" is for maps, .* fc7 has none; leave it out'):
        embed(engine_for("fc7"), [photograph], tmp_path / "w.npy", EmbedOptions(pool="mean"))


class Overflowing(FakeRunner):
    """Every number is a thousand times the red."""

    def run(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        return {name: array * 1000 for name, array in super().run(images).items()}


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_what_float16_does_not_hold_is_a_failure(tmp_path: Path, suffix: str) -> None:
    photographs = [save_photograph(tmp_path / f"{red}.png", (red, 0, 0)) for red in (65, 66)]
    summary = RunSummary()
    written = embed(
        Overflowing(RunnerOptions(outputs=("fc7",))),
        photographs,
        tmp_path / f"v{suffix}",
        EmbedOptions(dtype="float16"),
        summary=summary,
    )
    assert [(each.row, each.path) for each in written.failures] == [(1, photographs[1])]
    assert written.failures[0].error == (
        'its fc7 activations reach 6.6e+04, float16 holds up to 65504; take dtype="float32"'
    )
    assert (summary.num_done, summary.num_failed) == (1, 1)
    if suffix == ".npy":
        array = np.load(tmp_path / "v.npy")
        assert array.dtype == np.float16
        np.testing.assert_array_equal(array[:, 0], np.array([65000, np.nan], np.float16))


def test_a_file_that_is_no_record_is_not_replaced(tmp_path: Path) -> None:
    photograph = save_photograph(tmp_path / "a.png", (7, 0, 0))
    (tmp_path / "v.json").write_text('{"tool": "mine"}')
    with pytest.raises(IncompatibleFileError, match=r"v\.json: is there, and is no record"):
        embed(engine_for("fc7"), [photograph], tmp_path / "v.npy")
    assert sorted(os.listdir(tmp_path)) == ["a.png", "v.json"]


ROWS = st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=40)


@settings(max_examples=25)
@given(ROWS, st.sampled_from(["fc7", "pool5", "probabilities"]), st.sampled_from([1, 3, 10**6]))
def test_any_number_of_rows_reads_back_from_npy_and_parquet(
    values: list[float], layer: str, group_bytes: int
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra [parquet]")
    shape = SPEC.layer_shapes()[layer]
    rows = [np.full(shape, value, np.float32) for value in values]
    for row in rows:
        row.flat[-1] = 0.5  # not the same everywhere, so that a mixed-up axis shows

    def fake_run(
        _: object, sources: Iterator[Path], **__: object
    ) -> Iterator[PhotographResult[Path]]:
        for source, row in zip(sources, rows, strict=True):
            yield PhotographResult(source=source, outputs={layer: row}, error=None)

    paths = [Path(f"{index}.jpg") for index in range(len(rows))]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(embeddings, "run", fake_run)
        patch.setattr(partial_rows, "GROUP_BYTES", group_bytes)
        for suffix in (".npy", ".parquet"):
            embed(
                engine_for(layer), paths, Path(folder) / f"v{suffix}", EmbedOptions(layers=(layer,))
            )
        array = np.array(np.load(Path(folder) / "v.npy", mmap_mode="r"))
        table = parquet.read_table(Path(folder) / "v.parquet")
    expected = np.array(rows, np.float32).reshape(-1, *shape)
    np.testing.assert_array_equal(array, expected)
    column = table[layer].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    np.testing.assert_array_equal(column.reshape(-1, *shape), expected)
    assert table["id"].to_pylist() == list(range(len(rows)))
    assert table["path"].to_pylist() == list(map(str, paths))


def test_parquet_holds_path_id_vectors_and_the_model(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra [parquet]")
    import pyarrow

    photographs = three_photographs(tmp_path / "in")
    layers = ("fc7", "pool5")
    output = tmp_path / "v.parquet"
    written = embed(engine_for(*layers), photographs, output, EmbedOptions(layers=layers))
    assert written.files == (output,)
    table = parquet.read_table(output)
    assert table.column_names == ["id", "path", "path_base64", "error", "fc7", "pool5"]
    assert table.schema.field("fc7").type == pyarrow.list_(pyarrow.float32())
    assert table.schema.field("pool5").metadata == {b"alexnet_deploy.shape": b"[256, 6, 6]"}
    assert table["path"].to_pylist()[:2] == list(map(str, photographs[:2]))
    assert table["path"][2].as_py().endswith("caf\\xe9\n.png")
    assert [encoded is None for encoded in table["path_base64"].to_pylist()] == [True, True, False]
    assert table["error"].to_pylist() == [None, EMPTY, None]
    for layer in layers:
        vectors = table[layer].to_pylist()
        size = int(np.prod(written.provenance.spec.layer_shapes()[layer]))
        assert [vector and (vector[0], len(vector)) for vector in vectors] == [
            (10, size),
            None,
            (20, size),
        ]
    record = table.schema.metadata[b"alexnet_deploy.provenance"].decode()
    assert Provenance.from_json(record, "v.parquet") == written.provenance


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
    said: list[str] = []

    def stop(_: PhotographResult[Path]) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        embed(engine_for("fc7"), photographs, output, on_result=stop, notify=said.append)
    assert caught.value is error
    wait_until(threads_have_ended)  # although the error still holds the frame that has the results
    assert output.read_text() == "old"
    left = f".{output.name}.partial"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([left, "in", output.name])
    assert said == [
        f"{output}: not finished; run the same to continue it, or remove {tmp_path / left}"
    ]


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_no_photographs_and_a_missing_folder_leave_nothing(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(NoPhotographsError):
        embed(engine_for("fc7"), [], tmp_path / f"v{suffix}")
    with pytest.raises(OutputError, match="no-such"):
        embed(engine_for("fc7"), [], tmp_path / "no-such" / f"v{suffix}")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="what should be its folder is a file"):
        embed(engine_for("fc7"), [], tmp_path / "file" / f"v{suffix}")
    (tmp_path / f"v{suffix}").mkdir()
    with pytest.raises(OutputError, match="name a file in it"):
        embed(engine_for("fc7"), [], tmp_path / f"v{suffix}")
    assert sorted(os.listdir(tmp_path)) == ["file", f"v{suffix}"]


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


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_a_pipe_gets_the_whole_file(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow.parquet", reason="needs the extra [parquet]")
    photographs = three_photographs(tmp_path / "in")
    pipe = tmp_path / f"v{suffix}"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    embed(engine_for("fc7"), photographs, pipe)
    reader.join(10)
    if suffix == ".npy":
        assert np.load(io.BytesIO(read[0]))[:, 0].tolist()[::2] == [10, 20]
    else:
        assert read[0].startswith(b"PAR1")
        assert read[0].endswith(b"PAR1")


@pytest.mark.parametrize("name", ["v.csv", "v", "v.npz"])
def test_another_suffix_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"\.npy or \.parquet"):
        files_of(Path(name), ("fc7",))


def test_a_layer_that_the_network_or_the_engine_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="choose from: conv1"):
        embed(engine_for("fc7"), [], tmp_path / "v.npy", EmbedOptions(layers=("fc9",)))
    with pytest.raises(UsageError, match="open it with 'fc6'"):
        embed(engine_for("fc7"), [], tmp_path / "v.npy", EmbedOptions(layers=("fc6",)))
