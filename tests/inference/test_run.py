"""One result per photograph through a fake runner, the account of a run, and the limit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from alexnet_deploy.errors import (
    NoPhotographsError,
    PhotographError,
    TooManyFailuresError,
    UsageError,
)
from alexnet_deploy.inference.failures import FailureLimit, at_least_one, check_failures
from alexnet_deploy.inference.run import RunSummary, run
from alexnet_deploy.model.spec import PRESETS
from alexnet_deploy.photographs import pipeline
from alexnet_deploy.photographs.finding import find_photographs
from alexnet_deploy.runtimes.base import RunnerOptions, check_images


class MeanRunner:
    """A runner whose one output is the mean colour of each image."""

    def __init__(self, batch_size: int) -> None:
        self.spec = PRESETS["torchvision"]
        self.identity = "0123456789abcdef"
        self.options = RunnerOptions(batch_size=batch_size, outputs=("mean",))
        self.description = "mean colour"
        self.num_runs = 0

    def run(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        check_images(images, self.spec, self.options.batch_size)
        self.num_runs += 1
        return {"mean": images.mean(axis=(1, 2), dtype=np.float64).astype(np.float32)}

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...


def load_by_name(path: Path, *_: object) -> Image.Image:
    kind, number = path.name.split("-")
    if kind == "bad":
        raise PhotographError(f"reason {number}")
    return Image.new("RGB", (8, 8), (int(number), 2, 3))


@settings(max_examples=40)
@given(
    failures=st.lists(st.booleans(), min_size=1, max_size=40),
    batch_size=st.integers(1, 7),
    threads=st.integers(1, 4),
)
def test_each_photograph_gets_its_own_result_in_order(
    failures: list[bool], batch_size: int, threads: int
) -> None:
    paths = [Path(f"{'bad' if bad else 'good'}-{n}") for n, bad in enumerate(failures)]
    runner, summary = MeanRunner(batch_size), RunSummary()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "load_image", load_by_name)
        results = list(run(runner, iter(paths), threads=threads, summary=summary))
    assert [result.source for result in results] == paths
    for number, (bad, result) in enumerate(zip(failures, results, strict=True)):
        if bad:
            assert (result.outputs, result.error) == (None, f"reason {number}")
        else:
            assert result.error is None
            assert result.outputs is not None
            assert result.outputs["mean"].tolist() == [number, 2, 3]
            assert result.outputs["mean"].base is None  # does not keep the batch alive
    assert (summary.num_failed, summary.num_done) == (sum(failures), failures.count(False))
    assert summary.threads == threads


def test_a_batch_of_failures_does_not_run_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "load_image", load_by_name)
    runner = MeanRunner(4)
    assert len(list(run(runner, [Path("bad-1")] * 100, threads=2))) == 100
    assert runner.num_runs == 0


def test_files_go_through_with_their_reasons(tmp_path: Path) -> None:
    Image.new("RGB", (50, 40), (10, 20, 30)).save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_text("<!DOCTYPE html>")
    Image.new("L", (1, 1), 99).save(tmp_path / "c.png")
    results = list(run(MeanRunner(2), find_photographs([tmp_path])))
    assert [result.source.name for result in results] == ["a.png", "b.jpg", "c.png"]
    first, second, third = results
    assert first.outputs is not None
    assert third.outputs is not None
    assert first.outputs["mean"].tolist() == [10, 20, 30]
    assert third.outputs["mean"].tolist() == [99, 99, 99]
    assert second.error == "not an image: it begins with '<!DOCTYPE html>'"


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_photograph_with_which_the_network_overflows_has_failed(
    number: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OverflowingRunner(MeanRunner):
        def run(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
            means = super().run(images)["mean"].copy()
            means[means[:, 0] == 7, 1] = number
            return {"mean": means}

    monkeypatch.setattr(pipeline, "load_image", load_by_name)
    summary = RunSummary()
    paths = [Path("good-6"), Path("good-7"), Path("bad-8"), Path("good-9")]
    results = list(run(OverflowingRunner(4), paths, summary=summary))
    assert [result.outputs is None for result in results] == [False, True, True, False]
    assert [result.has_overflowed for result in results] == [False, True, False, False]
    assert results[1].error == (
        "its mean activations are not finite numbers: the network overflows in auto"
    )
    assert (summary.num_done, summary.num_failed) == (2, 2)


def test_no_photographs_give_no_results_or_where_one_is_needed_an_error(tmp_path: Path) -> None:
    assert list(run(MeanRunner(2), find_photographs([tmp_path]))) == []
    with pytest.raises(NoPhotographsError, match=r"\.jpg .*\.tiff .*camera raw"):
        list(run(MeanRunner(2), at_least_one(find_photographs([tmp_path]))))


def test_a_wrong_number_of_threads_fails_at_the_call() -> None:
    with pytest.raises(UsageError, match="threads is 0"):
        run(MeanRunner(2), [], threads=0)


def test_the_last_line_says_how_many_and_where_the_time_went() -> None:
    summary = RunSummary(
        num_done=1692, num_failed=3, threads=2, wall_s=8.1, decode_s=6.2, waiting_s=0.4
    )
    summary.infer_s = summary.infer_waiting_s = 7.4
    assert summary.line() == (
        "1,692 done, 3 failed in 8.1 s (209 images/s): decode 6.2 s on 2 threads, of which 0.4 s "
        "waited for, inference 7.4 s, the rest 0.3 s"
    )
    summary.infer_waiting_s = 7.1
    assert "inference 7.4 s, of which 7.1 s waited for, the rest 0.6 s" in summary.line()


@pytest.mark.parametrize(
    ("text", "num_failed", "num_total", "allowed"),
    [
        ("1%", 1, 100, True),
        ("1%", 2, 100, False),
        ("1 %", 1, 99, False),
        ("0.5%", 1, 200, True),
        ("0", 0, 5, True),
        ("0", 1, 5, False),
        ("10", 10, 11, True),
        ("10", 11, 5000, False),
        ("100%", 4, 5, True),
    ],
)
def test_the_limit_is_a_count_or_a_percentage(
    text: str, num_failed: int, num_total: int, allowed: bool
) -> None:
    limit = FailureLimit.parse(text)
    if num_failed >= num_total or not allowed:
        with pytest.raises(TooManyFailuresError, match="max_failures"):
            check_failures(num_failed, num_total, limit)
    else:
        check_failures(num_failed, num_total, limit)


def test_the_default_limit_is_one_per_cent() -> None:
    assert FailureLimit() == FailureLimit.parse("1%")


@pytest.mark.parametrize("text", ["", "%", "-1", "101%", "nan%", "1.5", "many", "inf%", "1e3"])
def test_other_limits_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="max_failures"):
        FailureLimit.parse(text)


def test_nothing_but_failures_is_always_too_many() -> None:
    with pytest.raises(TooManyFailuresError, match="no result"):
        check_failures(3, 3, FailureLimit.parse("100%"))
