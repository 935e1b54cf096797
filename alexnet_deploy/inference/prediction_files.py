r"""Write what an evaluation found of each photograph: one row each, failures too, CSV or Parquet.

| column | |
|---|---|
| `path` | as in `files.csv_text`; in Parquet UTF-8, else also `path_base64`, its bytes |
| `true_index`, `true_label` | output of the true class, from 0, and its name |
| `true_rank`, `true_probability` | 1 + the number of more likely classes; 0..1 |
| `top1`, `top5` | the photograph's part of the accuracy, 0..1; a fraction where classes are equal |
| `index_1`, `label_1`, `probability_1` to `_5` | the most likely classes; first the prediction |
| `compared_index`, `compared_label`, `compared_probability` | what a compared model predicts |
| `error` | why it could not be read; then all but the path and the true class is empty, or null |

In the metadata of a Parquet schema `alexnet_deploy.evaluation` is JSON: {"models", "compared",
"crops"}, as in the JSON of an evaluation.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_deploy.errors import UsageError
from alexnet_deploy.files.csv_text import csv_row, path_cell, text_cell
from alexnet_deploy.files.output_files import atomic_write
from alexnet_deploy.inference.evaluation_report import Evaluation, model_fields

_CHUNK = 10_000  # rows in memory at a time

_Columns = Mapping[str, np.ma.MaskedArray[Any, Any]]


@contextmanager
def open_predictions(path: Path) -> Iterator[Callable[[Evaluation], None]]:
    """Yield the function that writes all rows; the file appears at `path` on exit.

    Raises:
        UsageError: neither `.csv` nor `.parquet`.
        MissingPackageError: `pyarrow` is not installed.
        OutputError: the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix == ".csv":
        with atomic_write(path) as file:
            yield lambda found: file.writelines(_csv_rows(found))
    elif suffix == ".parquet":
        from alexnet_deploy.inference.prediction_tables import write_table

        with atomic_write(path) as file:
            yield lambda found: write_table(file, _chunks(found), _metadata(found))
    else:
        raise UsageError(
            f"{path}: predictions are written as .csv or .parquet, not as "
            f"{path.suffix or 'a file without suffix'}; choose one of the two"
        )


def _chunks(found: Evaluation) -> Iterator[_Columns]:
    size = len(found.predictions.truth)
    for start in range(0, size, _CHUNK):
        yield _columns(found, slice(start, min(start + _CHUNK, size)))


def _columns(found: Evaluation, rows: slice) -> _Columns:
    """Return columns of int64, float64, float32 and objects, masked where there is nothing."""
    own, numbers = found.predictions, range(rows.start, rows.stop)
    labels = np.array(own.labels, object)
    has_failed = ~own.is_counted[rows]
    given: dict[str, Any] = {
        "true_index": own.truth[rows],
        "true_label": labels[own.truth[rows]],
    }
    seen: dict[str, Any] = {
        "true_rank": own.true_rank[rows],
        "true_probability": own.true_probability[rows],
        "top1": own.top1[rows],
        "top5": own.top5[rows],
    }
    for place in range(own.top.shape[1]):
        top = own.top[rows, place]
        seen |= {f"index_{place + 1}": top, f"label_{place + 1}": labels[top]}
        seen[f"probability_{place + 1}"] = own.probabilities[rows, place]
    if found.comparison is not None:
        other = found.comparison.predictions
        top = other.top[rows, 0]
        seen |= {"compared_index": top, "compared_label": labels[top]}
        seen["compared_probability"] = other.probabilities[rows, 0]
    path, error = np.empty((2, len(numbers)), object)
    path[:] = [own.photographs.path(number) for number in numbers]
    error[:] = [own.failures.get(number) for number in numbers]
    return {
        "path": np.ma.array(path),
        **{name: np.ma.array(values) for name, values in given.items()},
        **{name: np.ma.array(values, mask=has_failed) for name, values in seen.items()},
        "error": np.ma.array(error, mask=~has_failed),
    }


def _csv_rows(found: Evaluation) -> Iterator[bytes]:
    for number, columns in enumerate(_chunks(found)):
        if not number:
            yield csv_row(columns)
        cells = [map(_cell, np.ma.getmaskarray(one), one.data) for one in columns.values()]
        yield from map(csv_row, zip(*cells, strict=True))


def _cell(is_masked: bool, value: Any) -> object:
    if is_masked:
        return ""
    if isinstance(value, Path):
        return path_cell(value)
    # A float32 with its own digits, as 0.1 and not 0.10000000149011612.
    return text_cell(value) if isinstance(value, str) else str(value)


def _metadata(found: Evaluation) -> str:
    return json.dumps(
        {
            "models": [model_fields(model) for model in found.models],
            "compared": None if found.comparison is None else model_fields(found.comparison.model),
            "crops": found.num_crops,
        }
    )
