"""A trained network as one small file, from the folder of photographs it was trained on."""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner

from alexnet_deploy.console.reporting import option
from alexnet_deploy.errors import (
    AlexNetDeployError,
    DatasetError,
    IncompatibleFileError,
    OutputError,
    UsageError,
)
from alexnet_deploy.model.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from alexnet_deploy.model.reference import Reference
from tests.support.networks import noise
from tests.support.training_sets import (
    INPUT,
    SMALL_MODERN,
    SMALL_PAPER,
    Recorder,
    options,
    saved_checkpoint,
    small_checkpoint,
    small_network,
    spoil,
)
from training.beginning import dense_arrays
from training.cli import cli
from training.factoring import Ranks
from training.prepared import UNFINISHED_NAME
from training.recipes import Recipe
from training.shrink import ShrinkOptions, shrink
from training.towers import TwoTowers
from training.train import train
from training.trainer import DivergedError
from training.weights import split

RANKS = Ranks(fc6=6, fc7=4)


@pytest.fixture(autouse=True, scope="module")
def _small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, small_network(patch):
        yield


def trained(photographs: Path, folder: Path, recipe: Recipe) -> Path:
    report = train(options(photographs, folder, recipe, hold_out=0.3), Recorder())
    assert report.best is not None
    return report.best


