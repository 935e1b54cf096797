"""The network that a run begins with, and how fast its layers learn."""

import dataclasses
import signal
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from alexnet_deploy.errors import IncompatibleFileError, UsageError
from alexnet_deploy.model.checkpoints import Checkpoint, load_checkpoint
from alexnet_deploy.model.default import bundled_checkpoint
from tests.support.training_sets import (
    COLOURS,
    HIDDEN,
    SMALL_MODERN,
    SMALL_PAPER,
    VALIDATION_BATCHES,
    Recorder,
    options,
    same_but_for_times,
    save_classes,
    signalling,
)
from training.beginning import from_checkpoint, new_network
from training.colour import ColourStatistics
from training.options import TrainOptions
from training.recipes import MODERN, PAPER
from training.train import train
from training.weights import AFTER_DROPOUT

OTHERS = {"moss": (60, 140, 60), "sand": (220, 190, 130)}
F32 = np.dtype(np.float32)
COLOUR = ColourStatistics(
    mean_image=np.full((256, 256, 3), (100, 110, 120), np.float32),
    covariance=np.diag([9.0, 1.0, 4.0]),
    num_photographs=10,
)


@pytest.fixture
def others(tmp_path: Path) -> Path:
    return save_classes(tmp_path / "others", classes=OTHERS)


@pytest.fixture
def trained(small: None, photographs: Path, tmp_path: Path) -> Path:
    """The best.pt of a run by the paper's recipe, with a mean image."""
    best = train(options(photographs, tmp_path / "trained", SMALL_PAPER), Recorder()).best
    assert best is not None
    return best


def test_a_new_network_is_centred_on_its_photographs(small: None) -> None:
    paper = new_network(("a", "b"), COLOUR, PAPER, 3)
    assert paper.spec.preprocessing.mean == (100, 110, 120)
    assert paper.spec.preprocessing.std == (1, 1, 1)
    assert paper.mean_image is COLOUR.mean_image
    modern = new_network(("a", "b"), COLOUR, MODERN, 3)
    assert modern.spec.preprocessing.mean == (100, 110, 120)
    assert modern.spec.preprocessing.std == (58, 58, 58)
    assert modern.mean_image is None
    for beginning in (paper, modern):
        assert beginning.spec.labels == ("a", "b")
        assert not beginning.old_layers
        assert beginning.components.stds.tolist() == [1, 2, 3]
        shapes = {name: tuple(array.shape) for name, array in beginning.weights.items()}
        assert shapes == beginning.spec.array_shapes()


def test_a_seed_is_a_network(small: None) -> None:
    first, same, other = (new_network(("a", "b"), COLOUR, PAPER, seed) for seed in (3, 3, 4))
    for name, array in first.weights.items():
        assert torch.equal(array, same.weights[name])
        assert torch.equal(array, other.weights[name]) == name.endswith("bias"), name


def test_the_bundled_network_goes_on_with_its_factors_multiplied() -> None:
    checkpoint = load_checkpoint(bundled_checkpoint())
    assert "fc6.weight.left" in checkpoint.arrays
    classes = checkpoint.spec.labels
    beginning = from_checkpoint(checkpoint, classes, COLOUR, PAPER, 0)
    assert not beginning.old_layers
    assert beginning.spec == dataclasses.replace(checkpoint.spec, provenance={})
    for name in checkpoint.spec.array_shapes():
        layer, kind = name.split(".")
        expected = checkpoint.arrays[name] if kind == "bias" else checkpoint.dense(layer, F32)
        scale = 0.5 if name in AFTER_DROPOUT else 1  # section 4.2: outputs are halved in use
        assert np.array_equal(beginning.weights[name].numpy() * scale, expected.astype(F32)), name


def small_checkpoint(classes: tuple[str, ...]) -> Checkpoint:
    beginning = new_network(classes, COLOUR, MODERN, 1)
    arrays = {name: tensor.numpy() for name, tensor in beginning.weights.items()}
    return Checkpoint(spec=beginning.spec, arrays=arrays)


