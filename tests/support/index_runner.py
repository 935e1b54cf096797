"""A runner for the tests of an index: quick, and each colour has a vector of its own."""

import dataclasses
import io
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexnet_deploy.choices import Device, Precision
from alexnet_deploy.index.model import ModelRequest
from alexnet_deploy.index.report import IndexReport
from alexnet_deploy.index.results import Query, SearchResult
from alexnet_deploy.index.roots import all_roots
from alexnet_deploy.index.session import Index
from alexnet_deploy.index.storage import open_storage
from alexnet_deploy.index.update import UpdateOptions, bring_up_to_date
from alexnet_deploy.model.layers import layer_names
from alexnet_deploy.model.spec import preset_spec
from alexnet_deploy.runtimes.base import RunnerOptions, check_images
from alexnet_deploy.weights.names import ModelSource

LAYER = "logits"
DIMENSION = 8
REQUEST = ModelRequest(layer=LAYER, batch_size=3, threads=2)
TOO_BRIGHT = (255, 255, 255)
"""The colour whose vector is beyond float16."""
OVERFLOWING = (255, 255, 254)
"""The colour with which the network overflows."""

_PAPER = preset_spec("paper", num_classes=DIMENSION)
# The smallest network: the photographs are decoded, cropped and copied in next to no time.
SPEC = dataclasses.replace(
    _PAPER, input_size=67, preprocessing=dataclasses.replace(_PAPER.preprocessing, resize_to=67)
)
_PROJECTION: NDArray[np.float64] = np.random.default_rng(0).normal(0, 10, (3, DIMENSION))

Colour = tuple[int, int, int]


def logits_of(colour: Colour) -> NDArray[np.float32]:
    """Return what the runner computes of a photograph of one colour, (D,)."""
    if colour == TOO_BRIGHT:
        return np.full(DIMENSION, 1e6, np.float32)
    if colour == OVERFLOWING:
        return np.full(DIMENSION, np.inf, np.float32)
    centred = np.array(colour) / 255 - 0.5
    logits: NDArray[np.float64] = (centred[:, None] * _PROJECTION).sum(axis=0)
    return logits.astype(np.float32)


def vector_of(colour: Colour) -> NDArray[np.float16]:
    """Return the vector that an index holds of a photograph of one colour, (D,)."""
    return logits_of(colour).astype(np.float16)


class Runners:
    """Stands in for `opening.open_runner_of`, and remembers what the runners were given.

    Attributes:
        num_opened: runners.
        precision: of the model files.
        device: where they run.
        models: that they were opened for.
        colours: of the photographs that went through them, in that order.
    """

    def __init__(self, identity: str = "0123456789abcdef" * 4) -> None:
        self.identity = identity
        self.num_opened = 0
        self.precision: Precision = "fp32"
        self.device: Device = "cpu"
        self.models: list[ModelSource | None] = []
        self.colours: list[Colour] = []

    def open(
        self, model: ModelSource | None, options: RunnerOptions, *, notify: Callable[[str], None]
    ) -> "IndexRunner":
        self.num_opened += 1
        self.models.append(model)
        return IndexRunner(self, options)


class IndexRunner:
    """The logits are a fixed random projection of the colour."""

    def __init__(self, runners: Runners, options: RunnerOptions) -> None:
        layer_names(options.outputs, SPEC)
        assert options.outputs == (LAYER,)
        self._runners = runners
        self.spec = SPEC
        self.identity = runners.identity
        self.options = dataclasses.replace(
            options,
            runtime="onnxruntime",
            device=runners.device,
            precision=runners.precision if options.precision == "auto" else options.precision,
        )
        self.description = "fake runner"

    def run(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        check_images(images, self.spec, self.options.batch_size)
        colours: list[Colour] = [tuple(image[0, 0].tolist()) for image in images]
        self._runners.colours += [colour for colour in colours if any(colour)]  # black is padding
        return {LAYER: np.stack([logits_of(colour) for colour in colours])}

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def photograph(colour: Colour, edition: int = 0) -> bytes:
    """Return a file of one colour, not black; all have the same number of bytes.

    Editions of a colour, 0..255, are different files with the same picture.
    """
    assert any(colour)
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "BMP")
    data = bytearray(file.getvalue())
    data[6] = edition  # of the four reserved bytes, which nobody reads
    return bytes(data)


def save(path: Path, content: Colour | bytes) -> Path:
    """Write a photograph, or some other bytes, a while ago: its time is settled and its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else photograph(content))
    long_ago = time.time_ns() - 10**12
    os.utime(path, ns=(long_ago, long_ago))
    return path


def save_colours(folder: Path, count: int) -> list[Path]:
    """Write photographs `00.bmp`, `01.bmp`, ... of different colours."""
    return [save(folder / f"{number:02}.bmp", (number + 1, 99, 7)) for number in range(count)]


def search(
    directory: Path,
    queries: Query | Iterable[Query],
    request: ModelRequest | None = None,
    *,
    notify: Callable[[str], None] = lambda _: None,
    **criteria: Any,
) -> Iterator[SearchResult]:
    """Open an index for one search; `criteria` are those of `Index.search`."""
    with ExitStack() as stack:
        index = stack.enter_context(Index(directory, request, notify=notify))
        results = index.search(queries, **criteria)
        opened = stack.pop_all()

    def all_of_them() -> Iterator[SearchResult]:
        with opened:
            yield from results

    return all_of_them()


def update(
    directory: Path, *folders: Path, request: ModelRequest = REQUEST, **options: Any
) -> IndexReport:
    """Run `bring_up_to_date`; `options` are those of `UpdateOptions`."""
    return bring_up_to_date(directory, folders, request, UpdateOptions(**options))


def counts(report: IndexReport) -> tuple[int, int, int, int, int]:
    """Return what was embedded, reused, unchanged, removed and failed, in the order of `line`."""
    return (
        report.num_embedded,
        report.num_reused,
        report.num_unchanged,
        report.num_removed,
        report.num_failed,
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A photograph as the ledger has it, with its vector."""

    id: int
    status: str
    reason: str | None
    vector: tuple[float, ...] | None


def rows_of(directory: Path) -> dict[Path, Row]:
    """Return all rows of an index by their absolute path."""
    rows = {}
    with open_storage(directory) as index:
        roots = {root.id: root.path for root in all_roots(index.ledger)}
        sql = "SELECT root, path, id, status, reason, position FROM photographs ORDER BY id"
        for root, path, key, status, reason, position in index.ledger.rows(sql):
            vector = None
            if position is not None:
                vector = tuple(index.segments.take(np.array([position]))[0].tolist())
            row = Row(id=key, status=status, reason=reason, vector=vector)
            rows[roots[root] / os.fsdecode(path)] = row
    return rows


def indexed(directory: Path) -> dict[Path, tuple[float, ...]]:
    """Return the vectors of the photographs that can be found."""
    return {path: row.vector for path, row in rows_of(directory).items() if row.vector is not None}


def vectors_of(colours: Mapping[Path, Colour]) -> dict[Path, tuple[float, ...]]:
    """Return what `indexed` should: of each path the vector of its colour."""
    return {path: tuple(vector_of(colour).tolist()) for path, colour in colours.items()}


def roots_of(directory: Path) -> Sequence[Path]:
    """Return the roots of an index in their order."""
    with open_storage(directory) as index:
        return [root.path for root in all_roots(index.ledger)]
