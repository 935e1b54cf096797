"""A network without fc8: everything but classes."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import alexnet_deploy as ad
from alexnet_deploy.choices import FILE_PRECISIONS, FilePrecision
from alexnet_deploy.errors import UsageError
from alexnet_deploy.export.onnx import export_onnx
from alexnet_deploy.graph.reading import read_model
from alexnet_deploy.model.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.photographs.samples import varied_samples


@pytest.fixture(scope="module")
def headless() -> Checkpoint:
    """Return the bundled network up to fc7."""
    whole = load_checkpoint(bundled_checkpoint())
    arrays = {name: array for name, array in whole.arrays.items() if "fc8" not in name}
    return Checkpoint(spec=dataclasses.replace(whole.spec, num_classes=0, labels=()), arrays=arrays)


def test_its_vectors_are_those_of_the_network_with_a_head(
    headless: Checkpoint, tmp_path: Path
) -> None:
    save_checkpoint(headless, tmp_path / "body.safetensors")
    photographs = varied_samples()[:5]
    with ad.open_model(tmp_path / "body.safetensors") as body, ad.open_model() as whole:
        np.testing.assert_array_equal(
            body.embed(photographs).vectors, whole.embed(photographs).vectors
        )
        assert body.identity != whole.identity
        with pytest.raises(UsageError, match="has no head, so it has no probabilities"):
            next(body.classify(photographs))


@pytest.mark.parametrize("precision", FILE_PRECISIONS)
def test_it_is_exported_verified_and_read_in_every_precision(
    headless: Checkpoint, precision: FilePrecision, tmp_path: Path
) -> None:
    path = tmp_path / "body.onnx"
    export_onnx(headless, path, precision=precision, photographs=varied_samples()[:3])
    file = read_model(path)
    assert file.outputs() == ("fc7",)
    assert file.report is not None
    assert file.report["passed"]


def test_an_index_of_it_is_searched(headless: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(headless, tmp_path / "body.safetensors")
    folder = varied_samples()[0].parent
    report = ad.update_index(tmp_path / "index", folder, model=tmp_path / "body.safetensors")
    assert report.num_embedded > 0
    with ad.open_index(tmp_path / "index") as index:
        (found,) = index.search([varied_samples()[0]], k=1)
    assert len(found.neighbours) == 1
