"""An open model: photographs in, classes and vectors out.

N photographs, C channels, H/W positions, D = 4096 for fc6 and fc7.
"""

import os
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.choices import Pool
from alexnet_deploy.errors import ClosedError
from alexnet_deploy.inference.activations import check_pool, pooled, pooled_shape
from alexnet_deploy.inference.classification import Classification, classify
from alexnet_deploy.inference.run import PhotographResult, RunSummary, run
from alexnet_deploy.model.layers import layer_name
from alexnet_deploy.model.spec import ModelSpec
from alexnet_deploy.photographs.pixels import EXACT, Decode
from alexnet_deploy.photographs.sources import (
    ImageInput,
    ImageSource,
    image_sources,
    path_of,
)
from alexnet_deploy.runtimes.base import FORKED, Runner

Progress = Callable[[int], None]
"""Called with the number of photographs done so far, failures included."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Embedding:
    """One photograph's activations, or why there are none.

    Attributes:
        path: as it was given; None for a photograph in memory.
        vector: (D,), (C, H, W), or (C,) of maps that were pooled, float32; None when it failed.
        error: the reason when it failed, else None.
    """

    path: Path | None
    vector: NDArray[np.float32] | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Embeddings:
    """Many photographs' activations; `numpy.asarray` gives `vectors`.

    Attributes:
        vectors: (N, D), (N, C, H, W), or (N, C) of maps that were pooled, float32; a row a
            photograph, in the order given, of NaN where one could not be read.
        failures: the reason for each such row, by its number.
        layer: whose activations they are.
        identity: of the checkpoint.
        precision: arithmetic of the network.
        decode: how files became pixels; vectors are comparable where identity, precision and it
            are the same.
    """

    vectors: NDArray[np.float32]
    failures: Mapping[int, str]
    layer: str
    identity: str
    precision: str
    decode: Decode

    def __len__(self) -> int:
        return len(self.vectors)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.vectors, dtype=dtype, copy=copy)


class Model:
    """An open model, made by `open_model`.

    Any thread may use it, also `asyncio.to_thread`; calls of the network wait for each other,
    because one already uses all cores. A photograph's result depends neither on the others of
    its batch nor on their number. Open it anew in each process.

    Args:
        runner: open; the model closes it.
        open_runner: opens another, for other layers.
        decode: how files become pixels.

    Attributes:
        spec: what the network is: input, preprocessing, labels, provenance.
        identity: of the checkpoint.
        precision: arithmetic of the network.
        decode: how files become pixels.
        description: one line for people: runtime, version, device, precision, batch, threads.
    """

    def __init__(
        self,
        runner: Runner,
        open_runner: Callable[[tuple[str, ...]], Runner],
        decode: Decode = EXACT,
    ) -> None:
        self._open_runner = open_runner
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._runners: tuple[Runner, ...] = (runner,)
        self._is_closed = False
        self.spec: ModelSpec = runner.spec
        self.identity = runner.identity
        self.precision = runner.options.precision
        self.decode = decode
        self.description = runner.description
        self._threads = runner.options.threads

    def classify(
        self,
        images: ImageInput | Iterable[ImageInput],
        *,
        top: int = 5,
        summary: RunSummary | None = None,
    ) -> Generator[Classification, None, None]:
        """Yield what each photograph shows, in the order given; one that failed has its reason.

        Args:
            images: one or any iterable, which is read lazily: paths, bytes of files, files open
                in binary mode, Pillow images, uint8 arrays (H, W, 3) RGB or (H, W) grey. An empty
                one gives no results.
            top: classes per photograph, all of them if there are fewer.
            summary: counts and times, updated while the results are taken.

        Raises:
            UsageError: `top` is below 1, or an item is not a photograph.
            ClosedError: the model is closed.
        """
        runner = self._runner_of("probabilities")
        return classify(
            runner,
            image_sources(images, self.decode),
            top=top,
            decode=self.decode,
            threads=self._threads,
            summary=summary,
        )

    def embed(
        self,
        images: ImageInput | Iterable[ImageInput],
        *,
        layer: str = "fc7",
        pool: Pool = "none",
        progress: Progress = lambda _: None,
    ) -> Embeddings:
        """Return the activations of a layer for all photographs, in memory.

        Args:
            images: as for `classify`; an empty iterable gives no rows.
            layer: a name of `ModelSpec.layer_shapes`, or torchvision's or Caffe's for it, such as
                "features.0" or "prob"; the result has ours.
            pool: "mean" or "max" over the positions of maps makes (C,) of (C, H, W).
            progress: called after each photograph.

        Raises:
            UsageError: no such layer, one without maps to pool, or an item is not a photograph.
            ClosedError: the model is closed.
        """
        rows: list[NDArray[np.float32]] = []
        failures: dict[int, str] = {}
        layer = layer_name(layer, self.spec)
        shape = self._shape(layer, pool)
        nothing = np.full(shape, np.nan, np.float32)
        with closing(self.iter_embed(images, layer=layer, pool=pool)) as results:
            for number, result in enumerate(results):
                if result.vector is None:
                    failures[number] = result.error or ""
                rows.append(nothing if result.vector is None else result.vector)
                progress(number + 1)
        return Embeddings(
            vectors=np.stack(rows) if rows else np.empty((0, *shape), np.float32),
            failures=failures,
            layer=layer,
            identity=self.identity,
            precision=self.precision,
            decode=self.decode,
        )

    def iter_embed(
        self,
        images: ImageInput | Iterable[ImageInput],
        *,
        layer: str = "fc7",
        pool: Pool = "none",
    ) -> Generator[Embedding, None, None]:
        """Yield the activations photograph by photograph, for what does not fit in memory.

        Args:
            images: as for `classify`; an empty iterable yields nothing.
            layer: as for `embed`.
            pool: as for `embed`.

        Raises:
            UsageError, ClosedError: as `embed`.
        """
        layer = layer_name(layer, self.spec)
        self._shape(layer, pool)
        sources = image_sources(images, self.decode)
        results = run(self._runner_of(layer), sources, decode=self.decode, threads=self._threads)
        return _embeddings(results, layer, pool)

    def close(self) -> None:
        """Free the runtime's memory, after the batch at hand."""
        if self._process != os.getpid():
            return  # it belongs to the parent process; to drop a runner here would free it
        with self._lock, ExitStack() as stack:
            self._is_closed = True
            for runner in self._runners:
                stack.callback(runner.close)
            self._runners = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise TypeError("a model cannot be sent to another process; open it there")

    def _runner_of(self, layer: str) -> Runner:
        """Return what computes a layer, opened if need be."""
        opened = self._opened(layer)
        if opened is not None:
            return opened
        # Held while it loads; calls for layers that are open do not come here.
        with self._lock:
            opened = self._opened(layer)
            if opened is None:
                opened = self._open_runner((layer,))
                self._runners = (*self._runners, opened)
            return opened

    def _opened(self, layer: str) -> Runner | None:
        if self._process != os.getpid():
            raise ClosedError(FORKED)
        if self._is_closed:
            raise ClosedError("the model is closed; open it again")
        return next((one for one in self._runners if layer in one.options.outputs), None)

    def _shape(self, layer: str, pool: Pool) -> tuple[int, ...]:
        check_pool(pool, (layer,), self.spec)
        return pooled_shape(self.spec.layer_shapes()[layer], pool)


def _embeddings(
    results: Generator[PhotographResult[ImageSource], None, None], layer: str, pool: Pool
) -> Generator[Embedding, None, None]:
    with closing(results):
        for result in results:
            vector = None if result.outputs is None else pooled(result.outputs[layer], pool)
            yield Embedding(path=path_of(result.source), vector=vector, error=result.error)
