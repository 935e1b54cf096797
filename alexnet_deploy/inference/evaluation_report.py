"""An evaluation report: a table for people, JSON for scripts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from alexnet_deploy.files.path_text import path_fields, printable
from alexnet_deploy.files.records import plain_fields
from alexnet_deploy.inference.class_matching import MatchedBy
from alexnet_deploy.inference.confusion import Confusion
from alexnet_deploy.inference.predictions import Predictions
from alexnet_deploy.inference.published import PublishedAccuracy
from alexnet_deploy.inference.statistics import PairedCounts, wilson_interval
from alexnet_deploy.model.spec import Preprocessing
from alexnet_deploy.photographs.pixels import EXACT
from alexnet_deploy.runtimes.base import Runner

_MATCHED_BY = {
    "order": "folders in sorted order: the model has no labels",
    "wnid": "ImageNet's, by their WordNet ids",
    "number": "numbers of the model's outputs, from 0",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassAccuracy:
    """The accuracy of one class.

    Attributes:
        label: the model's, or the class's own where the model has none.
        index: of the model's output.
        num_photographs: readable photographs.
        top1: 0..1, or None without photographs.
        top5: see top1.
    """

    label: str
    index: int
    num_photographs: int
    top1: float | None
    top5: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatedModel:
    """One model of an evaluation, and what ran it.

    Attributes:
        path: its file, or None if not given.
        identity: of its checkpoint.
        runtime: library that ran it.
        precision: arithmetic of the network.
        weight: its share in the average, 0..1.
        input_size: side of each view, px.
        preprocessing: how photographs were resized before.
    """

    path: Path | None
    identity: str
    runtime: str
    precision: str
    weight: float
    input_size: int
    preprocessing: Preprocessing

    @classmethod
    def of(cls, runner: Runner, path: Path | None, weight: float = 1.0) -> Self:
        """Describe what a runner runs."""
        return cls(
            path=path,
            identity=runner.identity,
            runtime=runner.options.runtime,
            precision=runner.options.precision,
            weight=weight,
            input_size=runner.spec.input_size,
            preprocessing=runner.spec.preprocessing,
        )

    def describe(self) -> str:
        """Return its name, identity and share in one line."""
        name = self.path.name if self.path is not None else "model"
        share = "" if self.weight == 1 else f", weight {self.weight:.3f}"
        return f"{printable(name)} ({self.identity[:16]}{share})"

    def describe_views(self, num_photographs: int, num_crops: int = 1) -> str:
        """Say in one line how it saw how many photographs."""
        how = self.preprocessing
        crops = "centre crop" if num_crops == 1 else f"mean of {num_crops} crops"
        side = f"{how.resize_to} px"
        resized = f"shorter side {side}" if how.resize == "shorter_side" else f"squashed to {side}"
        return (
            f"{crops} of {self.input_size} px, {resized}, {how.filter}; {num_photographs:,} "
            f"photographs; {self.runtime} {self.precision}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A second model on the same photographs.

    Attributes:
        model: the second.
        counts: of photographs that one or both have right.
        predictions: of the second.
    """

    model: EvaluatedModel
    counts: PairedCounts
    predictions: Predictions = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Accuracy of one model, or of several averaged, on photographs whose classes are known.

    Attributes:
        top1: share of photographs whose class is the most likely one, 0..1; ties count
            fractionally.
        top5: share whose class is among the five most likely; 1.0 with five classes or fewer.
        mean_class_top1: unweighted mean of the classes' top-1; classes without a readable
            photograph are skipped.
        num_photographs: number evaluated, without failures.
        failures: photographs that could not be read, with the reason.
        num_unlabelled: photographs of the folder that the file with the classes does not name.
        left_out: photographs of the folder that were not tried, by suffix; see `finding`.
        num_crops: views per photograph, 1 (centre) or 10.
        matched_by: how classes were matched with outputs; see `class_matching.ClassMatch`.
        models: in the order given.
        classes: in the order of the folders, or sorted.
        published: what its publisher measured, if it is one public network on all its classes.
        confusions: the ten pairs of classes that are confused most, most first.
        comparison: with a second model, or None.
        predictions: from which all this is counted.
        seconds: since the start of the command, or of the given summary.
    """

    top1: float
    top5: float
    mean_class_top1: float
    num_photographs: int
    failures: tuple[tuple[Path, str], ...]
    num_unlabelled: int
    left_out: Mapping[str, int]
    num_crops: int
    matched_by: MatchedBy
    models: tuple[EvaluatedModel, ...]
    classes: tuple[ClassAccuracy, ...]
    published: PublishedAccuracy | None
    confusions: tuple[Confusion, ...]
    comparison: Comparison | None
    predictions: Predictions = field(repr=False, compare=False)
    seconds: float

    @property
    def top1_interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of `top1`."""
        return wilson_interval(self.top1, self.num_photographs)

    @property
    def top5_interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of `top5`."""
        return wilson_interval(self.top5, self.num_photographs)

    def to_json(self) -> str:
        """Return one ASCII JSON object on one line.

        Accuracies are 0..1, or null for a class without photographs; intervals are [low, high], of
        95 % confidence. The keys are in the table of the package's page.
        """
        fields: dict[str, Any] = {
            "top1": self.top1,
            "top1_interval": self.top1_interval,
            "top5": self.top5,
            "top5_interval": self.top5_interval,
            "mean_class_top1": self.mean_class_top1,
            "photographs": self.num_photographs,
            "failures": [path_fields(path) | {"error": error} for path, error in self.failures],
            "unlabelled": self.num_unlabelled,
            "left_out": dict(self.left_out),
            "decode": plain_fields(EXACT),
            "crops": self.num_crops,
            "matched_by": self.matched_by,
            "models": [model_fields(model) for model in self.models],
            "classes": [_class_fields(one) for one in self.classes],
            "published": self._published_fields(),
            "confusions": [_confusion_fields(one) for one in self.confusions],
            "comparison": None if self.comparison is None else _comparison_fields(self.comparison),
            "seconds": round(self.seconds, 3),
        }
        return json.dumps(fields)

    def table(self, *, per_class: bool = False) -> str:
        """Return the figures as aligned text; `per_class` adds a line for each class."""
        counts = f"{self.num_photographs:,} in {len(self.classes):,} classes"
        if self.failures:
            counts += f", {len(self.failures):,} more failed"
        if self.num_unlabelled:
            counts += f"; {self.num_unlabelled:,} in the folder without a class"
        rows = [
            ("top-1", f"{_percent(self.top1)} ({_interval(self.top1_interval)})"),
            ("top-5", f"{_percent(self.top5)} ({_interval(self.top5_interval)})"),
            ("top-1, mean over classes", _percent(self.mean_class_top1)),
            ("photographs", counts),
            ("decoded by", str(EXACT)),
        ]
        if self.matched_by in _MATCHED_BY:
            rows.append(("classes", _MATCHED_BY[self.matched_by]))
        for model in self.models:
            rows += [("model", model.describe()), ("measured", self._views(model))]
        if self.published is not None:
            rows.append(("published", self._published_line(self.published)))
        titles = ["most confused", *[""] * len(self.confusions)]
        confusions = (printable(one.describe()) for one in self.confusions)
        rows += zip(titles, confusions, strict=False)
        if self.comparison is not None:
            rows += self._comparison_rows(self.comparison)
        lines = [f"{name:<26}{text}" for name, text in rows]
        return "\n".join(lines + (self._class_lines() if per_class else []))

    def _views(self, model: EvaluatedModel) -> str:
        return model.describe_views(self.num_photographs, self.num_crops)

    def _comparison_rows(self, comparison: Comparison) -> list[tuple[str, str]]:
        counts, model = comparison.counts, comparison.model
        low, high = (100 * bound for bound in counts.difference_interval)
        return [
            ("compared model", model.describe()),
            ("measured", self._views(model)),
            (
                "top-1, paired",
                f"{_percent(counts.second_top1)} against {_percent(counts.first_top1)}: "
                f"{100 * counts.difference:+.2f} points (95 % interval {low:+.2f} to {high:+.2f})",
            ),
            ("", counts.sentence()),
        ]

    def _inside(self, published: PublishedAccuracy) -> tuple[bool, bool]:
        """Return whether the published top-1 and top-5 lie in the intervals."""
        (low1, high1), (low5, high5) = self.top1_interval, self.top5_interval
        return low1 <= published.top1 <= high1, low5 <= published.top5 <= high5

    def _published_fields(self) -> dict[str, Any] | None:
        if self.published is None:
            return None
        inside1, inside5 = self._inside(self.published)
        return {
            "network": self.published.network,
            "top1": self.published.top1,
            "top1_inside": inside1,
            "top5": self.published.top5,
            "top5_inside": inside5,
            "measured": self.published.measured,
        }

    def _published_line(self, published: PublishedAccuracy) -> str:
        accuracies = (("top-1", published.top1), ("top-5", published.top5))
        figures = ", ".join(
            f"{name} {_percent(share)} ({'inside' if inside else 'outside'} the interval)"
            for (name, share), inside in zip(accuracies, self._inside(published), strict=True)
        )
        return f"{figures}; {published.network}: {published.measured}"

    def _class_lines(self) -> list[str]:
        names = [printable(one.label) for one in self.classes]
        width = max(len("class"), *map(len, names))
        lines = ["", f"{'class':<{width}}  photographs    top-1    top-5"]
        for name, one in zip(names, self.classes, strict=True):
            accuracies = f"{_percent(one.top1):>9}{_percent(one.top5):>9}"
            lines.append(f"{name:<{width}}  {one.num_photographs:>11,}{accuracies}")
        return lines


def model_fields(model: EvaluatedModel) -> dict[str, Any]:
    """Return the JSON fields of a model."""
    return (path_fields(model.path) if model.path is not None else {"path": None}) | {
        "identity": model.identity,
        "runtime": model.runtime,
        "precision": model.precision,
        "weight": model.weight,
        "input_size": model.input_size,
        "resize": model.preprocessing.resize,
        "resize_to": model.preprocessing.resize_to,
        "filter": model.preprocessing.filter,
    }


def _class_fields(one: ClassAccuracy) -> dict[str, Any]:
    return {
        "label": one.label,
        "index": one.index,
        "photographs": one.num_photographs,
        "top1": one.top1,
        "top5": one.top5,
    }


def _confusion_fields(one: Confusion) -> dict[str, Any]:
    return {
        "true": one.true_label,
        "predicted": one.predicted_label,
        "photographs": one.num_photographs,
        "of": one.num_of_class,
    }


def _comparison_fields(comparison: Comparison) -> dict[str, Any]:
    counts = comparison.counts
    return {
        "model": model_fields(comparison.model),
        "photographs": counts.num_photographs,
        "first_top1": counts.first_top1,
        "second_top1": counts.second_top1,
        "difference": counts.difference,
        "difference_interval": counts.difference_interval,
        "both": counts.num_both,
        "only_first": counts.num_only_first,
        "only_second": counts.num_only_second,
        "p_value": counts.p_value,
    }


def _interval(bounds: tuple[float, float]) -> str:
    low, high = (100 * bound for bound in bounds)
    return f"95 % interval {low:.2f} to {high:.2f} %"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"
