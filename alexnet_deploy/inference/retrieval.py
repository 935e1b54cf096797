"""Evaluate retrieval: does the nearest photograph show the same, by pixels, layers and codes?

    photographs -> inference.run -> vectors of layers, and their pixels -> a ranking for each form
                -> retrieval_figures -> Retrieval

Each form is judged twice. Among all: fitted on the photographs, as an index would, each of them the
query against all the others. Among unseen classes: fitted on every second class, and judged on the
others by themselves, then the other way round; the exact forms, too, since half of the classes are
easier to tell apart. (Ranked among all by a form that has seen only the others, a query's own are
told from these by that alone, which PCA gains by.)

N photographs, D numbers of a vector. Memory: 12 bytes a number of one layer, 2 of each other, and
some 400 MB; on the disk, in the folder for temporary files, 200 kB a photograph.
"""

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import DatasetError
from alexnet_deploy.inference.embeddings import EmbedOptions, checked_layers
from alexnet_deploy.inference.evaluation_report import EvaluatedModel
from alexnet_deploy.inference.failures import FailureLimit, check_failures
from alexnet_deploy.inference.pixel_rows import PIXEL_BYTES, PIXEL_SPEC, PixelRows, open_pixel_rows
from alexnet_deploy.inference.retrieval_figures import Distances, figures_of, is_alone
from alexnet_deploy.inference.retrieval_forms import Form
from alexnet_deploy.inference.retrieval_report import JudgedForm, Retrieval
from alexnet_deploy.inference.run import PhotographResult, RunSummary, run_batches
from alexnet_deploy.photographs.pipeline import Load, Loaded
from alexnet_deploy.photographs.pixels import EXACT
from alexnet_deploy.photographs.preprocessing import preprocess
from alexnet_deploy.photographs.sources import load_image
from alexnet_deploy.photographs.truth_files import Labelled
from alexnet_deploy.runtimes.base import Runner


def evaluate_retrieval(
    runner: Runner,
    photographs: Labelled,
    forms: Sequence[Form],
    *,
    layers: tuple[str, ...] = ("fc7",),
    path: Path | None = None,
    threads: int | None = None,
    on_result: Callable[[Path, str | None], None] = lambda path, error: None,
    summary: RunSummary | None = None,
) -> Retrieval:
    """Make each photograph the query against all the others, for each form of the vectors.

    Args:
        runner: opened with `layers` among its outputs.
        photographs: their classes need not be the model's.
        forms: that each layer is judged in; where they are too few to fit one, it is left out.
        layers: as for `model.layers.layer_names`; maps are vectors of all their numbers.
        path: the runner's file, for the report.
        threads: decode threads; None for one per core.
        on_result: called for each photograph, with path and reason of failure or None.
        summary: counts and times.

    Raises:
        UsageError: the runner does not return a layer; or wrong threads.
        DatasetError: there are not two classes, or not two photographs of any.
        TooManyFailuresError: no photograph could be read.
        OutputError: the folder for temporary files is full.
    """
    names = checked_layers(EmbedOptions(layers=layers), runner)
    summary = RunSummary() if summary is None else summary
    _check_classes(photographs.labels)
    with open_pixel_rows() as pixels:
        taken = _Taken(runner, photographs, names, pixels)
        taken.take(threads, on_result, summary)
        rows = np.flatnonzero(taken.is_read)
        labels = photographs.labels[rows]
        _check_classes(labels)
        judge = _Judge(labels)
        judge.add("pixels", "L2", PIXEL_BYTES, lambda fit_on, own: pixels.distances(rows[own]))
    for name in names:
        vectors = taken.vectors.pop(name)[rows]
        for form in forms:
            judge.add_form(form, name, vectors)
    summary.stop_clock()
    return Retrieval(
        labels=labels,
        classes=photographs.classes,
        forms=tuple(judge.judged),
        not_judged=tuple(judge.not_judged),
        failures=tuple((photographs.path(n), error) for n, error in taken.failures.items()),
        num_unlabelled=photographs.num_unlabelled,
        left_out=summary.left_out.counts,
        model=EvaluatedModel.of(runner, path),
        seconds=summary.wall_s,
    )


def _check_classes(labels: NDArray[np.int32]) -> None:
    num_classes = len(np.unique(labels))
    if num_classes < 2 or is_alone(labels).all():
        raise DatasetError(
            "retrieval needs photographs of two classes or more, and of one of them two or more; "
            f"got {len(labels):,} of {num_classes:,}"
        )


