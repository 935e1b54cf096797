"""Runs from checkpoints of other networks, of all layers or of the head alone."""

import dataclasses
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from alexnet_deploy.errors import IncompatibleFileError, UsageError
from alexnet_deploy.model.checkpoints import load_checkpoint
from alexnet_deploy.model.reference import Reference
from alexnet_deploy.model.spec import PRESETS
from tests.support.plain_network import relative_difference
from tests.support.training_sets import (
    COLOURS,
    INPUT,
    KNOWN,
    PICTURE,
    SMALL_MODERN,
    SMALL_PAPER,
    STEPS_PER_EPOCH,
    VALIDATION_BATCHES,
    Recorder,
    options,
    same_but_for_times,
    saved_checkpoint,
    signalling,
    small_checkpoint,
)
from training.augmentation import Augmentation, ColourComponents
from training.beginning import dropout_scale, from_checkpoint
from training.colour import ColourStatistics
from training.networks import network_of
from training.optimizers import optimizer_of
from training.photographs import PhotographBatch
from training.pictures import form_of
from training.prepare import prepare
from training.recipes import MODERN, PAPER, Recipe
from training.train import train
from training.trainer import Trainer
from training.weights import after_dropout, deployable

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("small")


@pytest.mark.parametrize("recipe", [SMALL_MODERN, SMALL_PAPER], ids=["modern", "paper"])
@pytest.mark.parametrize("preset", PRESETS)
def test_any_network_is_fine_tuned_and_stays_what_it_is(
    photographs: Path, tmp_path: Path, preset: str, recipe: Recipe
) -> None:
    recipe = recipe.with_options({"num_epochs": 1, "learning_rate": 1e-4})
    init = saved_checkpoint(preset, tmp_path)
    reporter = Recorder()
    report = train(options(photographs, tmp_path / "run", recipe, init=init), reporter)
    before, after = load_checkpoint(init), load_checkpoint(report.checkpoint)
    expected = dataclasses.replace(
        before.spec, num_classes=3, labels=tuple(COLOURS), provenance=after.spec.provenance
    )
    assert after.spec == expected
    assert after.spec.provenance["trained"] == "all"
    assert report.step == STEPS_PER_EPOCH
    changed = {
        name for name in after.arrays if not np.array_equal(after.arrays[name], before.arrays[name])
    }
    assert changed == set(after.arrays)
    assert any("2 of 3 classes are new to fc8" in line for line in reporter.lines)


@pytest.mark.parametrize("recipe", [PAPER, MODERN], ids=["paper", "modern"])
@pytest.mark.parametrize("preset", ["paper", "torchvision", "caffenet-224"])
def test_a_checkpoint_means_the_same_before_and_after(preset: str, recipe: Recipe) -> None:
    """Without a step between: whatever the recipe's form of dropout, and wherever it is."""
    checkpoint = small_checkpoint(preset)
    colour = ColourStatistics(
        mean_image=np.zeros((PICTURE, PICTURE, 3), np.float32),
        covariance=np.eye(3),
        num_photographs=1,
    )
    beginning = from_checkpoint(checkpoint, KNOWN, colour, recipe, 0)
    network = network_of(beginning.spec, (CPU, CPU))
    network.load_state_dict(network.parts(beginning.weights))
    after = after_dropout(beginning.spec)
    arrays = deployable(
        network.merged(dict(network.named_parameters())), dropout_scale(recipe), after
    )
    for name, array in arrays.items():
        assert np.array_equal(array, checkpoint.arrays[name]), name
    logits = []
    network.register_forward_hook(lambda module, inputs, output: logits.append(output))
    components = ColourComponents(vectors=torch.eye(3), stds=torch.ones(3))
    augmentation = Augmentation(network.spec, recipe, components, None, CPU)
    optimizer = optimizer_of(network, recipe, frozenset(), 1.0)
    trainer = Trainer(network, recipe, optimizer, augmentation, precision="fp32", seed=0)
    pictures = np.random.default_rng(0).integers(0, 256, (2, PICTURE, PICTURE, 3), np.uint8)
    labels = torch.tensor([0, 1])
    trainer.validate([PhotographBatch(images=torch.from_numpy(pictures), labels=labels)])
    edge = (PICTURE - INPUT) // 2
    crops = pictures[:, edge : edge + INPUT, edge : edge + INPUT]
    expected = Reference(checkpoint, np.float64).run(crops, "logits")["logits"]
    assert relative_difference(logits[0].double(), torch.from_numpy(expected)) < 1e-5  # float32


