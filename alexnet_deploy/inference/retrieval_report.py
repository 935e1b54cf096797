"""A retrieval report: a table for people, JSON for scripts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.files.path_text import path_fields, printable
from alexnet_deploy.files.records import plain_fields
from alexnet_deploy.inference.evaluation_report import EvaluatedModel, model_fields
from alexnet_deploy.inference.retrieval_figures import FIGURES, is_alone
from alexnet_deploy.photographs.pixels import EXACT

Among = Literal["all", "unseen"]
_HEADS = ("mAP", "by class", "p@1", "p@10", "r@10", "r@100")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JudgedForm:
    """What one form of the vectors retrieves.

    Attributes:
        vectors: a layer, or "pixels".
        form: its name.
        among: all photographs, which it was fitted on, or those of classes that it was not.
        num_bytes: of one photograph.
        figures: (N, 5) float64, of each query; see `retrieval_figures.figures_of`.
    """

    vectors: str
    form: str
    among: Among
    num_bytes: int
    figures: NDArray[np.float64] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Retrieval:
    """How well nearest neighbours share the query's class, for each form of the vectors.

    Attributes:
        labels: (N,) int32, the class of each photograph that could be read.
        classes: their names.
        forms: in the order of the table.
        not_judged: what the photographs were too few for.
        failures: photographs that could not be read, with the reason.
        num_unlabelled: photographs of the folder that the file with the classes does not name.
        left_out: photographs of the folder that were not tried, by suffix; see `finding`.
        model: whose layers were taken.
        seconds: since the start of the command, or of the given summary.
    """

    labels: NDArray[np.int32] = field(repr=False)
    classes: tuple[str, ...]
    forms: tuple[JudgedForm, ...]
    not_judged: tuple[str, ...]
    failures: tuple[tuple[Path, str], ...]
    num_unlabelled: int
    left_out: Mapping[str, int]
    model: EvaluatedModel
    seconds: float

    def to_json(self) -> str:
        """Return one ASCII JSON object on one line.

        Figures are 0..1; those `by_class` are in the order of `classes`, null where a class has no
        query. The keys are in the table of the package's page.
        """
        counts = self._counts()
        fields: dict[str, Any] = {
            "photographs": len(self.labels),
            "queries": self._num_queries(),
            "failures": [path_fields(path) | {"error": error} for path, error in self.failures],
            "unlabelled": self.num_unlabelled,
            "left_out": dict(self.left_out),
            "decode": plain_fields(EXACT),
            "model": model_fields(self.model),
            "classes": [
                {"label": label, "photographs": count}
                for label, count in zip(self.classes, counts.tolist(), strict=True)
            ],
            "forms": [self._form_fields(one) for one in self.forms],
            "not_judged": list(self.not_judged),
            "seconds": round(self.seconds, 3),
        }
        return json.dumps(fields)

    def table(self, *, per_class: bool = False) -> str:
        """Return the figures as aligned text; `per_class` adds the mAP of each class."""
        counts = f"{self._num_queries():,} in {np.count_nonzero(self._counts()):,} classes, each "
        counts += f"against {len(self.labels) - 1:,} others"
        if self.failures:
            counts += f"; {len(self.failures):,} more failed"
        if self.num_unlabelled:
            counts += f"; {self.num_unlabelled:,} in the folder without a class"
        rows = [
            ("queries", counts),
            ("decoded by", str(EXACT)),
            ("model", self.model.describe()),
            ("measured", self.model.describe_views(len(self.labels))),
        ]
        if self.not_judged:
            rows.append(("too few photographs for", ", ".join(self.not_judged)))
        lines = [f"{name:<26}{text}" for name, text in rows]
        head = ("", "vectors", "form", "among", "bytes", *_HEADS)
        numbered = enumerate(self.forms, start=1)
        lines += ["", *_aligned([head, *(self._row(n, one) for n, one in numbered)], num_names=4)]
        return "\n".join(lines + (self._class_lines() if per_class else []))

    def _num_queries(self) -> int:
        return len(self.labels) - int(is_alone(self.labels).sum())

    def _counts(self) -> NDArray[np.int64]:
        """Return the photographs of each class."""
        return np.bincount(self.labels, minlength=len(self.classes))

    def _by_class(self, form: JudgedForm) -> NDArray[np.float64]:
        """Return the mean over the queries of each class, (C, 5); NaN where there are none."""
        counts = self._counts()
        is_query = counts[self.labels] > 1
        sums = np.zeros((len(self.classes), len(FIGURES)))
        np.add.at(sums, self.labels[is_query], form.figures[is_query])
        return np.where(counts > 1, sums.T / np.maximum(counts, 1), np.nan).T

    def _means(self, form: JudgedForm) -> tuple[NDArray[np.float64], float]:
        """Return the means over all queries, (5,), and the mean of the classes' mAP."""
        return np.nanmean(form.figures, axis=0), float(np.nanmean(self._by_class(form)[:, 0]))

    def _form_fields(self, form: JudgedForm) -> dict[str, Any]:
        means, mean_class_map = self._means(form)
        columns = [
            [None if np.isnan(value) else round(value, 4) for value in column]
            for column in self._by_class(form).T.tolist()
        ]
        return {
            "vectors": form.vectors,
            "form": form.form,
            "among": form.among,
            "bytes": form.num_bytes,
            **dict(zip(FIGURES, means.tolist(), strict=True)),
            "mean_class_map": mean_class_map,
            "by_class": dict(zip(FIGURES, columns, strict=True)),
        }

    def _row(self, number: int, form: JudgedForm) -> tuple[str, ...]:
        means, mean_class_map = self._means(form)
        figures = [means[0], mean_class_map, *means[1:]]
        names = (str(number), form.vectors, form.form, form.among)
        return (*names, f"{form.num_bytes:,}", *(f"{figure:.3f}" for figure in figures))

    def _class_lines(self) -> list[str]:
        """Return the mAP of each class, a column for each form, numbered as in the table."""
        columns = [
            ["class", *map(printable, self.classes)],
            ["photographs", *(f"{count:,}" for count in self._counts())],
        ]
        for number, form in enumerate(self.forms, start=1):
            means = self._by_class(form)[:, 0]
            columns.append([f"mAP {number}", *("-" if np.isnan(m) else f"{m:.3f}" for m in means)])
        return ["", *_aligned(list(zip(*columns, strict=True)), num_names=1)]


def _aligned(rows: Sequence[Sequence[str]], *, num_names: int) -> list[str]:
    """Return a line for each row: names begin, and numbers end, in the same column."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = ["<"] * num_names + [">"] * (len(widths) - num_names)
    form = "  ".join(f"{{:{side}{width}}}" for side, width in zip(sides, widths, strict=True))
    return [form.format(*row) for row in rows]