@dataclass(slots=True, eq=False)
class _Taken:
    """What is taken of the photographs, each decoded once.

    Attributes:
        vectors: (N, D) float16 of each layer, as an index keeps them.
        is_read: [N]; rows of others are not there.
        failures: why not, by number.
    """

    runner: Runner
    photographs: Labelled
    layers: tuple[str, ...]
    pixels: PixelRows
    vectors: dict[str, NDArray[np.float16]] = field(init=False)
    is_read: NDArray[np.bool_] = field(init=False)
    failures: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        num_photographs, shapes = len(self.photographs), self.runner.spec.layer_shapes()
        self.is_read = np.zeros(num_photographs, np.bool_)
        self.vectors = {
            layer: np.empty((num_photographs, int(np.prod(shapes[layer]))), np.float16)
            for layer in self.layers
        }

    def take(
        self,
        threads: int | None,
        on_result: Callable[[Path, str | None], None],
        summary: RunSummary,
    ) -> None:
        numbers = range(len(self.photographs))
        batches = run_batches(
            self.runner, numbers, load=self._loader(), threads=threads, summary=summary
        )
        with closing(batches):
            for result in (one for batch in batches for one in batch):
                error = result.error or self._keep(result)
                if error is not None:
                    self.failures[result.source] = error
                on_result(self.photographs.path(result.source), error)
        summary.num_failed = len(self.failures)
        summary.num_done = len(numbers) - len(self.failures)
        if not summary.num_done:
            check_failures(len(numbers), len(numbers), FailureLimit())

    def _loader(self) -> Load[int]:
        spec = self.runner.spec

        def load(number: int) -> Loaded:
            photograph = load_image(self.photographs.path(number), EXACT, spec.preprocessing)
            self.pixels.write(number, preprocess(photograph, PIXEL_SPEC))
            return Loaded(crop=preprocess(photograph, spec))

        return load

    def _keep(self, result: PhotographResult[int]) -> str | None:
        """Keep the vectors of one, or return why they cannot be kept."""
        assert result.outputs is not None
        for layer, rows in self.vectors.items():
            with np.errstate(over="ignore"):  # checked on the next line
                rows[result.source] = result.outputs[layer].ravel()
            if not np.isfinite(rows[result.source]).all():
                largest = float(np.abs(result.outputs[layer]).max())
                return f"its {layer} activations reach {largest:.3g}, float16 holds up to 65504"
        self.is_read[result.source] = True
        return None


_Ranked = Callable[[NDArray[np.int64], NDArray[np.int64]], Distances]
"""From the numbers of the photographs to fit on, and of those to judge, to their distances."""


class _Judge:
    """Judges one form after the other.

    Args:
        labels: (N,), the classes of the photographs that were read.

    Attributes:
        judged: so far.
        not_judged: what the photographs were too few for.
    """

    def __init__(self, labels: NDArray[np.int32]) -> None:
        self._labels = labels
        numbers = np.unique(labels, return_inverse=True)[1]
        self._every = np.arange(len(labels))
        self._halves = [np.flatnonzero(numbers % 2 == half) for half in (0, 1)]
        self._has_unseen = numbers.max() >= 3  # two classes, to be told apart, in each half
        self._fewest = min(map(len, self._halves)) if self._has_unseen else len(labels)
        self.judged: list[JudgedForm] = []
        self.not_judged = [] if self._has_unseen else ["unseen classes"]

    def add_form(self, form: Form, layer: str, vectors: NDArray[np.float16]) -> None:
        """Judge a form of a layer's vectors, (N, D)."""
        dimension = vectors.shape[1]
        if form.rank and (form.rank > dimension or form.rank >= self._fewest):
            self.not_judged.append(f"{form.name} of {layer}")
            return
        num_bytes = form.num_bytes(dimension)
        self.add(
            layer, form.name, num_bytes, lambda fit_on, own: form.fit(vectors[fit_on])(vectors[own])
        )

    def add(self, vectors: str, form: str, num_bytes: int, ranked: _Ranked) -> None:
        """Judge what `ranked` ranks by, given its names."""
        one = JudgedForm(
            vectors=vectors,
            form=form,
            among="all",
            num_bytes=num_bytes,
            figures=figures_of(ranked(self._every, self._every), self._labels),
        )
        self.judged.append(one)
        if self._has_unseen:
            figures = np.empty_like(one.figures)
            for own, others in (self._halves, self._halves[::-1]):
                figures[own] = figures_of(ranked(others, own), self._labels[own])
            self.judged.append(dataclasses.replace(one, among="unseen", figures=figures))
