"""Layers by any name on the command line; what is written has ours."""

import json
from pathlib import Path

import numpy as np
import pytest

from alexnet_deploy.export.opening import open_model
from alexnet_deploy.index.manifest import read_manifest
from alexnet_deploy.model.checkpoints import load_checkpoint
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.model.reference import Reference, crop
from alexnet_deploy.photographs.decoding import load_photograph
from alexnet_deploy.photographs.samples import varied_samples
from tests.support.command_line import done, refused
from tests.support.networks import relative_error

PHOTOGRAPHS = varied_samples()[:3]


def test_embed_writes_every_layer_in_forward_order(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(bundled_checkpoint())
    result = done("embed", *PHOTOGRAPHS, "--layer", "all", "-o", tmp_path / "v.npy", "--json")
    written = json.loads(result.stdout)
    shapes = checkpoint.spec.layer_shapes()
    layers = [(layer["name"], tuple(layer["shape"])) for layer in written["layers"]]
    assert layers == list(shapes.items())
    crops = [crop(load_photograph(path), checkpoint.spec) for path in PHOTOGRAPHS]
    for name, expected in Reference(checkpoint).run(np.stack(crops)).items():
        actual = np.load(tmp_path / f"v.{name}.npy")
        assert relative_error(actual, expected) < 1e-5, name


def test_files_and_results_have_our_names(tmp_path: Path) -> None:
    layers = ("--layer", "features.0", "--layer", "prob")
    done("embed", PHOTOGRAPHS[0], *layers, "-o", tmp_path / "v.npy")
    written = {path.name for path in tmp_path.iterdir()}
    assert {"v.conv1_pre.npy", "v.probabilities.npy"} < written
    done("export", *layers, "--no-verify", "-o", tmp_path / "m.onnx")
    described = json.loads(done("info", tmp_path / "m.onnx", "--json").stdout)
    assert described["outputs"] == ["conv1_pre", "probabilities"]
    with open_model(tmp_path / "m.onnx") as model:
        embedded = model.embed(PHOTOGRAPHS[0], layer="features.0")
        assert embedded.layer == "conv1_pre"
        assert (embedded.vectors[0] == np.load(tmp_path / "v.conv1_pre.npy")[0]).all()


def test_an_index_of_a_layer_before_its_relu_is_searched(tmp_path: Path) -> None:
    folder, index = PHOTOGRAPHS[0].parent.parent, ("--index", tmp_path / "index")
    done("index", folder, *index, "--layer", "classifier.1")
    assert read_manifest(tmp_path / "index").space.layer == "fc6_pre"
    done("index", folder, *index, "--layer", "fc6_pre")
    assert "its layer is fc6_pre, requested was fc6" in refused(
        5, "index", folder, *index, "--layer", "relu6"
    )
    assert "expected one layer" in refused(2, "index", folder, *index, "--layer", "all")
    found = done("search", PHOTOGRAPHS[0], *index, "-k", "5", "--json").stdout
    neighbours = json.loads(found)["results"]
    paths = sorted(path for path in folder.rglob("*.jpg") if path != PHOTOGRAPHS[0])
    with open_model() as model:
        rows = model.embed([PHOTOGRAPHS[0], *paths], layer="fc6_pre").vectors
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert (rows < 0).any()
    nearest = np.argsort(-(rows[1:] @ rows[0]))[:5]
    assert [one["path"] for one in neighbours] == [str(paths[row]) for row in nearest]


@pytest.mark.parametrize("command", ["embed", "index", "export"])
def test_the_help_says_what_a_layer_is(command: str) -> None:
    text = " ".join(done(command, "--help").stdout.split())
    assert "--layer LAYER" in text
    assert ("classifier.4" in text) == (command == "embed")
