"""Credit with ties, ensembles and failures, against plain loops."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from alexnet_deploy.errors import (
    DatasetError,
    IncompatibleFileError,
    TooManyFailuresError,
    UsageError,
    VerificationError,
)
from alexnet_deploy.export.opening import open_runner_of
from alexnet_deploy.importing.known import KnownNetwork
from alexnet_deploy.inference import published
from alexnet_deploy.inference.classification import classify
from alexnet_deploy.inference.evaluation import ensemble_weights, evaluate
from alexnet_deploy.inference.predictions import top_k_credit
from alexnet_deploy.inference.published import published_accuracy
from alexnet_deploy.inference.run import RunSummary
from alexnet_deploy.model.spec import ModelSpec, preset_spec
from alexnet_deploy.photographs.class_folders import ClassFolders, find_class_folders
from alexnet_deploy.photographs.truth_files import find_labelled
from alexnet_deploy.runtimes.base import RunnerOptions
from tests.support.fake_runner import SPEC, FakeRunner, save_photograph

OPTIONS = RunnerOptions(batch_size=2, outputs=("probabilities",))
CAFFE = preset_spec("caffe", num_classes=SPEC.num_classes, labels=SPEC.labels)


def share_of_orders(scores: Sequence[float], label: int, k: int) -> float:
    """Count in how many random orders of equal classes the true one is among the first k."""
    orders = list(itertools.permutations(range(len(scores))))
    hits = 0
    for order in orders:
        ranked = sorted(order, key=lambda index: -scores[index])  # stable: ties as in `order`
        hits += label in ranked[:k]
    return hits / len(orders)


@settings(max_examples=200)
@given(
    scores=st.lists(st.sampled_from([0.0, 0.25, 0.5, math.inf]), min_size=1, max_size=5),
    k=st.integers(1, 6),
    data=st.data(),
)
def test_credit_is_the_share_of_orders_of_equals_that_are_right(
    scores: list[float], k: int, data: st.DataObject
) -> None:
    label = data.draw(st.integers(0, len(scores) - 1))
    credit = top_k_credit(np.array([scores], np.float32), np.array([label]), k)
    assert credit.dtype == np.float64
    # Both are quotients of small integers.
    assert credit.tolist() == pytest.approx([share_of_orders(scores, label, k)], abs=1e-12)


def test_a_network_that_cannot_tell_earns_its_chance() -> None:
    same = np.full((2, 101), 1 / 101, np.float32)
    assert top_k_credit(same, np.array([0, 100]), 5) == pytest.approx([5 / 101] * 2)
    few = np.full((1, 4), 0.25, np.float32)
    assert top_k_credit(few, np.array([3]), 5).tolist() == [1.0]


def test_a_nan_earns_nothing_wherever_it_is() -> None:
    scores = np.array([[math.nan, 0.9, 0.1], [0.9, math.nan, 0.1], [0.9, 0.1, 0.0]], np.float32)
    assert top_k_credit(scores, np.array([0, 0, 0]), 1).tolist() == [0.0, 0.0, 1.0]


def test_no_photograph_is_no_credit() -> None:
    assert top_k_credit(np.zeros((0, 3), np.float32), np.zeros(0, np.int64), 1).tolist() == []


@pytest.mark.parametrize(("label", "k", "message"), [(3, 1, "3 .. 3"), (-1, 1, "-1"), (0, 0, "k:")])
def test_a_label_that_is_no_class_and_a_k_below_1_are_refused(
    label: int, k: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        top_k_credit(np.zeros((1, 3), np.float32), np.array([label]), k)


class TableRunner(FakeRunner):
    """A photograph whose red is n has the probabilities of row n of a table."""

    def __init__(self, table: NDArray[Any], spec: ModelSpec = SPEC) -> None:
        super().__init__(OPTIONS, spec)
        self.table = table.astype(np.float32)

    def run(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        super().run(images)
        return {"probabilities": self.table[images[:, 0, 0, 0]]}


TRUTH = (0, 0, 2, 2, 2, 3)  # class of photograph n; no folder is green


@pytest.fixture
def folders(tmp_path: Path) -> ClassFolders:
    """Six photographs, numbered by their red, in three of the four classes' folders."""
    for number, index in enumerate(TRUTH):
        save_photograph(tmp_path / "d" / SPEC.labels[index] / f"{number}.png", (number, 0, 0))
    return find_class_folders(tmp_path / "d")


