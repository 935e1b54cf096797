import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from alexnet_deploy.errors import DatasetError
from tests.support.plain_network import (
    plain_logits,
    random_weights,
    relative_difference,
    small_spec,
)
from training.augmentation import Augmentation, ColourComponents
from training.optimizers import Optimizer, PaperSGD, memory_of, optimizer_of
from training.photographs import PhotographBatch
from training.recipes import MODERN, PAPER, Recipe
from training.towers import Dropout, TwoTowers
from training.trainer import DivergedError, Precision, Trainer
from training.weights import merge, split

CPU = torch.device("cpu")
NUM_CLASSES = 7
PICTURE_SIDE = 107  # px, for inputs of 99
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
COMPONENTS = ColourComponents(vectors=torch.eye(3), stds=torch.tensor([10.0, 20.0, 30.0]))


class Watched(TwoTowers):
    """A network that remembers what it was given and what it answered."""

    inputs: torch.Tensor
    logits: torch.Tensor
    masks: dict[tuple[str, int], torch.Tensor]

    def forward(self, images: torch.Tensor, dropout: Dropout | None = None) -> torch.Tensor:
        self.masks = {}

        def watch(hidden: torch.Tensor, layer: str, tower: int) -> torch.Tensor:
            assert dropout is not None
            dropped = dropout(hidden, layer, tower)
            self.masks[layer, tower] = torch.where(hidden > 0, dropped / hidden, 0).detach()
            return dropped

        self.inputs = images
        self.logits = super().forward(images, watch)
        return self.logits


class Linear(TwoTowers):
    """In a network's place: logits = (mean input of each channel) W^T + b, and what came in."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        nn.Module.__init__(self)
        self.spec = small_spec(NUM_CLASSES)
        self.devices = (CPU, CPU)
        start = torch.linspace(-0.02, 0.02, 3 * NUM_CLASSES).view(NUM_CLASSES, 3)
        self.weight = nn.Parameter(start)
        self.bias = nn.Parameter(torch.zeros(NUM_CLASSES))
        self.inputs: list[torch.Tensor] = []
        self.masks: list[dict[tuple[str, int], torch.Tensor]] = []
        self.autocast: list[bool] = []
        self.answer: Callable[[torch.Tensor], torch.Tensor] = self._linear

    def forward(self, images: torch.Tensor, dropout: Dropout | None = None) -> torch.Tensor:
        assert dropout is not None
        keys = [(layer, tower) for layer in ("fc6", "fc7") for tower in (0, 1)]
        ones = torch.ones(len(images), 2048)
        self.inputs.append(images)
        self.masks.append({key: dropout(ones, *key) for key in keys})
        self.autocast.append(torch.is_autocast_enabled("cpu"))
        return self.answer(images)

    def _linear(self, images: torch.Tensor) -> torch.Tensor:
        return F.linear(images.mean((2, 3)), self.weight, self.bias)


def _pictures(count: int, seed: int = 0) -> PhotographBatch:
    random = np.random.default_rng(seed)
    shape = (count, PICTURE_SIDE, PICTURE_SIDE, 3)
    return PhotographBatch(
        images=torch.from_numpy(random.integers(0, 256, shape, np.uint8)),
        labels=torch.from_numpy(random.integers(0, NUM_CLASSES, count)),
    )


def _trainer(
    network: TwoTowers, recipe: Recipe, *, precision: Precision = "fp32", seed: int = 0
) -> Trainer:
    if isinstance(network, Linear):
        groups = [{"params": list(network.parameters()), "weight_decay": 0.0, "rate_factor": 1.0}]
        optimizer: Optimizer = PaperSGD(groups, recipe)
    else:
        optimizer = optimizer_of(network, recipe, frozenset(), 1.0)
    augmentation = Augmentation(network.spec, recipe, COMPONENTS, None, CPU)
    return Trainer(network, recipe, optimizer, augmentation, precision=precision, seed=seed)


def _watched() -> Watched:
    spec = small_spec(NUM_CLASSES)
    network = Watched(spec, (CPU, CPU))
    weights = random_weights(spec, torch.float32)
    weights["fc8.weight"] /= 50  # activations are as large as pixels, logits should be about 1
    network.load_state_dict(split(weights))
    return network


@pytest.mark.parametrize("recipe", [PAPER, MODERN], ids=["paper", "modern"])
def test_a_first_step_is_that_of_a_plain_network_under_the_same_masks(recipe: Recipe) -> None:
    """The paper: v = -e (d w + g), biases at their own rate. AdamW's mean gradient: .1 g."""
    network, rate = _watched(), 1e-3
    before = merge(dict(network.named_parameters()))
    batch = _pictures(4)
    trainer = _trainer(network, recipe)
    result = trainer.step(batch, 0, rate)
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in before.items()}
    masks = {
        layer: torch.cat([network.masks[layer, 0], network.masks[layer, 1]], dim=1)
        for layer in ("fc6", "fc7")
    }
    logits = plain_logits(leaves, network.spec, network.inputs, masks)
    loss = F.cross_entropy(logits, batch.labels, label_smoothing=recipe.label_smoothing)
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    # float32: sums of up to 4096 in another order
    assert result.loss == pytest.approx(4 * loss.item(), rel=1e-5)
    assert result.num_photographs == 4
    assert result.num_right == int((logits.argmax(1) == batch.labels).sum())
    after = merge(dict(network.named_parameters()))
    memory = memory_of(network, trainer.optimizer)
    for (name, weight), gradient in zip(before.items(), gradients, strict=True):
        if recipe.update_rule == "adamw":
            mean = memory[f"exp_avg.{name}"]
            assert relative_difference(mean, 0.1 * gradient) < 1e-4, name
        else:
            is_bias = name.endswith("bias")
            velocity = memory[f"momentum_buffer.{name}"]
            expected = gradient + (0 if is_bias else 0.0005 * weight)
            assert relative_difference(velocity, expected) < 1e-4, name
            way = rate * (recipe.bias_rate_factor if is_bias else 1.0)
            torch.testing.assert_close(after[name], weight - way * velocity, rtol=3e-7, atol=1e-9)
        assert not torch.equal(after[name], weight), name


