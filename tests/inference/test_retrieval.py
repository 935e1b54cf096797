"""Retrieval of photographs: what is ranked, what is fitted on what, failures, the report."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from alexnet_deploy.errors import DatasetError, TooManyFailuresError, UsageError
from alexnet_deploy.inference.retrieval import evaluate_retrieval
from alexnet_deploy.inference.retrieval_figures import Distances
from alexnet_deploy.inference.retrieval_forms import EXACT_FORMS, FittedForm, Form, l2_distances
from alexnet_deploy.inference.retrieval_report import Retrieval
from alexnet_deploy.inference.run import RunSummary
from alexnet_deploy.photographs.class_folders import ClassFolders, find_class_folders
from alexnet_deploy.runtimes.base import RunnerOptions
from tests.support.fake_runner import SPEC, FakeRunner
from tests.support.plain_retrieval import plain_figures

NUM_CLASSES, NUM_EACH = 5, 4


@pytest.fixture
def folders(tmp_path: Path) -> ClassFolders:
    """Five classes of four photographs of noise, 300 x 280 px."""
    random = np.random.default_rng(3)
    for number in range(NUM_CLASSES * NUM_EACH):
        folder = tmp_path / f"class {number // NUM_EACH}"
        folder.mkdir(exist_ok=True)
        pixels = random.integers(256, size=(280, 300, 3), dtype=np.uint8)
        pixels[:, :, 0] = 10 * number  # what the fake network sees
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return find_class_folders(tmp_path)


def runner(*layers: str) -> FakeRunner:
    return FakeRunner(RunnerOptions(outputs=layers, batch_size=3))


def figures(found: Retrieval) -> dict[tuple[str, str, str], NDArray[np.float64]]:
    return {(one.vectors, one.form, one.among): one.figures for one in found.forms}


def test_pixels_and_layers_rank_as_they_do_when_written_out(folders: ClassFolders) -> None:
    found = evaluate_retrieval(
        runner("conv5", "fc7"), folders, EXACT_FORMS, layers=("conv5", "fc7"), threads=2
    )
    labels = folders.labels.tolist()
    pictures = [Image.open(folders.path(n)) for n in range(len(folders))]
    small = [one.resize((274, 256), Image.Resampling.BICUBIC) for one in pictures]
    pixels = [np.asarray(one.crop((9, 0, 265, 256))).astype(np.int64) for one in small]
    apart = np.array([[((a - b) ** 2).sum() for b in pixels] for a in pixels], np.float64)
    reds = 10.0 * np.arange(len(folders))
    expected = {
        ("pixels", "L2", "all"): plain_figures(apart, labels),
        ("fc7", "L2", "all"): plain_figures(np.abs(reds[:, np.newaxis] - reds), labels),
    }
    of = figures(found)
    for form, rows in expected.items():
        np.testing.assert_allclose(of[form], rows, rtol=1e-9)
    np.testing.assert_array_equal(of["conv5", "L2", "all"], of["fc7", "L2", "all"])
    # All point the same way, but for the first, which is all zeros: chance.
    by_cosine = of["fc7", "cosine", "all"]
    np.testing.assert_allclose(by_cosine[1:, 1], np.where(np.arange(1, 20) < 4, 2, 3) / 18)
    sizes = [one.num_bytes for one in found.forms if one.among == "all"]
    assert sizes == [196608, *[2 * 43264] * 2, *[2 * 4096] * 2]


def test_among_unseen_classes_each_half_is_ranked_by_itself(folders: ClassFolders) -> None:
    found = figures(evaluate_retrieval(runner("fc7"), folders, EXACT_FORMS))
    for half in (0, 1):
        own = np.flatnonzero(folders.labels % 2 == half)
        alone = figures(evaluate_retrieval(runner("fc7"), folders.select(own), EXACT_FORMS))
        for vectors, form, among in alone:
            if among == "all":
                expected = alone[vectors, form, among]
                np.testing.assert_array_equal(found[vectors, form, "unseen"][own], expected)


def test_a_form_is_fitted_on_all_or_on_classes_that_it_is_not_judged_on(
    folders: ClassFolders,
) -> None:
    said: list[tuple[set[int], set[int]]] = []

    def classes(vectors: NDArray[np.float16]) -> set[int]:
        return {int(red) // (10 * NUM_EACH) for red in vectors[:, 0]}

    def fit(sample: NDArray[np.float16]) -> FittedForm:
        def ranked(vectors: NDArray[np.float16]) -> Distances:
            said.append((classes(sample), classes(vectors)))
            return l2_distances(vectors)

        return ranked

    spied = Form(name="spied", num_bytes=lambda d: 3, rank=2, fit=fit)
    found = figures(evaluate_retrieval(runner("fc7"), folders, [EXACT_FORMS[1], spied]))
    every = set(range(NUM_CLASSES))
    assert said == [(every, every), ({1, 3}, {0, 2, 4}), ({0, 2, 4}, {1, 3})]
    for among in ("all", "unseen"):
        np.testing.assert_array_equal(found["fc7", "spied", among], found["fc7", "L2", among])


def test_forms_that_the_photographs_are_too_few_for_are_named(folders: ClassFolders) -> None:
    forms = [
        Form(name=f"rank {rank}", num_bytes=lambda d: 1, rank=rank, fit=lambda _: l2_distances)
        for rank in (7, 8)  # the smaller half has 8
    ]
    found = evaluate_retrieval(runner("fc7"), folders, forms)
    assert found.not_judged == ("rank 8 of fc7",)
    assert "not judged                rank 8 of fc7: too few " in found.table()
    assert [one.form for one in found.forms] == ["L2", "L2", "rank 7", "rank 7"]
    few = folders.select(np.arange(3 * NUM_EACH))
    found = evaluate_retrieval(runner("fc7"), few, forms)
    assert found.not_judged == ("unseen classes",)
    assert [(one.form, one.among) for one in found.forms] == [
        *(("L2", "all"), ("rank 7", "all"), ("rank 8", "all"))
    ]


def test_failures_are_in_nobodys_ranking(folders: ClassFolders) -> None:
    whole = evaluate_retrieval(runner("fc7"), folders, EXACT_FORMS)
    for number in (2, 8, 19):
        folders.path(number).write_bytes(b"no photograph")
    said: list[tuple[Path, bool]] = []
    summary = RunSummary()
    found = evaluate_retrieval(
        runner("fc7"),
        folders,
        EXACT_FORMS,
        on_result=lambda path, error: said.append((path, error is None)),
        summary=summary,
    )
    assert [path for path, _ in found.failures] == [folders.path(n) for n in (2, 8, 19)]
    assert [is_read for _, is_read in said].count(True) == 17 == summary.num_done
    assert summary.num_failed == 3
    some = folders.select(np.flatnonzero([n not in (2, 8, 19) for n in range(20)]))
    again = evaluate_retrieval(runner("fc7"), some, EXACT_FORMS)
    for one, other, before in zip(found.forms, again.forms, whole.forms, strict=True):
        np.testing.assert_array_equal(one.figures, other.figures)
        assert len(before.figures) == 20


def test_numbers_beyond_float16_are_a_failure(folders: ClassFolders) -> None:
    class Large(FakeRunner):
        def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
            return {name: rows * 400 for name, rows in super().run(images).items()}

    found = evaluate_retrieval(Large(RunnerOptions(outputs=("fc7",))), folders, EXACT_FORMS)
    assert [error for _, error in found.failures] == [
        f"its fc7 activations reach {red * 400:.3g}, float16 holds up to 65504"
        for red in (170, 180, 190)
    ]


def test_what_cannot_be_judged_is_refused(folders: ClassFolders) -> None:
    with pytest.raises(UsageError, match="open it with 'fc6'"):
        evaluate_retrieval(runner("fc7"), folders, EXACT_FORMS, layers=("fc6",))
    one_class = folders.select(np.arange(NUM_EACH))
    all_alone = folders.select(np.arange(0, 20, NUM_EACH))
    for some, came in ((one_class, "got 4 of 1"), (all_alone, "got 5 of 5")):
        with pytest.raises(DatasetError, match=came):
            evaluate_retrieval(runner("fc7"), some, EXACT_FORMS)
    for number in range(1, 20):
        folders.path(number).write_bytes(b"")
    with pytest.raises(DatasetError, match="got 1 of 1"):
        evaluate_retrieval(runner("fc7"), folders, EXACT_FORMS)
    folders.path(0).write_bytes(b"")
    with pytest.raises(TooManyFailuresError, match="20 of 20"):
        evaluate_retrieval(runner("fc7"), folders, EXACT_FORMS)


def test_the_report_has_means_over_queries_and_over_classes(folders: ClassFolders) -> None:
    some = folders.select(np.array([0, 1, 2, 3, 4, 5, 8]))  # the class of the last has one
    found = evaluate_retrieval(runner("fc7"), some, EXACT_FORMS[1:], path=Path("m.onnx"))
    rows = figures(found)["fc7", "L2", "all"]
    report = json.loads(found.to_json())
    assert (report["photographs"], report["queries"]) == (7, 6)
    assert [one["photographs"] for one in report["classes"]] == [4, 2, 1, 0, 0]
    of = report["forms"][1]
    first, second = rows[:4].mean(axis=0), rows[4:6].mean(axis=0)
    assert of["map"] == pytest.approx(rows[:6, 0].mean())
    assert of["mean_class_map"] == pytest.approx((first[0] + second[0]) / 2)
    for column, name in enumerate(of["by_class"]):
        expected = [first[column], second[column]]
        assert of["by_class"][name][:2] == pytest.approx(expected, abs=1e-4)
        assert of["by_class"][name][2:] == [None] * 3
    lines = found.table(per_class=True).splitlines()
    assert lines[0] == "queries                   6 in 3 classes, each against 6 others"
    assert lines[2] == "model                     m.onnx (0123456789abcdef)"
    assert lines[-6].split() == ["class", "photographs", "mAP", "1", "mAP", "2"]
    assert lines[-3].split() == ["class", "2", "1", "-", "-"]


def test_the_pixels_are_the_papers_whatever_the_network_sees(folders: ClassFolders) -> None:
    other = dataclasses.replace(SPEC, input_size=100)
    ours = evaluate_retrieval(runner("fc7"), folders, ())
    its = evaluate_retrieval(FakeRunner(RunnerOptions(outputs=("fc7",)), other), folders, ())
    np.testing.assert_array_equal(ours.forms[0].figures, its.forms[0].figures)