def by_loops(
    tables: Sequence[NDArray[Any]], weights: Sequence[float], numbers: Sequence[int], k: int
) -> dict[int, float]:
    """Return the credit of each photograph from the weighted mean in double precision."""
    shares = [weight / sum(weights) for weight in weights]
    means: dict[int, list[float]] = {}
    for n in numbers:
        rows = [table[n].tolist() for table in tables]
        means[n] = [
            sum(share * row[index] for share, row in zip(shares, rows, strict=True))
            for index in range(SPEC.num_classes)
        ]
    return {n: share_of_orders(means[n], TRUTH[n], k) for n in numbers}


def eighths(seed: int) -> NDArray[Any]:
    """Return a table of eighths with ties, whose means with weights 1 and 3 are exact."""
    return np.random.default_rng(seed).integers(0, 4, (256, 4)) / 8


@pytest.mark.parametrize("seed", range(5))
def test_an_ensemble_is_the_weighted_mean_of_its_probabilities(
    folders: ClassFolders, seed: int
) -> None:
    tables, weights = [eighths(seed), eighths(seed + 100)], [1.0, 3.0]
    runners = [TableRunner(tables[0]), TableRunner(tables[1], CAFFE)]
    found = evaluate(runners, folders, weights=weights, threads=2)
    expected = by_loops(tables, weights, range(6), 1)
    assert found.top1 == pytest.approx(sum(expected.values()) / 6, abs=1e-12)
    assert found.top5 == 1.0  # four classes
    groups = {"blue": (2, 3, 4), "great_auk": (5,), "red": (0, 1)}
    own = {name: sum(expected[n] for n in group) / len(group) for name, group in groups.items()}
    assert {one.label: one.top1 for one in found.classes} == pytest.approx(own, abs=1e-12)
    assert [one.index for one in found.classes] == [2, 3, 0]
    assert [one.num_photographs for one in found.classes] == [3, 1, 2]
    assert found.mean_class_top1 == pytest.approx(sum(own.values()) / 3, abs=1e-12)
    assert [model.weight for model in found.models] == [0.25, 0.75]


def test_one_of_two_models_may_weigh_nothing(folders: ClassFolders) -> None:
    tables = [eighths(1), eighths(2)]
    both = evaluate([TableRunner(table) for table in tables], folders, weights=[0, 2])
    second = evaluate([TableRunner(tables[1])], folders)
    assert (both.top1, both.classes) == (second.top1, second.classes)


def test_ten_crops_reach_the_engine_through_the_whole_picture(folders: ClassFolders) -> None:
    table = eighths(3)
    ten = evaluate([TableRunner(table)], folders, ten_crop=True)
    # Photographs of one colour look the same in every view.
    assert ten.classes == evaluate([TableRunner(table)], folders).classes
    assert ten.num_crops == 10


def test_a_photograph_that_fails_is_left_out_and_counts_once(folders: ClassFolders) -> None:
    broken = folders.root / "blue" / "3.png"
    broken.write_bytes(b"")
    told: list[tuple[str, bool]] = []
    summary = RunSummary()
    tables = [eighths(4), eighths(5)]
    found = evaluate(
        [TableRunner(table) for table in tables],
        folders,
        on_result=lambda path, error: told.append((path.name, error is not None)),
        summary=summary,
    )
    expected = by_loops(tables, [1, 1], [0, 1, 2, 4, 5], 1)
    assert found.top1 == pytest.approx(sum(expected.values()) / 5, abs=1e-12)
    assert found.num_photographs == 5
    assert [(path, bool(reason)) for path, reason in found.failures] == [(broken, True)]
    assert [name for name, has_failed in told if has_failed] == ["3.png"]
    assert len(told) == 6 + 5
    assert (summary.num_done, summary.num_failed) == (5, 1)


