"""Evaluate one model or an ensemble: top-1 and top-5 accuracy on photographs of known classes.

    photographs -> inference.run per model -> mean probabilities -> top_k_credit -> Evaluation

N photographs, K classes of the model. Memory: one float32 array [N, K], 200 MB for ImageNet's
50,000 validation photographs, and at the end a quarter of that for comparisons.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import Argument, UsageError, VerificationError
from alexnet_deploy.inference.class_matching import ClassMatch, check_same_classes, match_classes
from alexnet_deploy.inference.evaluation_report import ClassAccuracy, EvaluatedModel, Evaluation
from alexnet_deploy.inference.failures import FailureLimit, check_failures
from alexnet_deploy.inference.published import published_accuracy
from alexnet_deploy.inference.run import RunSummary, run
from alexnet_deploy.inference.ten_crop import NUM_CROPS, TenCropRunner
from alexnet_deploy.model.spec import ModelSpec
from alexnet_deploy.photographs.truth_files import Labelled, LabelledFiles
from alexnet_deploy.runtimes.base import Runner


def top_k_credit(
    scores: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], k: int
) -> NDArray[np.float64]:
    """Return each photograph's contribution to the top-k accuracy, ties counted fractionally.

    With `g` classes above the true one and `e` equal to it, itself included, the credit is the
    probability that it is among the first k if ties are ordered at random: (k - g) / e, clipped to
    0..1. The 2012 code does the same; a network with equal outputs then scores k / K, not 1. If
    K <= k, everything is correct.

    Args:
        scores: [N, K] probabilities or logits; a row with a NaN scores 0.
        labels: [N] true classes, 0 .. K - 1.
        k: 1 or more.

    Returns:
        [N] float64, 0..1.

    Raises:
        UsageError: k is below 1, or a label is out of range.
    """
    num_classes = scores.shape[1]
    if k < 1:
        raise UsageError(f"k: got {k}, expected 1 or more")
    if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
        raise UsageError(
            f"labels: got {labels.min()} .. {labels.max()}, expected 0 .. {num_classes - 1}"
        )
    true = np.take_along_axis(scores, labels[:, np.newaxis], axis=1)
    num_above = np.count_nonzero(scores > true, axis=1)
    num_equal = np.count_nonzero(scores == true, axis=1)  # 0 beside a NaN
    credit: NDArray[np.float64] = np.clip((k - num_above) / np.maximum(num_equal, 1), 0.0, 1.0)
    credit[np.isnan(scores).any(axis=1)] = 0.0
    return credit


def evaluate(
    runners: Sequence[Runner],
    photographs: Labelled,
    *,
    ten_crop: bool = False,
    weights: Sequence[float] | None = None,
    paths: Sequence[Path] | None = None,
    threads: int | None = None,
    on_result: Callable[[Path, str | None], None] = lambda path, error: None,
    summary: RunSummary | None = None,
) -> Evaluation:
    """Classify photographs and compare with their classes.

    Several runners are an ensemble: their probabilities are averaged. Each has its own
    preprocessing, so the photographs are read once per runner, one runner after the other. A
    photograph that cannot be read is excluded, and not retried for the next runner.

    Args:
        runners: opened with the output `probabilities`; all with the same classes.
        photographs: their classes are matched with the model's outputs; see `class_matching`.
        ten_crop: average the paper's ten crops instead of taking the centre crop.
        weights: of each runner in the average, see `ensemble_weights`.
        paths: the runners' files, for the report and messages.
        threads: decode threads; None for one per core.
        on_result: called for each photograph and runner, with path and reason of failure or None.
        summary: counts and times; each photograph is counted once.

    Raises:
        UsageError: no runner, one without `probabilities`, wrong weights or threads.
        DatasetError: a class is not one of the model.
        IncompatibleFileError: the runners have different classes.
        TooManyFailuresError: no photograph could be read.
        VerificationError: a network's probabilities are not finite.
    """
    shares = ensemble_weights(weights, len(runners))
    names = _names(runners, paths)
    _check_runners(runners, names)
    match = match_classes(photographs, runners[0].spec, names[0])
    summary = RunSummary() if summary is None else summary
    average = _Average(photographs, runners[0].spec, on_result)
    for runner, share, name in zip(runners, shares, names, strict=True):
        viewer = TenCropRunner(runner) if ten_crop else runner
        average.add(viewer, share, name=name, threads=threads, summary=summary)
    summary.num_done = len(photographs) - len(average.failures)
    summary.stop_clock()
    return average.evaluation(
        match,
        num_crops=NUM_CROPS if ten_crop else 1,
        models=tuple(
            _model(runner, share, None if paths is None else paths[number])
            for number, (runner, share) in enumerate(zip(runners, shares, strict=True))
        ),
        left_out=summary.left_out.counts,
        seconds=summary.wall_s,
    )


def ensemble_weights(weights: Sequence[float] | None, num_models: int) -> tuple[float, ...]:
    """Return each model's share in the average: the normalized weights, equal for None.

    Raises:
        UsageError: no model, a wrong number of weights, a negative one, or all zeros.
    """
    if num_models < 1:
        raise UsageError("models: got none, expected one or more to evaluate")
    given = [1.0] * num_models if weights is None else list(weights)
    if len(given) != num_models:
        raise UsageError(
            Argument("weights"),
            f": got {len(given)} for {num_models} models; give one for each, in the same order, "
            "or none",
        )
    total = sum(given)
    if not (all(weight >= 0 for weight in given) and 0 < total < math.inf):
        raise UsageError(
            Argument("weights"),
            f": got {', '.join(f'{weight:g}' for weight in given)}; expected numbers of "
            "0 or more with a sum above 0",
        )
    return tuple(weight / total for weight in given)


class _Average:
    """The mean probabilities of every photograph, accumulated runner by runner.

    Attributes:
        probabilities: [N, K] float32; zeros, or a partial mean, for those that failed.
        has_failed: [N] bool.
        failures: path and reason, in the order encountered.
    """

    def __init__(
        self,
        photographs: Labelled,
        spec: ModelSpec,
        on_result: Callable[[Path, str | None], None],
    ) -> None:
        self._photographs = photographs
        self._spec = spec
        self._on_result = on_result
        self.probabilities = np.zeros((len(photographs), spec.num_classes), np.float32)
        self.has_failed = np.zeros(len(photographs), np.bool_)
        self.failures: list[tuple[Path, str]] = []

    def add(
        self,
        runner: Runner,
        share: float,
        *,
        name: str,
        threads: int | None,
        summary: RunSummary,
    ) -> None:
        """Add one runner's probabilities, times `share`, for all remaining photographs."""
        indices = np.flatnonzero(~self.has_failed)
        found = (self._photographs.path(int(index)) for index in indices)
        with closing(run(runner, found, threads=threads, summary=summary)) as results:
            for index, result in zip(indices, results, strict=True):
                if result.has_overflowed:
                    raise VerificationError(
                        f"{name}: {result.source}: {result.error}, so it is neither right nor "
                        "wrong; try ",
                        Argument("precision", "fp32"),
                        ", and look for the cause with: alexnet-deploy verify",
                    )
                if result.outputs is None:
                    self.has_failed[index] = True
                    self.failures.append((result.source, result.error or ""))
                else:
                    own = result.outputs["probabilities"]
                    self.probabilities[index] += np.float32(share) * own
                self._on_result(result.source, result.error)
        if self.has_failed.all():
            check_failures(len(self.failures), len(self.failures), FailureLimit())

    def evaluation(
        self,
        match: ClassMatch,
        *,
        num_crops: int,
        models: tuple[EvaluatedModel, ...],
        left_out: Mapping[str, int],
        seconds: float,
    ) -> Evaluation:
        """Compare with the photographs' classes."""
        truth, counted = match.indices[self._photographs.labels], ~self.has_failed
        top1, top5 = (top_k_credit(self.probabilities, truth, k) for k in (1, 5))
        classes = self._classes(match.indices, counted, top1, top5)
        own = [one.top1 for one in classes if one.top1 is not None]
        photographs = self._photographs
        # Folders in sorted order may be anybody's classes.
        is_whole = len(own) == self._spec.num_classes and match.by != "order"
        return Evaluation(
            top1=float(top1[counted].mean()),
            top5=float(top5[counted].mean()),
            mean_class_top1=math.fsum(own) / len(own),
            num_photographs=int(counted.sum()),
            failures=tuple(self.failures),
            num_unlabelled=(
                photographs.num_unlabelled if isinstance(photographs, LabelledFiles) else 0
            ),
            left_out=left_out,
            num_crops=num_crops,
            matched_by=match.by,
            models=models,
            classes=classes,
            published=published_accuracy(self._spec) if is_whole and len(models) == 1 else None,
            seconds=seconds,
        )

    def _classes(
        self,
        indices: NDArray[np.int64],
        counted: NDArray[np.bool_],
        top1: NDArray[np.float64],
        top5: NDArray[np.float64],
    ) -> tuple[ClassAccuracy, ...]:
        """Average the credits by class; one without readable photographs has no accuracy."""
        numbers = self._photographs.labels[counted]
        size = len(indices)
        counts = np.bincount(numbers, minlength=size).tolist()
        sums1 = np.bincount(numbers, weights=top1[counted], minlength=size).tolist()
        sums5 = np.bincount(numbers, weights=top5[counted], minlength=size).tolist()
        return tuple(
            ClassAccuracy(
                label=self._spec.labels[index] if self._spec.labels else name,
                index=index,
                num_photographs=counts[number],
                top1=sums1[number] / counts[number] if counts[number] else None,
                top5=sums5[number] / counts[number] if counts[number] else None,
            )
            for number, (name, index) in enumerate(
                zip(self._photographs.classes, indices.tolist(), strict=True)
            )
        )


def _names(runners: Sequence[Runner], paths: Sequence[Path] | None) -> list[str]:
    if paths is not None:
        return [str(path) for path in paths]
    return [
        f"model {number} ({runner.identity[:16]})" for number, runner in enumerate(runners, start=1)
    ]


def _model(runner: Runner, share: float, path: Path | None) -> EvaluatedModel:
    return EvaluatedModel(
        path=path,
        identity=runner.identity,
        runtime=runner.options.runtime,
        precision=runner.options.precision,
        weight=share,
        input_size=runner.spec.input_size,
        preprocessing=runner.spec.preprocessing,
    )


def _check_runners(runners: Sequence[Runner], names: Sequence[str]) -> None:
    """Reject runners without probabilities, or with other classes than the first's."""
    for runner, name in zip(runners, names, strict=True):
        if "probabilities" not in runner.options.outputs:
            raise UsageError(
                f"{name}: its runner returns {', '.join(runner.options.outputs)}; open it with "
                "the output 'probabilities' to evaluate"
            )
        check_same_classes(runners[0].spec, runner.spec, names[0], name)
