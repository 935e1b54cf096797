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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alexnet_deploy.files.csv_text import csv_row, path_cell, text_cell
from alexnet_deploy.files.output_files import atomic_write, wrong_suffix
from alexnet_deploy.inference.evaluation_report import Evaluation, model_fields


@contextmanager
def open_predictions(path: Path) -> Iterator[Callable[[Evaluation], object]]:
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
            yield lambda found: write_table(file, _rows(found), _metadata(found))
    else:
        raise wrong_suffix(path, "predictions", (".csv", ".parquet"))


def _rows(found: Evaluation) -> Iterator[dict[str, Any]]:
    """Yield the columns of each photograph, None where there is nothing."""
    own, labels = found.predictions, found.predictions.labels
    other = None if found.comparison is None else found.comparison.predictions
    for number, truth in enumerate(own.truth.tolist()):
        seen: dict[str, Any] = {
            "true_rank": int(own.true_rank[number]),
            "true_probability": own.true_probability[number],
            "top1": float(own.top1[number]),
            "top5": float(own.top5[number]),
        }
        for place, index in enumerate(own.top[number].tolist()):
            seen |= {f"index_{place + 1}": index, f"label_{place + 1}": labels[index]}
            seen[f"probability_{place + 1}"] = own.probabilities[number, place]
        if other is not None:
            index = int(other.top[number, 0])
            seen |= {"compared_index": index, "compared_label": labels[index]}
            seen["compared_probability"] = other.probabilities[number, 0]
        error = own.failures.get(number)
        yield {
            "path": own.photographs.path(number),
            "true_index": truth,
            "true_label": labels[truth],
            **(seen if error is None else dict.fromkeys(seen)),
            "error": error,
        }


def _csv_rows(found: Evaluation) -> Iterator[bytes]:
    for number, row in enumerate(_rows(found)):
        if not number:
            yield csv_row(row)
        yield csv_row(map(_cell, row.values()))


def _cell(value: object) -> object:
    """Return a cell; a float32 keeps its own digits, as 0.1 and not 0.10000000149011612."""
    if isinstance(value, Path):
        return path_cell(value)
    return text_cell(value) if isinstance(value, str) else value


def _metadata(found: Evaluation) -> str:
    return json.dumps(
        {
            "models": [model_fields(model) for model in found.models],
            "compared": None if found.comparison is None else model_fields(found.comparison.model),
            "crops": found.num_crops,
        }
    )