def test_a_photograph_that_goes_away_between_two_models_counts_as_failed(
    folders: ClassFolders,
) -> None:
    last = folders.root / "great_auk" / "5.png"
    num_told = 0

    def remove_last(path: Path, error: str | None) -> None:
        nonlocal num_told
        num_told += 1
        if num_told == 6:
            last.unlink()

    tables = [eighths(6), eighths(7)]
    found = evaluate([TableRunner(t) for t in tables], folders, on_result=remove_last)
    assert [path for path, _ in found.failures] == [last]
    expected = by_loops(tables, [1, 1], range(5), 1)
    assert found.top1 == pytest.approx(sum(expected.values()) / 5, abs=1e-12)
    (auk,) = [one for one in found.classes if one.label == "great_auk"]
    assert (auk.num_photographs, auk.top1, auk.top5) == (0, None, None)
    own = [one.top1 for one in found.classes if one.top1 is not None]
    assert found.mean_class_top1 == pytest.approx(sum(own) / 2, abs=1e-12)


def test_nothing_but_failures_is_an_error(folders: ClassFolders) -> None:
    for index in range(len(folders)):
        folders.path(index).write_bytes(b"")
    with pytest.raises(TooManyFailuresError, match="6 of 6 photographs could not be read"):
        evaluate([TableRunner(eighths(0)), TableRunner(eighths(0))], folders)


def test_probabilities_that_are_no_numbers_are_an_error(folders: ClassFolders) -> None:
    with pytest.raises(VerificationError, match=r"^m\.onnx: .*: its probabilities are not finite"):
        evaluate([TableRunner(np.full((256, 4), np.nan))], folders, paths=[Path("m.onnx")])


def test_what_cannot_be_evaluated_fails_before_a_photograph_is_read(folders: ClassFolders) -> None:
    def refuse(path: Path, error: str | None) -> None:
        raise AssertionError("a photograph was read")

    runner = TableRunner(eighths(0))
    other = TableRunner(eighths(0), dataclasses.replace(SPEC, labels=("a", "b", "c", "d")))
    with pytest.raises(IncompatibleFileError, match=r"model 1 \(0123456789abcdef\) and model 2"):
        evaluate([runner, other], folders, on_result=refuse)
    with pytest.raises(DatasetError, match=r"not labels of b\.pt: 'blue'"):
        evaluate([other], folders, paths=[Path("b.pt")], on_result=refuse)
    without = FakeRunner(RunnerOptions(outputs=("fc7",)))
    with pytest.raises(UsageError, match="open it with the output 'probabilities'"):
        evaluate([without], folders, on_result=refuse)
    with pytest.raises(UsageError, match="got none"):
        evaluate([], folders)


def test_classes_in_a_file_give_what_sub_folders_give(folders: ClassFolders) -> None:
    table = eighths(8)
    by_folder = evaluate([TableRunner(table)], folders)
    rows = [f"{folders.path(n).relative_to(folders.root)} " for n in range(len(folders))]
    truth = folders.root.parent / "truth.txt"
    indices = [SPEC.labels.index(folders.classes[label]) for label in folders.labels]
    truth.write_text("\n".join(f"{row}{index}" for row, index in zip(rows, indices, strict=True)))
    by_file = evaluate([TableRunner(table)], find_labelled(folders.root, truth))
    assert (by_file.top1, by_file.top5) == (by_folder.top1, by_folder.top5)
    # Here in the order of the outputs; the model's labels name them in both.
    assert by_file.classes == tuple(sorted(by_folder.classes, key=lambda one: one.index))
    assert (by_folder.matched_by, by_file.matched_by) == ("label", "number")
    truth.write_text(
        "".join(f"{row}{index}\n" for row, index in zip(rows[:4], indices, strict=False))
    )
    some = evaluate([TableRunner(table)], find_labelled(folders.root, truth))
    assert (some.num_photographs, some.num_unlabelled) == (4, 2)


