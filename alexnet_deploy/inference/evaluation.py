"""Evaluate one model or an ensemble: top-1 and top-5 accuracy on photographs of known classes.

    photographs -> inference.run per model -> mean probabilities -> Predictions -> Evaluation
    the same photographs -> a model to compare -> Predictions -> PairedCounts ----/

N photographs, K classes of the model. Memory: one float32 array [N, K], 200 MB for ImageNet's
50,000 validation photographs; what is kept of it afterwards is 0.1 KB for each photograph.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import Argument, UsageError, VerificationError
from alexnet_deploy.inference.class_matching import ClassMatch, check_same_classes, match_classes
from alexnet_deploy.inference.confusion import confusion_matrix
from alexnet_deploy.inference.evaluation_report import (
    ClassAccuracy,
    Comparison,
    EvaluatedModel,
    Evaluation,
)
from alexnet_deploy.inference.failures import FailureLimit, check_failures
from alexnet_deploy.inference.predictions import Predictions
from alexnet_deploy.inference.published import published_accuracy
from alexnet_deploy.inference.run import RunSummary, run
from alexnet_deploy.inference.statistics import paired_counts
from alexnet_deploy.inference.ten_crop import NUM_CROPS, TenCropRunner
from alexnet_deploy.model.spec import ModelSpec
from alexnet_deploy.photographs.truth_files import Labelled
from alexnet_deploy.runtimes.base import Runner

_NUM_CONFUSIONS = 10  # in the report


def evaluate(
    runners: Sequence[Runner],
    photographs: Labelled,
    *,
    ten_crop: bool = False,
    weights: Sequence[float] | None = None,
    paths: Sequence[Path] | None = None,
    compare: Runner | None = None,
    compare_path: Path | None = None,
    threads: int | None = None,
    on_result: Callable[[Path, str | None], None] = lambda path, error: None,
    summary: RunSummary | None = None,
) -> Evaluation:
    """Classify photographs and compare with their classes.

    Several runners are an ensemble: their probabilities are averaged. Each has its own
    preprocessing, so the photographs are read once per runner, one runner after the other. A
    photograph that cannot be read is excluded for all, and not retried for the next runner.

    Args:
        runners: opened with the output `probabilities`; all with the same classes.
        photographs: their classes are matched with the model's outputs; see `class_matching`.
        ten_crop: average the paper's ten crops instead of taking the centre crop.
        weights: of each runner in the average, see `ensemble_weights`.
        paths: the runners' files, for the report and messages.
        compare: another, with the same classes, to be compared with the average.
        compare_path: its file.
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
    averaged = _members(runners, shares, paths)
    _check_members(averaged, "averaged")
    compared = None
    if compare is not None:
        (compared,) = _members([compare], [1.0], None if compare_path is None else [compare_path])
        _check_members([averaged[0], compared], "compared")
    spec = runners[0].spec
    work = _Work(
        photographs=photographs,
        match=match_classes(photographs, spec, averaged[0].name),
        spec=spec,
        ten_crop=ten_crop,
        threads=threads,
        on_result=on_result,
        summary=RunSummary() if summary is None else summary,
    )
    found = work.predictions(averaged)
    comparison = None if compared is None else work.comparison(found, compared)
    return work.evaluation(found, averaged, comparison)


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Member:
    """A runner, its share in an average, and what to call it."""

    runner: Runner
    share: float
    path: Path | None
    name: str

    def model(self) -> EvaluatedModel:
        return EvaluatedModel.of(self.runner, self.path, self.share)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Work:
    """What all models of an evaluation have in common.

    Attributes:
        spec: of the first model; all have its classes.
        match: which output each class is.
        failures: why a photograph could not be read, by its number, in the order encountered.
    """

    photographs: Labelled
    match: ClassMatch
    spec: ModelSpec
    ten_crop: bool
    threads: int | None
    on_result: Callable[[Path, str | None], None]
    summary: RunSummary
    failures: dict[int, str] = field(default_factory=dict)

    def predictions(self, members: Sequence[_Member]) -> Predictions:
        """Return what the mean of the members' probabilities says; [N, K] is freed again."""
        size = len(self.photographs), self.spec.num_classes
        probabilities = np.zeros(size, np.float32)
        for member in members:
            self._add(member, probabilities)
        return Predictions.from_probabilities(
            probabilities,
            self.match.indices[self.photographs.labels],
            photographs=self.photographs,
            labels=self._labels(),
            failures=self.failures,
        )

    def _add(self, member: _Member, mean: NDArray[np.float32]) -> None:
        """Add one member's probabilities, times its share, for all remaining photographs."""
        remaining = [index for index in range(len(mean)) if index not in self.failures]
        paths = map(self.photographs.path, remaining)
        runner = TenCropRunner(member.runner) if self.ten_crop else member.runner
        with closing(run(runner, paths, threads=self.threads, summary=self.summary)) as results:
            for index, result in zip(remaining, results, strict=True):
                if result.has_overflowed:
                    raise VerificationError(
                        f"{member.name}: {result.source}: {result.error}, so it is neither right "
                        "nor wrong; try ",
                        Argument("precision", "fp32"),
                        ", and look for the cause with: alexnet-deploy verify",
                    )
                if result.outputs is None:
                    self.failures[index] = result.error or ""
                else:
                    mean[index] += np.float32(member.share) * result.outputs["probabilities"]
                self.on_result(result.source, result.error)
        if len(self.failures) == len(mean):
            check_failures(len(mean), len(mean), FailureLimit())

    def comparison(self, first: Predictions, member: _Member) -> Comparison:
        """Compare with another model on the photographs that are left."""
        second = self.predictions([member])
        return Comparison(
            model=member.model(), counts=paired_counts(first, second), predictions=second
        )

    def evaluation(
        self, found: Predictions, members: Sequence[_Member], comparison: Comparison | None
    ) -> Evaluation:
        """Compare with the photographs' classes."""
        self.summary.num_done = len(self.photographs) - len(self.failures)
        self.summary.stop_clock()
        counted, classes = found.is_counted, self._classes(found)
        own = [one.top1 for one in classes if one.top1 is not None]
        photographs = self.photographs
        # Folders in sorted order may be anybody's classes.
        is_whole = len(own) == self.spec.num_classes and self.match.by != "order"
        return Evaluation(
            top1=float(found.top1[counted].mean()),
            top5=float(found.top5[counted].mean()),
            mean_class_top1=math.fsum(own) / len(own),
            num_photographs=int(counted.sum()),
            failures=tuple((photographs.path(n), error) for n, error in self.failures.items()),
            num_unlabelled=photographs.num_unlabelled,
            left_out=self.summary.left_out.counts,
            num_crops=NUM_CROPS if self.ten_crop else 1,
            matched_by=self.match.by,
            models=tuple(member.model() for member in members),
            classes=classes,
            published=published_accuracy(self.spec) if is_whole and len(members) == 1 else None,
            confusions=confusion_matrix(found).worst(_NUM_CONFUSIONS),
            comparison=comparison,
            predictions=found,
            seconds=self.summary.wall_s,
        )

    def _labels(self) -> tuple[str, ...]:
        """Return the names of the outputs: the model's, or the classes' own where it has none."""
        labels = [self.spec.label(index) for index in range(self.spec.num_classes)]
        if not self.spec.labels:
            own = zip(self.match.indices.tolist(), self.photographs.classes, strict=True)
            for index, name in own:
                labels[index] = name
        return tuple(labels)

    def _classes(self, found: Predictions) -> tuple[ClassAccuracy, ...]:
        """Average the credits by class; one without readable photographs has no accuracy."""
        counted, size = found.is_counted, len(self.match.indices)
        numbers = self.photographs.labels[counted]
        counts = np.bincount(numbers, minlength=size).tolist()
        sums1 = np.bincount(numbers, weights=found.top1[counted], minlength=size).tolist()
        sums5 = np.bincount(numbers, weights=found.top5[counted], minlength=size).tolist()
        return tuple(
            ClassAccuracy(
                label=found.labels[index],
                index=index,
                num_photographs=counts[number],
                top1=sums1[number] / counts[number] if counts[number] else None,
                top5=sums5[number] / counts[number] if counts[number] else None,
            )
            for number, index in enumerate(self.match.indices.tolist())
        )


def _members(
    runners: Sequence[Runner], shares: Sequence[float], paths: Sequence[Path] | None
) -> list[_Member]:
    files = [None] * len(runners) if paths is None else paths
    return [
        _Member(
            runner=runner,
            share=share,
            path=path,
            name=f"model {number} ({runner.identity[:16]})" if path is None else str(path),
        )
        for number, (runner, share, path) in enumerate(
            zip(runners, shares, files, strict=True), start=1
        )
    ]


def _check_members(members: Sequence[_Member], purpose: str) -> None:
    """Reject runners without probabilities, or with other classes than the first's."""
    first = members[0]
    for member in members:
        outputs = member.runner.options.outputs
        if "probabilities" not in outputs:
            raise UsageError(
                f"{member.name}: its runner returns {', '.join(outputs)}; open it with "
                "the output 'probabilities' to evaluate"
            )
        check_same_classes(
            first.runner.spec, member.runner.spec, first.name, member.name, purpose=purpose
        )