@pytest.mark.parametrize(
    ("recipe", "kept"),
    [(PAPER, 1.0), (MODERN, 2.0), (MODERN.with_options({"dropout_rate": 0.2}), 1.25)],
)
def test_each_tower_drops_its_own_share(recipe: Recipe, kept: float) -> None:
    network = Linear()
    _trainer(network, recipe).step(_pictures(8), 0, 0.0001)
    (masks,) = network.masks
    for mask in masks.values():
        assert set(mask.flatten().tolist()) == {0.0, kept}
        share, count = float((mask > 0).double().mean()), mask.numel()
        expected = 1 - recipe.dropout_rate
        # Five standard deviations of so many tosses
        assert abs(share - expected) < 5 * (expected * (1 - expected) / count) ** 0.5
    flat = torch.stack([(mask > 0).double().flatten() for mask in masks.values()])
    assert np.abs(np.corrcoef(flat.numpy()) - np.eye(4)).max() < 5 / flat.shape[1] ** 0.5


def test_a_step_depends_on_seed_and_number_alone() -> None:
    """Whatever ran before, in this trainer or elsewhere in the process."""
    recipe, batch = MODERN, _pictures(3)
    fresh, busy, reseeded = Linear(), Linear(), Linear()
    _trainer(fresh, recipe).step(batch, 5, 0.001)
    trainer = _trainer(busy, recipe)
    trainer.step(_pictures(2), 0, 0.001)
    trainer.validate([_pictures(2)])
    torch.rand(10)
    state = torch.get_rng_state()
    trainer.step(batch, 5, 0.001)
    assert torch.equal(torch.get_rng_state(), state)
    _trainer(reseeded, recipe, seed=1).step(batch, 5, 0.001)
    assert torch.equal(busy.inputs[-1], fresh.inputs[0])
    assert not torch.equal(reseeded.inputs[0], fresh.inputs[0])
    for key, mask in fresh.masks[0].items():
        assert torch.equal(busy.masks[-1][key], mask)
        assert not torch.equal(reseeded.masks[0][key], mask)
        assert not torch.equal(busy.masks[0][key], mask[:2])  # of step 0