@pytest.fixture(scope="module")
def whole(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(photographs, tmp_path_factory.mktemp("run"), SMALL_MODERN)


def asked(checkpoint: Path, photographs: Path, folder: Path, **others: object) -> ShrinkOptions:
    made = ShrinkOptions(
        checkpoint=checkpoint,
        data=photographs,
        output=folder / "small.safetensors",
        ranks=RANKS,
        num_epochs=1,
        batch_size=4,
        device="cpu",
        seed=0,
        num_workers=0,
        memory_bytes=10**9,
    )
    return dataclasses.replace(made, **others)  # type: ignore[arg-type]


def logits(checkpoint: Checkpoint) -> torch.Tensor:
    """Return what a network, its factors multiplied, says of some smooth inputs."""
    device = torch.device("cpu")
    network = TwoTowers(checkpoint.spec, (device, device))
    arrays = dense_arrays(checkpoint)
    network.load_state_dict(split({name: torch.from_numpy(a) for name, a in arrays.items()}))
    spots = torch.randn(16, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        answers: torch.Tensor = network(F.interpolate(spots, INPUT, mode="bilinear"))
    return answers


def test_the_file_is_float16_factors_and_says_what_it_was_made_from(
    whole: Path, photographs: Path, tmp_path: Path
) -> None:
    options_ = asked(whole, photographs, tmp_path)
    report = shrink(options_, reporter := Recorder())
    before, after = load_checkpoint(whole), load_checkpoint(report.output)
    assert {array.dtype for array in after.arrays.values()} == {np.dtype(np.float16)}
    assert after.arrays["fc6.weight.left"].shape == (32, 6)
    assert after.arrays["fc7.weight.right"].shape == (4, 32)
    assert "fc6.weight" not in after.arrays
    assert report.size_bytes == report.output.stat().st_size
    assert after.spec.labels == before.spec.labels
    assert after.spec.provenance["shrunk"] == {
        "from": before.identity,
        "ranks": {"fc6": 6, "fc7": 4},
        "epochs": 1,
        "batch_size": 4,
        "seed": 0,
    }
    assert after.spec.provenance["recipe"] == before.spec.provenance["recipe"]
    for name in ("conv1.weight", "conv5.bias"):  # which do not learn
        np.testing.assert_array_equal(after.arrays[name], before.arrays[name].astype(np.float16))
    assert reporter.titles == ["reading photographs", "looking, 1 of 1", "learning, 1 of 1"]
    assert reporter.num_open == 0


def test_the_same_seed_gives_the_same_file(whole: Path, photographs: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / f"{number}.safetensors" for number in range(3)]
    for output, seed in zip(outputs, (0, 0, 1), strict=True):
        shrink(asked(whole, photographs, tmp_path, output=output, seed=seed), Recorder())
    one, again, other = (output.read_bytes() for output in outputs)
    assert one == again != other


@pytest.mark.parametrize("recipe", [SMALL_PAPER, SMALL_MODERN], ids=["paper", "modern"])
def test_at_the_largest_ranks_little_is_lost(
    photographs: Path, tmp_path: Path, recipe: Recipe
) -> None:
    """Also of the mean image, which stays in float32."""
    checkpoint = trained(photographs, tmp_path / "run", recipe)
    ranks = Ranks(fc6=6, fc7=16)  # above them the products are larger than the matrices
    report = shrink(asked(checkpoint, photographs, tmp_path, ranks=ranks, num_epochs=0), Recorder())
    assert report.loss is None
    before, after = load_checkpoint(checkpoint), load_checkpoint(report.output)
    assert ("mean_image" in after.arrays) == (recipe is SMALL_PAPER)
    if "mean_image" in before.arrays:
        np.testing.assert_array_equal(after.arrays["mean_image"], before.arrays["mean_image"])
    expected = logits(before)
    # What is lost is 2 of fc6's 8 inputs and 16 of fc7's 32, in which photographs vary least; a
    # factor or a bias in the wrong place would be off by as much as the answers differ.
    assert (logits(after) - expected).norm() < 0.5 * (expected - expected.mean(0)).norm()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": Path("small.pt")}, "--output small.pt: expected a name that ends in .saf"),
        ({"ranks": Ranks(fc6=0, fc7=4)}, "--fc6-rank is 0, expected 1 to"),
        ({"ranks": Ranks(fc6=6, fc7=17)}, "--fc7-rank is 17, expected 1 to 16"),
        ({"device": "tpu"}, "--device is 'tpu', expected one device"),
    ],
    ids=["suffix", "fc6", "fc7", "device"],
)
def test_what_cannot_be_done_is_refused_first(
    whole: Path, photographs: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        shrink(asked(whole, photographs, tmp_path, **changes), reporter := Recorder())
    assert message in caught.value.rendered(option)
    assert reporter.titles == []


def test_a_folder_is_no_output(whole: Path, photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "small.safetensors").mkdir()
    with pytest.raises(UsageError, match="is a folder, expected the name of a file"):
        shrink(asked(whole, photographs, tmp_path), Recorder())


def test_numbers_that_are_none_are_not_written(
    whole: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.factoring._LEARNING_RATE", 1e30)
    options_ = asked(whole, photographs, tmp_path)
    with pytest.raises(DivergedError, match=r"fc\S+ is not finite as float16, after 1 epochs"):
        shrink(options_, Recorder())
    assert not options_.output.exists()


def test_the_whole_networks_own_file_is_not_written_over(
    whole: Path, photographs: Path, tmp_path: Path
) -> None:
    dense = tmp_path / "dense.safetensors"
    save_checkpoint(load_checkpoint(whole), dense)
    link = tmp_path / "link.safetensors"
    link.symlink_to(dense)
    with pytest.raises(UsageError, match="is the network to shrink; give another name"):
        shrink(asked(dense, photographs, tmp_path, output=link), Recorder())


def test_what_is_small_already_is_refused(whole: Path, photographs: Path, tmp_path: Path) -> None:
    first = shrink(asked(whole, photographs, tmp_path, num_epochs=0), Recorder())
    again = asked(first.output, photographs, tmp_path, output=tmp_path / "again.safetensors")
    with pytest.raises(UsageError, match="fc6 is factored already; give the original"):
        shrink(again, Recorder())


def test_a_network_without_two_towers_is_shrunk(photographs: Path, tmp_path: Path) -> None:
    whole = saved_checkpoint("caffenet", tmp_path)
    ranks = Ranks(fc6=6, fc7=16)
    report = shrink(asked(whole, photographs, tmp_path, ranks=ranks), Recorder())
    before, after = load_checkpoint(whole), load_checkpoint(report.output)
    assert after.spec == dataclasses.replace(before.spec, provenance=after.spec.provenance)
    crops = noise(before.spec, 8)
    expected, logits = (Reference(one).run(crops, "logits")["logits"] for one in (before, after))
    assert np.linalg.norm(logits - expected) < 0.5 * np.linalg.norm(expected - expected.mean(0))


def test_a_network_without_a_head_is_refused(photographs: Path, tmp_path: Path) -> None:
    whole = small_checkpoint("caffenet")
    spec = dataclasses.replace(whole.spec, num_classes=0, labels=())
    arrays = {name: whole.arrays[name] for name in spec.array_shapes()}
    path = tmp_path / "headless.safetensors"
    save_checkpoint(Checkpoint(spec=spec, arrays=arrays), path)
    with pytest.raises(UsageError, match="has no fc8"):
        shrink(asked(path, photographs, tmp_path), Recorder())


@pytest.mark.parametrize("memory_bytes", [10**9, 0], ids=["memory", "files"])
def test_unreadable_photographs_are_listed_and_none_at_all_is_an_error(
    whole: Path, photographs: Path, tmp_path: Path, memory_bytes: int
) -> None:
    own = shutil.copytree(photographs, tmp_path / "own")
    options_ = asked(whole, own, tmp_path, memory_bytes=memory_bytes, batch_size=2)
    spoiled = spoil(own / "ash" / "0.jpg")
    shrink(options_, reporter := Recorder())
    assert set(reporter.failures) == {spoiled}
    options_.output.unlink()
    for path in own.glob("*/*.jpg"):
        spoil(path)
    with pytest.raises(DatasetError, match=r"none of (30|its) photographs"):
        shrink(options_, reporter := Recorder())
    assert reporter.num_open == 0
    assert not options_.output.exists()


def test_a_folder_that_does_not_do_is_named(whole: Path, photographs: Path, tmp_path: Path) -> None:
    cases: list[tuple[dict[str, object], type[AlexNetDeployError], str]] = [
        ({"batch_size": 31}, DatasetError, "30 photographs to train on, fewer than a batch of 31"),
        ({"data": tmp_path / "no"}, UsageError, "no: does not exist"),
        ({"output": tmp_path / "no" / "x.safetensors"}, OutputError, "there is no folder"),
    ]
    for changes, kind, message in cases:
        with pytest.raises(kind, match=message):
            shrink(asked(whole, photographs, tmp_path, **changes), Recorder())
    own = shutil.copytree(photographs, tmp_path / "own")
    (own / UNFINISHED_NAME).touch()
    with pytest.raises(IncompatibleFileError, match="prepare was interrupted or is running"):
        shrink(asked(whole, own, tmp_path), Recorder())


def test_the_command_says_what_it_made(whole: Path, photographs: Path, tmp_path: Path) -> None:
    output = tmp_path / "small.safetensors"
    arguments = [str(whole), str(photographs), "-o", str(output), "--batch-size", "4"]
    small = ["--fc6-rank", "6", "--fc7-rank", "4", "--epochs", "1"]
    result = CliRunner().invoke(cli, ["shrink", *arguments, *small])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{output}: {output.stat().st_size / 1e6:.2f} MB\n"
    result = CliRunner().invoke(cli, ["shrink", *arguments])  # the defaults are for 4096 units
    assert result.exit_code == 2
    assert "--fc6-rank is 160, expected 1 to" in result.stderr
