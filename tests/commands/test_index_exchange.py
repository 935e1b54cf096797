"""`index --from` and `--export` through the command line."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.command_line import done, refused
from tests.support.index_runner import save_colours
from tests.support.vector_files import MADE_BY, random_vectors, write_shards

pytestmark = pytest.mark.usefixtures("runners")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four photographs in `photos/`, indexed in `alexnet-index/`, seen from the folder above."""
    monkeypatch.chdir(tmp_path)
    save_colours(Path("photos"), 4)
    done("index", "photos", "--layer", "logits")
    return tmp_path / "photos"


def test_an_index_goes_out_and_comes_in_again(photos: Path) -> None:
    told = done("index", "--export", "out")
    assert (told.stdout, told.stderr) == ("", "out: 4 vectors in 1 files\n")
    told = done("index", "--from", "out", "--index", "new")
    assert told.stderr == "4 imported, 0 unchanged, 0 replaced, 0 failed\n"
    again = json.loads(done("index", "--from", "out", "--index", "new", "--json").stdout)
    assert again == {"index": "new", "imported": 0, "unchanged": 4, "replaced": 0, "failed": 0}
    said = refused(5, "index", "--from", "out", "--index", "new", "--precision", "bf16")
    assert "its precision is fp32, requested was bf16" in said
    arguments = ("search", "photos/01.bmp", "-k", "3", "--paths")
    found = done(*arguments, "--index", "new").stdout
    assert found == done(*arguments).stdout
    assert len(found.splitlines()) == 3
    assert done("search", "photos/01.bmp", "--index", "new").stdout.count("  imported  ") == 3


def test_another_programs_vectors_have_their_name_and_no_photographs(photos: Path) -> None:
    urls = [f"https://a.example/{number}.jpg" for number in range(3)]
    write_shards(Path("clip"), [random_vectors(3, 6)], [urls])
    said = refused(2, "index", "--from", "clip", "--index", "new")
    assert "img_emb_0.npy: does not say what made its vectors" in said
    assert "name the model with --made-by, such as clip-ViT-B/32" in said
    done("index", "--from", "clip", "--made-by", MADE_BY, "--index", "new")
    shown = done("info", "new").stdout
    assert "  made by       another program, see its identity; imported\n" in shown
    assert f"  identity      foreign:{MADE_BY}\n" in shown
    said = refused(2, "search", "photos/01.bmp", "--index", "new")
    assert f"its vectors were imported, made by {MADE_BY}" in said
    assert "into another --index" in said
    removed = json.loads(done("index", "--remove", "clip", "--index", "new", "--json").stdout)
    assert removed["removed"] == 3


def test_a_row_that_cannot_be_used_is_told_of_by_its_url(photos: Path) -> None:
    vectors = random_vectors(2, 6)
    vectors[1] = np.nan
    write_shards(Path("clip"), [vectors], [["https://a.example/0.jpg", "https://a.example/1.jpg"]])
    said = refused(3, "index", "--from", "clip", "--made-by", MADE_BY, "--index", "new")
    assert "failed: https://a.example/1.jpg: its vector" in said


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--from", "v.parquet", "photos"), "--from and FOLDER: do not go together"),
        (("--from", "v.parquet", "--prune"), "--from and --prune: do not go together"),
        (("--from", "v.parquet", "--fast"), "--from and --fast: do not go together"),
        (("--from", "v.parquet", "--device", "auto"), "--from and --device: do not go together"),
        (("--export", "out", "--repair"), "--export and --repair: do not go together"),
        (("--export", "out", "--codes", "64"), "--export and --codes: do not go together"),
        (("--export", "out", "--model", "m"), "--export and --model: do not go together"),
        (("--export", "out", "--from", "v"), "--from and --export: do not go together"),
        (("photos", "--made-by", "m"), "--made-by m: is for --from"),
        (("--from", "v.parquet"), "v.parquet: cannot be read (No such file or directory); give a"),
        (("--export", "photos"), "photos: holds 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    photos: Path, arguments: tuple[str, ...], reason: str
) -> None:
    assert reason in refused(2, "index", *arguments)