KNOWN = KnownNetwork(
    name="own",
    title="a network",
    page="",
    preset="caffe",
    channels="RGB",
    licence="none",
    top1=57.1,
    top5=80.2,
    measured="one crop",
    arrays="",
    files=(),
)


@pytest.fixture
def of_four_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the fake runner's classes be ImageNet's, and the network be known."""
    monkeypatch.setattr(published, "known_networks", lambda: {"own": KNOWN})
    monkeypatch.setattr(published, "imagenet_names", lambda: dict(enumerate(SPEC.labels)))


OWN = dataclasses.replace(SPEC, provenance={"imported": {"network": "own"}})


@pytest.mark.usefixtures("of_four_classes")
def test_a_public_networks_published_figures_come_with_all_classes(folders: ClassFolders) -> None:
    runner, other = TableRunner(eighths(9), OWN), TableRunner(eighths(9))
    assert evaluate([runner], folders).published is None  # no green
    save_photograph(folders.root / "green" / "6.png", (6, 0, 0))
    every = find_class_folders(folders.root)
    found = evaluate([runner], every).published
    assert found is not None
    assert (found.network, found.measured) == ("own", "one crop")
    assert (found.top1, found.top5) == pytest.approx((0.571, 0.802))
    assert evaluate([runner, other], every).published is None
    # Folders that the model's labels do not name may be any four.
    unnamed = TableRunner(eighths(9), dataclasses.replace(OWN, labels=()))
    assert evaluate([unnamed], every).published is None
    (folders.root / "green" / "6.png").write_bytes(b"")
    assert evaluate([runner], every).published is None


@pytest.mark.usefixtures("of_four_classes")
@pytest.mark.parametrize(
    "provenance",
    [{}, {"imported": "own"}, *({"imported": {"network": name}} for name in (["own"], "x", None))],
)
def test_a_provenance_that_anybody_could_write_names_no_network(provenance: Any) -> None:
    assert published_accuracy(OWN) is not None
    assert published_accuracy(dataclasses.replace(SPEC, provenance=provenance)) is None
    other = preset_spec("caffe", num_classes=5)
    assert published_accuracy(dataclasses.replace(other, provenance=OWN.provenance)) is None


def test_weights_are_normalized() -> None:
    assert ensemble_weights(None, 4) == (0.25,) * 4
    assert ensemble_weights([3, 1], 2) == (0.75, 0.25)


@pytest.mark.parametrize(
    "weights", [[1.0], [1, 1, 1], [-1, 2], [0, 0], [math.nan, 1], [math.inf, 1], [1e308, 1e308]]
)
def test_weights_that_make_no_mean_are_refused(weights: list[float]) -> None:
    with pytest.raises(UsageError, match=r"^weights: got "):
        ensemble_weights(weights, 2)


def test_the_bundled_network_scores_what_a_count_of_its_predictions_gives(
    caltech_test: Path,
) -> None:
    everything = find_class_folders(caltech_test)
    some = everything.select(np.arange(0, len(everything), 25))
    paths = [some.path(index) for index in range(len(some))]
    ranks: list[int] = []
    with open_runner_of(None, OPTIONS) as runner:
        for result in classify(runner, paths, top=5):
            labels = [one.label for one in result.predictions]
            assert result.path is not None
            truth = result.path.parent.name
            ranks.append(labels.index(truth) if truth in labels else 5)
        found = evaluate([runner], some)
    assert found.top1 == pytest.approx(ranks.count(0) / len(some))
    assert found.top5 == pytest.approx(sum(rank < 5 for rank in ranks) / len(some))
    assert found.num_photographs == len(some) == 68