def test_the_same_steps_give_the_same_bits() -> None:
    results = []
    for _ in range(2):
        network = _watched()
        trainer = _trainer(network, PAPER, precision="bf16")
        for step in range(2):
            trainer.step(_pictures(2, seed=step), step, 1e-4)
        results.append([parameter.detach() for parameter in network.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_is_the_mean_cross_entropy_with_smoothed_labels(smoothing: float) -> None:
    """A share of the probability goes to all classes alike."""
    network = Linear()
    recipe = MODERN.with_options({"label_smoothing": smoothing, "input_std": 1.0})
    batch, rate = _pictures(5), 0.001
    result = _trainer(network, recipe).step(batch, 0, rate)
    start = Linear()
    logits = F.linear(network.inputs[0].mean((2, 3)), start.weight, start.bias)
    log_probabilities = torch.log_softmax(logits, dim=1)
    targets = torch.full((5, NUM_CLASSES), smoothing / NUM_CLASSES)
    targets[torch.arange(5), batch.labels] += 1 - smoothing
    loss = -(targets * log_probabilities).sum(1).mean()
    assert result.loss == pytest.approx(5 * loss.item(), rel=1e-5)  # float32
    (gradient,) = torch.autograd.grad(loss, start.bias)
    expected = -rate * gradient  # a first step by the paper's rule, which Linear takes
    torch.testing.assert_close(network.bias.detach(), expected, rtol=1e-4, atol=1e-9)  # float32


def test_blends_of_two_pictures_are_asked_for_both_classes_in_their_shares() -> None:
    """Each picture is most of its own blend; the shares are drawn from a Beta distribution."""
    recipe = MODERN.with_options({"mixup": 0.4, "label_smoothing": 0.0, "input_std": 1.0})
    shares, batch = [], _pictures(6)
    for step in range(200):
        plain, network = Linear(), Linear()
        _trainer(plain, recipe.with_options({"mixup": 0.0})).step(batch, step, 1e-4)
        result = _trainer(network, recipe).step(batch, step, 1e-4)
        own, blend = plain.inputs[0].flatten(1), network.inputs[0].flatten(1)
        # The partner and the share that explain a blend best: it is linear in the share.
        fits = []
        for partner in range(6):
            difference = own[partner] - own[0]
            share = 1 - float((blend[0] - own[0]) @ difference / difference.pow(2).sum().clamp(1))
            errors = (share * own[0] + (1 - share) * own[partner] - blend[0]).abs()
            fits.append((float(errors.max()), share, partner))
        error, share, partner = min(fits)
        assert error < 1e-3  # grey levels in float32
        if partner:
            shares.append(share)
        loss = torch.zeros(())
        start = Linear()
        logits = F.linear(network.inputs[0].mean((2, 3)), start.weight, start.bias)
        losses = -torch.log_softmax(logits, dim=1)
        for row, picture in enumerate(network.inputs[0].flatten(1)):
            partners = ((share * own[row] + (1 - share) * own) - picture).abs().amax(1)
            other = int(partners.argmin())
            loss = loss + share * losses[row, batch.labels[row]]
            loss = loss + (1 - share) * losses[row, batch.labels[other]]
        if partner:
            assert result.loss == pytest.approx(loss.item(), rel=1e-3)
    drawn = np.random.default_rng(0).beta(0.4, 0.4, 100_000)
    expected = np.maximum(drawn, 1 - drawn)
    assert min(shares) >= 0.5 - 1e-6
    assert np.mean(shares) == pytest.approx(
        expected.mean(), abs=5 * expected.std() / len(shares) ** 0.5
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e4])
def test_a_loss_that_diverged_stops_before_the_weights_change(bad: float) -> None:
    network = Linear()
    trainer = _trainer(network, PAPER)
    trainer.step(_pictures(2), 0, 1e-4)
    weights = [parameter.detach().clone() for parameter in network.parameters()]
    state = {key: one["momentum_buffer"].clone() for key, one in trainer.optimizer.state.items()}

    def explode(images: torch.Tensor) -> torch.Tensor:
        wrong = F.one_hot(1 - batch.labels.clamp(max=1), NUM_CLASSES)
        return network._linear(images) + bad * wrong

    network.answer, batch = explode, _pictures(2)
    with pytest.raises(
        DivergedError, match=r"step 17: .* rate 0\.01, .*recipe\.learning_rate=0\.001"
    ):
        trainer.step(batch, 17, 0.01)
    for parameter, weight in zip(network.parameters(), weights, strict=True):
        assert torch.equal(parameter, weight)
        assert torch.equal(trainer.optimizer.state[parameter]["momentum_buffer"], state[parameter])
    with pytest.raises(DivergedError, match="validation after 0 steps: the loss is"):
        trainer.validate([batch])


@pytest.mark.parametrize(("at_least", "limit"), [(0.0, 20 * math.log(NUM_CLASSES)), (100.0, 100.0)])
def test_a_loss_below_twenty_times_that_of_guessing_goes_on(
    monkeypatch: pytest.MonkeyPatch, at_least: float, limit: float
) -> None:
    """Nor is one an explosion that a photograph under a wrong name can cause by itself."""
    monkeypatch.setattr("training.trainer.EXPLODED_AT_LEAST", at_least)
    network = Linear()
    trainer = _trainer(network, PAPER)
    batch = _pictures(2)
    for margin, diverged in ((limit - 1, False), (limit + 1, True)):
        wrong = F.one_hot((batch.labels + 1) % NUM_CLASSES, NUM_CLASSES)
        network.answer = lambda images, m=margin, w=wrong: (
            images.mean() * 0 + network.bias * 0 + m * w
        )  # type: ignore[misc]
        if diverged:
            with pytest.raises(DivergedError, match=f"expected less than {limit:.0f}"):
                trainer.step(batch, 0, 0.1)
        else:
            assert trainer.step(batch, 0, 0.1).loss == pytest.approx(2 * margin, rel=1e-5)


def test_validation_counts_photographs_not_batches() -> None:
    """Figures by hand: six classes of seven are there, and one row has its classes all equal."""
    network = Linear()
    labels = torch.tensor([0, 0, 0, 1, 2, 3, 4])
    logits = torch.zeros(7, NUM_CLASSES)
    logits[0, 0] = logits[1, 0] = logits[3, 1] = 5.0  # right
    logits[2, 6] = 5.0  # wrong; the true class shares places 2 to 7
    logits[4] = torch.tensor([6.0, 5.0, 0.0, 4.0, 3.0, 2.0, 1.0])  # the true class is last
    logits[5] = torch.tensor([6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0])  # fourth
    answers = [logits[:4], logits[4:]]
    network.answer = lambda images: answers.pop(0)
    images = _pictures(7).images
    batches = [
        PhotographBatch(images=images[:4], labels=labels[:4]),
        PhotographBatch(images=images[:3], labels=labels[4:]),
    ]
    found = _trainer(network, MODERN).validate(batches)
    top1 = [1, 1, 0, 1, 0, 0, 1 / 7]
    top5 = [1, 1, 4 / 6, 1, 0, 1, 5 / 7]
    log_probabilities = torch.log_softmax(logits.double(), dim=1)
    assert found.loss == pytest.approx(-log_probabilities[range(7), labels].mean().item())
    assert found.top1 == pytest.approx(np.mean(top1))
    assert found.top5 == pytest.approx(np.mean(top5))
    assert found.mean_class_top1 == pytest.approx(np.mean([2 / 3, 1, 0, 0, 1 / 7]))


def test_validation_passes_over_batches_of_which_nothing_could_be_read() -> None:
    network = Linear()
    batch = _pictures(3)
    nothing = PhotographBatch(images=batch.images[:0], labels=batch.labels[:0])
    trainer = _trainer(network, PAPER)
    expected = trainer.validate([batch])
    assert trainer.validate([nothing, batch, nothing]) == expected
    with pytest.raises(DatasetError, match="none of its photographs"):
        trainer.validate([nothing])


def test_validation_changes_nothing() -> None:
    network = Linear()
    trainer = _trainer(network, PAPER)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    trainer.validate(_pictures(2) for _ in range(2))
    for parameter, weight in zip(network.parameters(), before, strict=True):
        assert torch.equal(parameter, weight)
        assert parameter.grad is None
    assert not trainer.optimizer.state


@pytest.mark.parametrize(("precision", "expected"), [("fp32", False), ("bf16", True)])
def test_bfloat16_is_of_products_and_not_of_weights(precision: Precision, expected: bool) -> None:
    network = Linear()
    trainer = _trainer(network, PAPER, precision=precision)
    trainer.step(_pictures(2), 0, 1e-4)
    trainer.validate([_pictures(2)])
    assert network.autocast == [expected, expected]
    assert network.weight.dtype == torch.float32
    assert trainer.optimizer.state[network.weight]["momentum_buffer"].dtype == torch.float32


def test_a_bfloat16_step_goes_the_way_of_a_float32_step() -> None:
    """Products have 8 bits, and some maxima and ReLUs tip over: the way is right."""
    velocities = []
    for precision in PRECISIONS:
        network = _watched()
        trainer = _trainer(network, PAPER, precision=precision)
        trainer.step(_pictures(4), 0, 1e-4)
        velocities.append(memory_of(network, trainer.optimizer))
    for name in small_spec(NUM_CLASSES).array_shapes():
        one, other = (one[f"momentum_buffer.{name}"].flatten() for one in velocities)
        assert F.cosine_similarity(one, other, dim=0) > 0.9, name