@pytest.mark.parametrize("recipe", [SMALL_MODERN, SMALL_PAPER], ids=["modern", "paper"])
@pytest.mark.parametrize("preset", ["paper", "torchvision"])
def test_a_head_learns_alone(
    photographs: Path, tmp_path: Path, preset: str, recipe: Recipe
) -> None:
    init = saved_checkpoint(preset, tmp_path)
    asked = options(photographs, tmp_path / "run", recipe, init=init, train="head", keep=9)
    report = train(asked, reporter := Recorder())
    before, after = load_checkpoint(init).arrays, load_checkpoint(report.checkpoint)
    changed = {
        name
        for name, array in after.arrays.items()
        if name.startswith("fc8") or not np.array_equal(array, before[name])
    }
    assert changed == {"fc8.weight", "fc8.bias"}
    first = load_checkpoint(min(asked.output.glob("step-*.pt"))).arrays
    assert not np.array_equal(first["fc8.weight"], after.arrays["fc8.weight"])
    assert after.spec.provenance["trained"] == "head"
    assert any("no other layer learns" in line for line in reporter.lines)


@pytest.mark.parametrize("layers", ["all", "head"])
@pytest.mark.parametrize("preset", ["paper", "caffe"])
def test_fine_tuning_goes_on_to_the_same_bits(
    photographs: Path, tmp_path: Path, preset: str, layers: str
) -> None:
    init = saved_checkpoint(preset, tmp_path)
    recipe = SMALL_MODERN.with_options({"num_epochs": 2, "learning_rate": 1e-4})
    whole = options(photographs, tmp_path / "whole", recipe, init=init, train=layers)
    train(whole, Recorder())
    stopped = dataclasses.replace(whole, output=tmp_path / "stopped")
    train(stopped, signalling(signal.SIGTERM, VALIDATION_BATCHES + 2))
    train(dataclasses.replace(stopped, resume=True), Recorder())
    assert same_but_for_times(whole.output, stopped.output)


def test_other_layers_on_a_resumption_are_refused(photographs: Path, tmp_path: Path) -> None:
    asked = options(
        photographs, tmp_path / "run", init=saved_checkpoint("caffe", tmp_path), train="head"
    )
    train(asked, signalling(signal.SIGTERM, VALIDATION_BATCHES + 1))
    with pytest.raises(UsageError, match='the run began with train="head", now it is "all"'):
        train(dataclasses.replace(asked, train="all", resume=True), Recorder())


def test_photographs_are_resized_as_the_network_wants(photographs: Path, tmp_path: Path) -> None:
    """Prepared for the paper's network they do not serve Caffe's, which squashes them."""
    init = saved_checkpoint("caffe", tmp_path)
    form = form_of(load_checkpoint(init).spec.preprocessing)
    assert (form.size, form.resize, form.filter) == (PICTURE, "squash", "bilinear")
    recipe = SMALL_MODERN.with_options({"num_epochs": 1, "learning_rate": 1e-4})
    prepare(photographs, tmp_path / "papers", form=dataclasses.replace(form, resize="shorter_side"))
    asked = options(tmp_path / "papers", tmp_path / "run", recipe, init=init)
    with pytest.raises(IncompatibleFileError, match=r"the network wants 75 px, squash, bilinear; "):
        train(asked, Recorder())
    prepare(photographs, tmp_path / "own", form=form)
    train(
        dataclasses.replace(asked, data=tmp_path / "own", output=tmp_path / "own-run"), Recorder()
    )
