"""The package as a Python program sees it: names, what importing costs, and the whole way round."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import call

import numpy as np
import pytest
from PIL import Image

import alexnet_deploy as ad
from alexnet_deploy.errors import ArgumentError
from alexnet_deploy.photographs.samples import varied_samples
from tests.test_architecture import PACKAGE

SOME = varied_samples()[:6]


def test_every_public_name_is_there_and_documented() -> None:
    for name in ad.__all__:
        assert getattr(ad, name) is not None
        assert name in dir(ad)
        assert name == "__version__" or getattr(ad, name).__doc__
    with pytest.raises(AttributeError, match="has no attribute 'open_modle'"):
        _ = ad.open_modle  # type: ignore[attr-defined]


def test_a_type_checker_sees_the_names_that_a_program_gets() -> None:
    """Those of `__all__` are imported once more, for type checkers alone."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        (alias.name, node.module)
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name == alias.asname
    }
    got = {(name, getattr(ad, name).__module__) for name in ad.__all__ if name != "__version__"}
    assert seen == got


@pytest.mark.parametrize(
    ("function", "given", "argument"),
    [
        ("open_model", call(5), "model"),
        ("open_model", call(b"m.onnx"), "model"),
        ("open_model", call(threads="x"), "threads"),
        ("open_model", call(batch_size=1.5), "batch_size"),
        ("open_model", call(precision=["fp32"]), "precision"),
        ("open_index", call(None), "directory"),
        ("open_index", call("index", model=5), "model"),
        ("open_index", call("index", threads="x"), "threads"),
        ("open_index", call("index", device="gpu"), "device"),
        ("update_index", call("index", 5), "folders"),
        ("update_index", call("index", ["photos", None]), "folders[1]"),
        ("update_index", call("index", batch_size=1.5), "batch_size"),
        ("update_index", call("index", exclude=5), "exclude"),
        ("update_index", call("index", remove=["photos", 5]), "remove[1]"),
        ("import_vectors", call("index", 5), "files"),
        ("import_vectors", call("index", "v.parquet", made_by=""), "made_by"),
        ("export_vectors", call("index", 5), "folder"),
        ("find_photographs", call(None), "paths"),
        ("find_photographs", call([np.zeros((99, 99))]), "paths[0]"),
    ],
)
def test_an_argument_of_a_wrong_type_is_named_at_the_call(
    function: str, given: Any, argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentError, match=r"is .+, expected ") as caught:
        getattr(ad, function)(*given.args, **given.kwargs)
    assert caught.value.argument == argument
    assert len(str(caught.value)) < 300
    assert list(tmp_path.iterdir()) == []


def test_importing_the_package_costs_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules); import alexnet_deploy; dir(alexnet_deploy); "
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before} "
        "- set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["alexnet_deploy"]


def test_the_precision_of_an_index_is_asked_for_as_that_of_a_model(tmp_path: Path) -> None:
    ad.update_index(tmp_path / "index", SOME[0].parent, precision="auto")
    with ad.open_index(tmp_path / "index", precision="auto") as index:
        assert index.space.precision == "fp32"
    with pytest.raises(ArgumentError, match="precision is None, expected one of auto, fp32"):
        ad.open_index(tmp_path / "index", precision=None)  # type: ignore[arg-type]


def test_from_photographs_to_neighbours_and_back(tmp_path: Path) -> None:
    """What a first program does, typed as a user's, without a warning."""
    with ad.open_model() as model:
        results = list(model.classify([SOME[0], Image.open(SOME[1]), SOME[2].read_bytes()], top=3))
        embeddings = model.embed(SOME)
    assert [len(result.predictions) for result in results] == [3, 3, 3]
    assert [result.path for result in results] == [SOME[0], None, None]
    assert results[0].predictions[0].label == SOME[0].parent.name
    assert np.asarray(embeddings).shape == (6, 4096)

    directory = tmp_path / "index"
    done: list[int] = []
    for path in SOME[:5]:
        (tmp_path / "photos" / path.parent.name).mkdir(parents=True)
        (tmp_path / "photos" / path.parent.name / path.name).write_bytes(path.read_bytes())
    report = ad.update_index(directory, tmp_path / "photos", progress=done.append)
    assert (report.num_embedded, done) == (5, [1, 2, 3, 4, 5])
    with ad.open_index(directory) as index:
        queries = [SOME[0], Image.open(SOME[1]), embeddings.vectors[2], np.zeros((9, 9), np.uint8)]
        found = list(index.search(queries, k=2))
        (turned,) = index.search(Image.open(SOME[0]).rotate(90, expand=True), rotations=True)
    assert (turned.neighbours[0].path.name, turned.neighbours[0].rotation) == (SOME[0].name, 90)
    exported = ad.export_vectors(directory, tmp_path / "out", progress=done.append)
    assert (exported.num_exported, done[-1]) == (5, 5)
    taken = ad.import_vectors(tmp_path / "other", exported.files, progress=done.append)
    assert (taken.num_imported, done[-1]) == (5, 5)
    with ad.open_index(tmp_path / "other") as index:
        (again,) = index.search(SOME[0], k=2)
    assert [one.path for one in again.neighbours] == [one.path for one in found[0].neighbours]
    out = ad.update_index(directory, tmp_path / "photos", exclude=[SOME[0].name], prune=True)
    assert (out.num_removed, out.num_unchanged) == (1, 4)
    assert ad.update_index(directory, remove=tmp_path / "photos").num_removed == 4
    nearest = [result.neighbours[0].path.name for result in found[:3]]
    assert nearest == [path.name for path in SOME[:3]]
    assert all(result.neighbours[0].cosine_similarity > 0.9999 for result in found[:3])
    assert len(found[3].neighbours) == 2
