"""What is said of vectors on disk, and what is refused; and that other programs open them."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet_deploy.errors import AlexNetDeployError, IncompatibleFileError
from alexnet_deploy.inference.embeddings import EmbeddingFiles, EmbedOptions, embed
from alexnet_deploy.inspection import describe, readable
from alexnet_deploy.runtimes.base import RunnerOptions
from tests.support.fake_runner import FakeRunner, save_photograph

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("conv5", "fc7")
FC7 = {"name": "fc7", "shape": [4096], "relu": "after", "pool": "none"}


def embedded(output: Path, **options: Any) -> EmbeddingFiles:
    """Embed one photograph, one that is none, and another one."""
    folder = output.parent / "photos"
    paths = [save_photograph(folder / f"{red}.png", (red, 0, 0)) for red in (10, 15, 20)]
    paths[1].write_bytes(b"")
    kept = EmbedOptions(**options)
    return embed(FakeRunner(RunnerOptions(outputs=kept.layers)), paths, output, kept)


@pytest.mark.parametrize("suffix", [".npy", ".json", ".parquet"])
@pytest.mark.parametrize("layers", [("fc7",), LAYERS])
def test_every_file_says_how_its_vectors_were_made(
    tmp_path: Path, suffix: str, layers: tuple[str, ...]
) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="needs the extra [parquet]")
    output = tmp_path / ("v.parquet" if suffix == ".parquet" else "v.npy")
    written = embedded(output, layers=layers, dtype="float16")
    path = next(file for file in written.files if file.suffix == suffix)
    described = describe(path)
    assert described["provenance"] == written.provenance.fields()
    assert (described["kind"], described["missing"]) == ("vectors", [])
    if suffix == ".npy":
        shape = [3, 256, 13, 13] if layers == LAYERS else [3, 4096]
        assert (described["shape"], described["dtype"]) == (shape, "float16")
    text = readable(described)
    for words in (
        "rows          3, of which 1 failed",
        "fc7, 4,096 float16, after its ReLU",
        "identity      0123456789abcdef",
        "computed in   fp32 by onnxruntime ",
        "command       python",
        "input         RGB 224x224; shorter side to 256 px (bicubic), centre crop",
    ):
        assert words in text


def test_an_array_alone_is_described_with_what_is_missing(tmp_path: Path) -> None:
    embedded(tmp_path / "v.npy")
    (tmp_path / "v.json").unlink()
    (tmp_path / "v.paths.jsonl").unlink()
    described = describe(tmp_path / "v.npy")
    assert (described["shape"], described["provenance"]) == ([3, 4096], None)
    missing = [str(tmp_path / "v.json"), str(tmp_path / "v.paths.jsonl")]
    assert described["missing"] == missing
    assert f"missing       {', '.join(missing)}" in readable(described)


def test_an_array_of_an_earlier_run_is_not_taken_for_the_one_of_the_record(tmp_path: Path) -> None:
    embedded(tmp_path / "v.npy", layers=LAYERS)
    embedded(tmp_path / "v.npy", layers=("fc7",))
    with pytest.raises(IncompatibleFileError, match=r"v\.json is of fc7, and of no array of this"):
        describe(tmp_path / "v.fc7.npy")


def other_array(path: Path) -> None:
    np.save(path, np.zeros((3, 4095), np.float32))


def other_type(path: Path) -> None:
    np.save(path, np.zeros((3, 4096), np.float64))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def pickled(path: Path) -> None:
    np.save(path, np.array([{}], object), allow_pickle=True)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def unclosed(path: Path) -> None:
    """Break the text of a header in a way that Python's tokenizer complains of."""
    path.write_bytes(path.read_bytes().replace(b"}", b"(").replace(b"PAR1", b"PAR2"))


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
@pytest.mark.parametrize("harm", [other_array, other_type, cut, pickled, empty, unclosed])
def test_what_is_not_as_it_was_written_is_refused_in_one_line(
    tmp_path: Path, suffix: str, harm: Callable[[Path], None]
) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="needs the extra [parquet]")
    path = tmp_path / f"v{suffix}"
    embedded(path)
    harm(path)
    if (saved := path.with_suffix(f"{suffix}.npy")).exists():
        saved.replace(path)
    with pytest.raises(IncompatibleFileError) as refused:
        describe(path)
    message = str(refused.value)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1
    assert len(message) < 600


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", 2),
        ("num_rows", -1),
        ("num_failed", 4),
        ("layers", []),
        ("layers", [FC7 | {"shape": [10**9, 10**9, 10**9]}]),
        ("layers", [FC7 | {"relu": "before"}]),
        ("layers", [FC7 | {"name": f"fc{number}"} for number in range(10_000)]),
        ("decode", {"decoder": "x"}),
        ("spec", {}),
        ("left_out", {".heic": "many"}),
        ("left_out", {".heic": -1}),
        ("date", "yesterday"),
        ("command", "rm"),
        ("new", 1),
    ],
)
def test_a_record_with_an_impossible_field_is_refused(
    tmp_path: Path, field: str, value: object
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra [parquet]")
    embedded(tmp_path / "v.npy")
    embedded(tmp_path / "v.parquet")
    record = tmp_path / "v.json"
    changed = json.dumps(json.loads(record.read_text()) | {field: value})
    record.write_text(changed)
    table = parquet.read_table(tmp_path / "v.parquet")
    metadata = {"alexnet_deploy.provenance": changed}
    parquet.write_table(table.replace_schema_metadata(metadata), tmp_path / "v.parquet")
    for name, source in (("v.json", "v.json"), ("v.npy", "v.json"), ("v.parquet", "v.parquet")):
        with pytest.raises(IncompatibleFileError, match=rf"{source}: .*{field}") as refused:
            describe(tmp_path / name)
        assert len(str(refused.value)) < 1000


def test_a_parquet_file_of_others_is_refused(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra [parquet]")
    import pyarrow

    parquet.write_table(pyarrow.table({"x": [1]}), tmp_path / "x.parquet")
    with pytest.raises(AlexNetDeployError, match="does not say how its vectors were made"):
        describe(tmp_path / "x.parquet")


def test_several_layers_open_in_xarray_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("xarray")
    page = (ROOT / "alexnet_deploy" / "README.md").read_text("utf-8")
    (section,) = re.findall(r"## Vectors for analysis\n(.*?)\n## ", page, re.DOTALL)
    (code,) = re.findall(r"```py\n(.*?)```", section, re.DOTALL)
    embedded(tmp_path / "acts.npy", layers=LAYERS)
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), found)
    acts = found["acts"]
    assert dict(acts.sizes) == {
        "photograph": 3,
        "conv5_channel": 256,
        "conv5_row": 13,
        "conv5_column": 13,
        "fc7_unit": 4096,
    }
    assert acts.conv5.sel(photograph=str(tmp_path / "photos" / "20.png")).max() == 20
    assert found["readable"].sizes["photograph"] == 2
    assert acts.attrs["identity"] == "0123456789abcdef"
    assert "xarray" in sys.modules
