"""From probabilities to the most likely classes, one result per photograph.

    photographs -> run.run -> top_k -> Classification -> text_table | to_json | to_csv
                                                     -> figures

K classes. A photograph that could not be read is a `Classification` too, with its reason.
"""

import json
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy import arguments
from alexnet_deploy.errors import UsageError
from alexnet_deploy.files.csv_text import csv_row, path_cell, text_cell
from alexnet_deploy.files.output_files import atomic_write
from alexnet_deploy.files.path_text import path_fields, printable
from alexnet_deploy.inference.run import PhotographResult, RunSummary, run
from alexnet_deploy.model.spec import ModelSpec
from alexnet_deploy.photographs.pixels import EXACT, Decode
from alexnet_deploy.photographs.sources import ImageSource, path_of
from alexnet_deploy.runtimes.base import Runner

CSV_HEADER = b"path,rank,index,label,probability,error\n"
"""First line of the CSV table; `to_csv` writes the rows below it."""

_MAX_LABEL_WIDTH = 32  # a longer label pushes its path to the right


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One class and its probability.

    Attributes:
        label: the class's name, `class 17` if the model has no labels.
        index: index among the model's outputs.
        probability: 0..1, with the digits of a float32.
    """

    label: str
    index: int
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """The predicted classes of a photograph, or why it could not be read.

    Attributes:
        path: the file, as given or found; None for a photograph in memory.
        predictions: most likely first; empty if it failed.
        error: the reason if it failed, else None.
    """

    path: Path | None
    predictions: tuple[Prediction, ...] = ()
    error: str | None = None


def classify(
    runner: Runner,
    photographs: Iterable[ImageSource],
    *,
    top: int = 5,
    decode: Decode = EXACT,
    threads: int | None = None,
    summary: RunSummary | None = None,
) -> Generator[Classification, None, None]:
    """Classify photographs with `runner`, one result each, in input order.

    Args:
        runner: opened with the output `probabilities`.
        photographs: as `finding.find_photographs` or `sources.image_sources` yields them.
        top: classes per photograph; all of them if there are fewer.
        decode: how files become pixels.
        threads: decode threads; None for one per core.
        summary: counts and times, updated while the results are consumed.

    Raises:
        UsageError: `top` or `threads` is below 1, or the runner does not return `probabilities`.
    """
    top = arguments.count("top", top)
    if "probabilities" not in runner.options.outputs:
        raise UsageError(
            f"runner: returns {', '.join(runner.options.outputs)}; open it with the output "
            "'probabilities' to classify"
        )
    results = run(runner, photographs, decode=decode, threads=threads, summary=summary)
    return _classifications(results, runner.spec, top)


def _classifications(
    results: Generator[PhotographResult[ImageSource], None, None],
    spec: ModelSpec,
    top: int,
) -> Generator[Classification, None, None]:
    with closing(results):
        for result in results:
            path = path_of(result.source)
            if result.outputs is None:
                yield Classification(path=path, error=result.error)
            else:
                best = top_k(result.outputs["probabilities"], spec, top)
                yield Classification(path=path, predictions=best)


def top_k(probabilities: NDArray[np.float32], spec: ModelSpec, k: int) -> tuple[Prediction, ...]:
    """Return the `k` most likely classes, most likely first; of equals the lower index first.

    Args:
        probabilities: (K,) float32, 0..1.
        spec: names the classes.
        k: how many; more than K returns all K.
    """
    # A stable sort of the negated values keeps ties in index order.
    order = np.argsort(-probabilities, kind="stable")[:k]
    return tuple(
        Prediction(
            label=spec.label(index),
            index=index,
            # Via its shortest repr, so that 0.1 is not written 0.10000000149011612.
            probability=float(str(probabilities[index])),
        )
        for index in order.tolist()
    )


def text_table(spec: ModelSpec, num_classes: int) -> Callable[[Classification], str]:
    """Return a function that renders a readable photograph's part of a table for people.

    With one class that is one line, `probability label path`; with several, one line each below the
    path.
    """
    longest = max((len(label) for label in spec.labels), default=len("class 999"))
    width = min(longest, _MAX_LABEL_WIDTH)

    def render(result: Classification) -> str:
        path = printable(result.path or "-")
        best = [(one.probability, printable(one.label)) for one in result.predictions]
        if num_classes == 1:
            return "\n".join(f"{share:6.1%}  {label:{width}}  {path}" for share, label in best)
        return "\n".join([path, *(f"{share:8.1%}  {label}" for share, label in best)])

    return render


def to_json(result: Classification) -> str:
    """Return one line of ASCII JSON without a line break.

    {"path", "predictions": [{"label", "index", "probability"}]} or {"path", "error"}; a path
    that is not UTF-8 comes with "path_base64". A photograph without a path has the path "-".
    """
    fields: dict[str, object] = dict(path_fields(result.path or Path("-")))
    if result.error is not None:
        fields["error"] = result.error
    else:
        fields["predictions"] = [
            {"label": one.label, "index": one.index, "probability": one.probability}
            for one in result.predictions
        ]
    return json.dumps(fields)


def to_csv(result: Classification) -> bytes:
    """Return the rows of one photograph: one per class, or one with the reason it failed.

    As `files.csv_text` writes them.
    """
    path = "" if result.path is None else path_cell(result.path)
    rows: list[tuple[object, ...]] = [
        (path, rank, one.index, text_cell(one.label), one.probability, "")
        for rank, one in enumerate(result.predictions, start=1)
    ]
    if result.error is not None:
        rows = [(path, "", "", "", "", text_cell(result.error))]
    return b"".join(map(csv_row, rows))


@contextmanager
def open_csv(path: Path) -> Iterator[Callable[[Classification], None]]:
    """Yield a function that adds one photograph to the CSV at `path`, which appears on exit.

    Raises:
        OutputError: the file cannot be written.
    """

    def add(result: Classification) -> None:
        file.write(to_csv(result))

    with atomic_write(path) as file:
        file.write(CSV_HEADER)
        yield add