def test_other_classes_get_a_new_fc8(small: None) -> None:
    checkpoint = small_checkpoint(("a", "b"))
    beginning = from_checkpoint(checkpoint, ("a", "b", "c"), COLOUR, PAPER, 0)
    assert beginning.spec.labels == ("a", "b", "c")
    assert beginning.weights["fc8.weight"].shape == (3, HIDDEN)
    assert beginning.weights["fc8.bias"].tolist() == [0, 0, 0]
    assert beginning.old_layers == {"conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"}
    assert beginning.spec.preprocessing == checkpoint.spec.preprocessing
    assert beginning.mean_image is None


def test_as_many_classes_of_other_names_are_other_classes(small: None) -> None:
    checkpoint = small_checkpoint(("a", "b"))
    nameless = dataclasses.replace(checkpoint.spec, labels=())
    for beginning in (
        from_checkpoint(checkpoint, ("b", "a"), COLOUR, MODERN, 0),
        from_checkpoint(
            Checkpoint(spec=nameless, arrays=checkpoint.arrays), ("a", "b"), COLOUR, MODERN, 0
        ),
    ):
        assert not np.array_equal(beginning.weights["fc8.weight"], checkpoint.arrays["fc8.weight"])
        assert "fc8" not in beginning.old_layers


def test_rows_of_fc8_go_with_their_labels(small: None) -> None:
    checkpoint = small_checkpoint(("cat", "crane", "crane", "dog"))
    checkpoint.arrays["fc8.bias"][:] = (1, 2, 3, 4)
    classes = ("ant", "cat", "crane", "dog")
    beginning = from_checkpoint(checkpoint, classes, COLOUR, PAPER, 0)
    weight, bias = beginning.weights["fc8.weight"], beginning.weights["fc8.bias"]
    for row, old in ((1, 0), (3, 3)):  # which crane a folder holds cannot be told
        assert np.array_equal(weight[row] * 0.5, checkpoint.arrays["fc8.weight"][old])
        assert bias[row] == checkpoint.arrays["fc8.bias"][old]
    fresh = from_checkpoint(small_checkpoint(("x", "y")), classes, COLOUR, PAPER, 0)
    for row in (0, 2):
        assert torch.equal(weight[row], fresh.weights["fc8.weight"][row])
        assert bias[row] == 0
    assert beginning.num_new_classes == 2
    assert "conv1" in beginning.old_layers


def test_a_choice_of_the_classes_has_nothing_new(small: None) -> None:
    checkpoint = small_checkpoint(("ant", "bee", "cat"))
    beginning = from_checkpoint(checkpoint, ("cat", "bee"), COLOUR, MODERN, 0)
    expected = checkpoint.arrays["fc8.weight"][[2, 1]]
    assert np.array_equal(beginning.weights["fc8.weight"], expected)
    assert not beginning.old_layers
    assert beginning.num_new_classes == 0


def test_a_network_without_a_head_gets_one(small: None) -> None:
    whole = small_checkpoint(("a", "b"))
    spec = dataclasses.replace(whole.spec, num_classes=0, labels=())
    arrays = {name: whole.arrays[name] for name in spec.array_shapes()}
    beginning = from_checkpoint(Checkpoint(spec=spec, arrays=arrays), ("a", "b"), COLOUR, MODERN, 0)
    assert beginning.weights["fc8.weight"].shape == (2, HIDDEN)
    assert beginning.num_new_classes == 2


