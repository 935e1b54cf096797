"""An evaluation report: a table for people, JSON for scripts."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alexnet_deploy.files.path_text import path_fields, printable


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassAccuracy:
    """The accuracy of one class.

    Attributes:
        label: name of its folder.
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
    """

    path: Path | None
    identity: str
    runtime: str
    precision: str
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Accuracy of one model, or of several averaged, on a folder of classes.

    Attributes:
        top1: share of photographs whose class is the most likely one, 0..1; ties count
            fractionally.
        top5: share whose class is among the five most likely; 1.0 with five classes or fewer.
        mean_class_top1: unweighted mean of the classes' top-1; classes without a readable
            photograph are skipped.
        num_photographs: number evaluated, without failures.
        failures: photographs that could not be read, with the reason.
        num_crops: views per photograph, 1 (centre) or 10.
        matched_by: how folders were matched with outputs: by the model's labels, or by sorted order
            if it has none.
        models: in the order given.
        classes: in the order of the folders.
        seconds: since the start of the command, or of the given summary.
    """

    top1: float
    top5: float
    mean_class_top1: float
    num_photographs: int
    failures: tuple[tuple[Path, str], ...]
    num_crops: int
    matched_by: Literal["label", "order"]
    models: tuple[EvaluatedModel, ...]
    classes: tuple[ClassAccuracy, ...]
    seconds: float

    def to_json(self) -> str:
        """Return one ASCII JSON object on one line.

        {"top1", "top5", "mean_class_top1", "photographs", "failures": [{"path", "error"}], "crops",
        "matched_by", "models": [{"path", "identity", "runtime", "precision", "weight"}],
        "classes": [{"label", "index", "photographs", "top1", "top5"}], "seconds"}; a path that is
        not UTF-8 comes with "path_base64". Accuracies are 0..1, or null for a class without
        photographs.
        """
        fields: dict[str, Any] = {
            "top1": self.top1,
            "top5": self.top5,
            "mean_class_top1": self.mean_class_top1,
            "photographs": self.num_photographs,
            "failures": [path_fields(path) | {"error": error} for path, error in self.failures],
            "crops": self.num_crops,
            "matched_by": self.matched_by,
            "models": [_model_fields(model) for model in self.models],
            "classes": [_class_fields(one) for one in self.classes],
            "seconds": round(self.seconds, 3),
        }
        return json.dumps(fields)

    def table(self, *, per_class: bool = False) -> str:
        """Return the figures as aligned text; `per_class` adds a line for each class."""
        failed = f", {len(self.failures):,} more failed" if self.failures else ""
        crops = "centre crop" if self.num_crops == 1 else f"{self.num_crops} crops averaged"
        rows = [
            ("top-1", _percent(self.top1)),
            ("top-5", _percent(self.top5)),
            ("top-1, mean over classes", _percent(self.mean_class_top1)),
            ("photographs", f"{self.num_photographs:,} in {len(self.classes):,} classes{failed}"),
            ("views", crops),
        ]
        if self.matched_by == "order":
            rows.append(("classes", "folders in sorted order: the model has no labels"))
        rows += [("model", _model_line(model)) for model in self.models]
        lines = [f"{name:<26}{text}" for name, text in rows]
        return "\n".join(lines + (self._class_lines() if per_class else []))

    def _class_lines(self) -> list[str]:
        names = [printable(one.label) for one in self.classes]
        width = max(len("class"), *map(len, names))
        lines = ["", f"{'class':<{width}}  photographs    top-1    top-5"]
        for name, one in zip(names, self.classes, strict=True):
            accuracies = f"{_percent(one.top1):>9}{_percent(one.top5):>9}"
            lines.append(f"{name:<{width}}  {one.num_photographs:>11,}{accuracies}")
        return lines


def _model_fields(model: EvaluatedModel) -> dict[str, Any]:
    return (path_fields(model.path) if model.path is not None else {"path": None}) | {
        "identity": model.identity,
        "runtime": model.runtime,
        "precision": model.precision,
        "weight": model.weight,
    }


def _class_fields(one: ClassAccuracy) -> dict[str, Any]:
    return {
        "label": one.label,
        "index": one.index,
        "photographs": one.num_photographs,
        "top1": one.top1,
        "top5": one.top5,
    }


def _model_line(model: EvaluatedModel) -> str:
    name = model.path.name if model.path is not None else "model"
    share = "" if model.weight == 1 else f", weight {model.weight:.3f}"
    how = f"{model.identity[:16]}, {model.runtime} {model.precision}{share}"
    return f"{printable(name)} ({how})"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"
