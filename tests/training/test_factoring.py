"""fc6 and fc7 as thin products: nearest on what occurs, and able to learn."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from alexnet_deploy.model.spec import ModelSpec, preset_spec
from training.augmentation import Augmentation, ColourComponents
from training.factoring import Classifier, Factoring, Ranks, nearest_factors
from training.photographs import PhotographBatch
from training.recipes import MODERN
from training.towers import TwoTowers
from training.weights import split


def inputs_of_rank(rank: int, count: int, width: int) -> torch.Tensor:
    """Return rows that take only a few of the directions there are."""
    generator = torch.Generator().manual_seed(rank)
    basis = torch.randn(rank, width, generator=generator)
    return torch.randn(count, rank, generator=generator) @ basis


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_the_factors_are_as_near_as_a_product_can_be(rank: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 30, generator=generator).double() * torch.logspace(0, -2, 30)
    weight = torch.randn(12, 30, generator=generator)
    z = x @ weight.T.double()
    left, right = nearest_factors(weight, z.T @ z, rank)
    error = (x @ right.T.double() @ left.T.double() - z).pow(2).sum()
    # Eckart and Young: of any matrix of that rank, so of any that a product can give.
    least = torch.linalg.svdvals(z)[rank:].pow(2).sum()
    assert error == pytest.approx(float(least), rel=1e-5)  # factors are float32
    assert left.norm() == pytest.approx(float(right.norm()), rel=1e-5)


def test_directions_that_do_not_occur_cost_nothing() -> None:
    x = inputs_of_rank(4, 100, 40)
    weight = torch.randn(20, 40, generator=torch.Generator().manual_seed(1))
    z = (x @ weight.T).double()
    left, right = nearest_factors(weight, z.T @ z, 4)
    torch.testing.assert_close(x @ right.T @ left.T, x @ weight.T, rtol=1e-4, atol=1e-4)
    # The plain decomposition spends its four directions on all 20.
    u, s, v = torch.linalg.svd(weight)
    plain = (u[:, :4] * s[:4]) @ v[:4]
    assert (x @ plain.T - x @ weight.T).norm() > 0.5 * (x @ weight.T).norm()


@pytest.fixture
def spec(monkeypatch: pytest.MonkeyPatch) -> ModelSpec:
    """A narrow network of the paper's wiring, 67 px inputs, 24 units in fc6 and fc7."""
    for module in ("alexnet_deploy.model.spec", "training.towers"):
        monkeypatch.setattr(f"{module}.FC_WIDTH", 24)
    paper = preset_spec("paper", num_classes=3)
    preprocessing = dataclasses.replace(paper.preprocessing, std=(58.0, 58.0, 58.0))
    return dataclasses.replace(
        paper, input_size=67, widths=(4, 8, 12, 12, 16), preprocessing=preprocessing
    )


def random_arrays(spec: ModelSpec) -> dict[str, np.ndarray]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: (torch.randn(shape, generator=generator) * (2 / np.prod(shape[1:] or 1)) ** 0.5)
        .float()
        .numpy()
        for name, shape in spec.array_shapes().items()
    }


def factoring_of(spec: ModelSpec, arrays: dict[str, np.ndarray]) -> tuple[Factoring, TwoTowers]:
    device = torch.device("cpu")
    network = TwoTowers(spec, (device, device))
    network.load_state_dict(split({name: torch.from_numpy(a) for name, a in arrays.items()}))
    components = ColourComponents(vectors=torch.eye(3), stds=torch.zeros(3))
    augmentation = Augmentation(spec, MODERN, components, None, device)
    return Factoring(network, arrays, augmentation, seed=0), network


def pictures(count: int) -> PhotographBatch:
    generator = torch.Generator().manual_seed(5)
    # Large spots of colour: noise would look the same to every kernel.
    spots = torch.rand(count, 3, 5, 5, generator=generator) * 255
    images = F.interpolate(spots, 80, mode="bilinear").permute(0, 2, 3, 1).to(torch.uint8)
    return PhotographBatch(images=images, labels=torch.zeros(count, dtype=torch.int64))


def test_a_classifier_of_whole_matrices_answers_as_the_towers_do(spec: ModelSpec) -> None:
    arrays = random_arrays(spec)
    _, network = factoring_of(spec, arrays)
    whole = Classifier(
        {name: torch.from_numpy(a) for name, a in arrays.items() if name.startswith("fc")}
    )
    images = torch.randn(2, 3, 67, 67, generator=torch.Generator().manual_seed(2))
    logits = whole(torch.cat(network.pool5(images), dim=1))
    # Sums in another order, of 24 terms at most.
    torch.testing.assert_close(logits, network(images), rtol=1e-4, atol=1e-5)


def test_learning_brings_the_factors_nearer_to_the_whole_network(spec: ModelSpec) -> None:
    arrays = random_arrays(spec)
    factoring, network = factoring_of(spec, arrays)
    batch = pictures(24)
    classifier = factoring.decompose([batch], Ranks(fc6=6, fc7=6))
    with torch.no_grad():  # so far from the nearest that there is something to learn
        for parameter in classifier.parameters():
            parameter.normal_(0, 0.5, generator=torch.Generator().manual_seed(3))

    def divergence() -> float:
        crops = batch.images[:, 6:73, 6:73].float() - torch.tensor(spec.preprocessing.mean)
        images = crops.permute(0, 3, 1, 2) / 58
        with torch.no_grad():
            answers = classifier(torch.cat(network.pool5(images), dim=1)).log_softmax(1)
            return float(F.kl_div(answers, network(images).softmax(1), reduction="batchmean"))

    before = divergence()
    loss = factoring.learn(classifier, [batch] * 60, 60)
    assert np.isfinite(loss)
    assert divergence() < 0.8 * before


def test_at_full_rank_nothing_is_lost_and_the_arrays_have_the_names_of_factors(
    spec: ModelSpec,
) -> None:
    arrays = random_arrays(spec)
    factoring, _ = factoring_of(spec, arrays)
    small = factoring.decompose([pictures(64)], Ranks(fc6=24, fc7=24)).arrays()
    assert set(small) == {
        *("fc6.weight.left", "fc6.weight.right", "fc6.bias"),
        *("fc7.weight.left", "fc7.weight.right", "fc7.bias"),
        *("fc8.weight", "fc8.bias"),
    }
    for layer in ("fc6", "fc7"):
        product = small[f"{layer}.weight.left"] @ small[f"{layer}.weight.right"]
        np.testing.assert_allclose(product, arrays[f"{layer}.weight"], atol=1e-4)
    np.testing.assert_array_equal(small["fc8.weight"], arrays["fc8.weight"])


def test_dropout_follows_the_generator(spec: ModelSpec) -> None:
    arrays = random_arrays(spec)
    whole = Classifier(
        {name: torch.from_numpy(a) for name, a in arrays.items() if name.startswith("fc")}
    )
    pool5 = torch.rand(3, spec.array_shapes()["fc6.weight"][1])
    first, again = (whole(pool5, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, whole(pool5, torch.Generator().manual_seed(5)))
    assert not torch.equal(first, whole(pool5))
