"""tools/index_forms.py on made vectors, of which is known what short forms keep."""

import json
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from alexnet_deploy.graph.coder_file import write_coder
from tests.support.coders import random_coder, space_of
from training.experiments.vectors import Vectors

SPACE = space_of("logits")
NUM_CLASSES, NUM_LATENT = 6, 20


def vectors(seed: int, count: int) -> Vectors:
    """Return photographs around a point for each class, all in a space of few dimensions."""
    shared, rng = np.random.default_rng(0), np.random.default_rng(seed)
    axes = np.linalg.qr(shared.standard_normal((SPACE.dimension, NUM_LATENT)))[0].T
    centres = shared.standard_normal((NUM_CLASSES, NUM_LATENT))
    classes = rng.integers(0, NUM_CLASSES, count)
    latent = centres[classes] + 0.8 * rng.standard_normal((count, NUM_LATENT))
    return Vectors(
        space=SPACE, rows=(latent @ axes).astype(np.float16), classes=classes.astype(str)
    )


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    import index_forms  # which loads FAISS

    folder = tmp_path_factory.mktemp("forms")
    files = {folder / "indexed": vectors(1, 600), folder / "held_out": vectors(2, 250)}
    write_coder(random_coder(SPACE), folder / "head.onnx")
    json_file = folder / "forms.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_forms, "read_vectors", lambda paths: files[paths[0]])
        patch.setattr(index_forms, "NUM_ROWS", 1200)
        patch.setattr(index_forms, "NUM_TIMES", 1)
        patch.setattr(index_forms, "BITS", (64, 128))
        # To train a product quantizer takes a minute, of however few vectors.
        of_faiss = index_forms.of_faiss
        patch.setattr(
            index_forms,
            "of_faiss",
            lambda name, size, kind, *given: of_faiss(
                name, size, "SQ4" if kind == "PQ32x8" else kind, *given
            ),
        )
        options = ["--coder", str(folder / "head.onnx"), "--json", str(json_file)]
        patch.setattr(sys, "argv", ["index_forms", *map(str, files), *options])
        index_forms.main()
    written: dict[str, Any] = json.loads(json_file.read_text("utf-8"))
    return written


def test_every_form_is_measured(result: Mapping[str, Any]) -> None:
    assert (result["indexed"], result["queries"], result["layer"]) == (600, 250, "logits")
    sizes = {form["form"]: form["bytes"] for form in result["forms"]}
    assert len(sizes) == 10
    assert (sizes["ITQ 64 bits"], sizes["trained coder, 64 bits"]) == (8, 8)
    for form in result["forms"]:
        recalls = [form[f"recall_{first}"] for first in (10, 50, 100, 200)]
        assert recalls == sorted(recalls)
        assert form["ms"] > 0


def test_axes_that_keep_everything_rank_as_the_vectors_do(result: Mapping[str, Any]) -> None:
    """And codes of few bits do not; those of a coder that learnt nothing least of all."""
    forms = {form["form"]: form for form in result["forms"]}
    for name in ("PCA 64, float32", "PCA 63 and the rest, 8 bits"):
        assert forms[name]["recall_50"] > 0.999
        assert forms[name]["mAP"] == pytest.approx(result["exact_mAP"], abs=0.02)
    untrained, fitted = forms["trained coder, 64 bits"], forms["ITQ 64 bits"]
    assert untrained["recall_10"] < fitted["recall_10"] < forms["PCA 64, float32"]["recall_10"]


def test_the_mean_average_precision_is_that_of_the_order_without_the_query() -> None:
    """By hand: of three queries one has its like first, one second, and one has none."""
    from index_forms import mean_average_precision

    order = np.array([[0, 1, 2], [1, 2, 0], [2, 0, 1]])
    assert mean_average_precision(order, np.array([5, 5, 7], np.int32)) == 0.75