def test_a_bad_file_is_refused_before_a_photograph_is_read(
    small: None, photographs: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.pt"
    text.write_text("no network")
    for path, error in ((tmp_path / "no.pt", UsageError), (text, IncompatibleFileError)):
        reporter = Recorder()
        asked = options(photographs, tmp_path / "run", init=path)
        with pytest.raises(error, match=str(path)):
            train(asked, reporter)
        assert reporter.titles == []
        assert not asked.output.exists()


def weights_after(asked: TrainOptions, num_steps: int) -> Mapping[str, NDArray[np.float32]]:
    reporter = signalling(signal.SIGINT, VALIDATION_BATCHES + num_steps)
    checkpoint = train(asked, reporter).checkpoint
    assert checkpoint.name == f"step-{num_steps:08d}.pt"
    return load_checkpoint(checkpoint).arrays


def slow(asked: TrainOptions) -> TrainOptions:
    return dataclasses.replace(asked, output=asked.output.with_name("slow"), old_rate_factor=0.25)


def test_old_layers_take_smaller_steps_and_fc8_a_whole_one(
    trained: Path, others: Path, tmp_path: Path
) -> None:
    """The first step is the gradient and the decay times the rate, and nothing else."""
    recipe = SMALL_MODERN.with_options({"learning_rate": 0.1, "warm_up_epochs": 0})
    asked = options(
        others, tmp_path / "fast", recipe, init=trained, hold_out=0.5, old_rate_factor=1.0
    )
    fast, slower = weights_after(asked, 1), weights_after(slow(asked), 1)
    first = load_checkpoint(asked.output / "step-00000000.pt").arrays
    before = load_checkpoint(trained).arrays
    for name, array in first.items():
        if name == "mean_image":
            continue
        step, slow_step = fast[name] - array, slower[name] - array
        assert step.any(), name
        factor = 1 if name.startswith("fc8") else 0.25
        # Weights of up to 2 are rounded to 1e-7, before and after.
        np.testing.assert_allclose(slow_step, factor * step, rtol=1e-4, atol=3e-7)
        assert abs(slow_step).max() > 1e-5, name
        assert name.startswith("fc8") or np.array_equal(array, before[name])


def test_for_the_same_classes_nothing_is_new_and_nothing_is_slow(
    trained: Path, photographs: Path, tmp_path: Path
) -> None:
    asked = options(photographs, tmp_path / "fast", init=trained, old_rate_factor=1.0)
    fast, slower = weights_after(asked, 1), weights_after(slow(asked), 1)
    first = load_checkpoint(asked.output / "step-00000000.pt").arrays
    for name, array in load_checkpoint(trained).arrays.items():
        assert np.array_equal(first[name], array), name
        assert np.array_equal(fast[name], slower[name]), name


def test_preprocessing_and_old_layers_last_through_a_resumption(
    trained: Path, others: Path, tmp_path: Path
) -> None:
    """The modern recipe has no mean image of its own; the checkpoint's goes on with its weights."""
    recipe = SMALL_MODERN.with_options({"learning_rate": 1e-4})
    whole = options(others, tmp_path / "whole", recipe, init=trained)
    report = train(whole, Recorder())
    stopped = dataclasses.replace(whole, output=tmp_path / "stopped")
    train(stopped, signalling(signal.SIGINT, VALIDATION_BATCHES + 2))
    gone = trained.rename(trained.with_name("gone.pt"))  # a resumption does not need it
    train(dataclasses.replace(stopped, resume=True), Recorder())
    assert same_but_for_times(whole.output, stopped.output)
    before, after = load_checkpoint(gone), load_checkpoint(report.checkpoint)
    assert after.spec.preprocessing == before.spec.preprocessing
    assert np.array_equal(after.arrays["mean_image"], before.arrays["mean_image"])
    assert before.spec.labels == tuple(COLOURS)
    assert after.spec.labels == tuple(OTHERS)
    assert after.spec.provenance["init"] == {
        "identity": before.identity,
        "provenance": before.spec.provenance,
    }
    # Not what the recipe says, which the network has not had.
    assert after.spec.provenance["recipe"] == dataclasses.asdict(recipe) | {
        "input_std": 1.0,
        "subtract_mean_image": True,
    }
