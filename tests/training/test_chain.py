"""From photographs to search, with nothing but the commands, at the network's real size."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from alexnet_deploy.photographs.samples import varied_samples
from tests.support.command_line import done

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ("first", "second")
TRAINING = ("--recipe", "modern", "--epochs", "1", "--batch-size", "4", "--hold-out", "0")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Two classes of four photographs in `photographs`; what is made is removed at once."""
    for number, path in enumerate(varied_samples()[:8]):
        target = tmp_path / "photographs" / CLASSES[number % 2] / f"{number}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    yield tmp_path
    shutil.rmtree(tmp_path)  # a checkpoint has 730 MB


def run(*arguments: str | Path) -> list[Any]:
    """Run a command of the package with --json; return the objects that it printed."""
    return [json.loads(line) for line in done(*arguments, "--json").stdout.splitlines()]


def test_photographs_become_a_network_that_finds_them_again(folder: Path) -> None:
    photographs, model, index = (folder / name for name in ("photographs", "x.onnx", "index"))
    command = [sys.executable, "-m", "training", "train", str(photographs)]
    finished = subprocess.run(  # in a process of its own, which keeps the memory that it frees
        [*command, "-o", str(folder / "run"), *TRAINING, "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    trained = json.loads(finished.stdout)
    assert trained["steps"] == 2
    checkpoint = folder / "run" / "step-00000002.pt"
    assert trained["checkpoint"] == {"path": str(checkpoint)}

    one = photographs / "first" / "2.jpg"
    (exported,) = run("export", checkpoint, "-o", model, "--verify-on", one)
    assert exported["file"] == str(model)

    classified = run("classify", photographs, "--model", model, "--top", "2")
    assert len(classified) == 8
    for photograph in classified:
        predictions = photograph["predictions"]
        assert {prediction["label"] for prediction in predictions} == set(CLASSES)
        assert sum(each["probability"] for each in predictions) == pytest.approx(1, abs=1e-4)

    run("index", photographs, "--index", index, "--model", model)
    again = folder / "again.jpg"  # other bytes: a photograph is not a neighbour of itself
    with Image.open(one) as image:
        image.save(again, quality=95)
    (found,) = run("search", again, "--index", index, "-k", "3")
    first, *others = found["results"]
    assert first["path"] == str(one)
    assert first["cosine_similarity"] == pytest.approx(1, abs=1e-3)
    assert len(others) == 2
