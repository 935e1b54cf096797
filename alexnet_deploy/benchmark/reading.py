"""Read the photographs of a benchmark before anything is timed.

N photographs, H/W the network's input size in px.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.choices import Scale
from alexnet_deploy.inference.failures import FailureLimit, check_failures
from alexnet_deploy.model.spec import ModelSpec
from alexnet_deploy.photographs.decoding import load_photograph
from alexnet_deploy.photographs.pipeline import Load, Loaded, batches, crop_loader
from alexnet_deploy.photographs.pixels import EXACT, Decode
from alexnet_deploy.photographs.preprocessing import preprocess

BATCH = 32
_LARGE = 4
"""Times the size that a photograph is resized to: from there on scaled decoding may halve it."""
_ANY = FailureLimit.parse("100%")


@dataclass(frozen=True, slots=True, kw_only=True)
class Readable:
    """Those that could be read.

    Attributes:
        paths: in order.
        crops: (N, H, W, 3) uint8 by decoding.
        median_size: width and height of a picture in px.
        num_failed: of those that could not be read.
    """

    paths: tuple[Path, ...]
    crops: Mapping[Decode, NDArray[np.uint8]]
    median_size: tuple[int, int]
    num_failed: int


def read_all(
    paths: Sequence[Path],
    spec: ModelSpec,
    scales: Sequence[Scale],
    threads: int,
    on_photograph: Callable[[Path, str | None], None],
) -> Readable:
    """Decode every photograph in every way, which brings its file into the page cache."""
    sizes: dict[Path, tuple[int, int]] = {}
    failures: dict[Path, str] = {}

    def load_exact(path: Path) -> Loaded:
        picture = load_photograph(path)
        sizes[path] = picture.size
        return Loaded(crop=preprocess(picture, spec))

    def read(load: Load[Path]) -> dict[Path, NDArray[np.uint8]]:
        crops = {}
        for batch in batches(
            paths, load, input_size=spec.input_size, batch_size=BATCH, threads=threads
        ):
            failures.update({slot.item: str(slot.error) for slot in batch.slots if slot.error})
            crops.update({s.item: batch.images[s.row] for s in batch.slots if s.row is not None})
        return crops

    found = {EXACT: read(load_exact)}
    known = sizes.values() or [(0, 0)]  # none: all have failed
    width, height = (round(statistics.median(each)) for each in zip(*known, strict=True))
    is_large = min(width, height) >= _LARGE * spec.preprocessing.resize_to
    usual: tuple[Scale, ...] = ("exact", "scaled") if is_large else ("exact",)
    chosen = [Decode.of(scale) for scale in sorted(set(scales or usual))]  # exact comes first
    found |= {decode: read(crop_loader(spec, decode)) for decode in chosen if decode != EXACT}
    for path in paths:
        on_photograph(path, failures.get(path))
    check_failures(len(failures), len(paths), _ANY)
    able = tuple(path for path in dict.fromkeys(paths) if path not in failures)
    return Readable(
        paths=able,
        crops={how: np.stack([found[how][path] for path in able]) for how in chosen},
        median_size=(width, height),
        num_failed=len(failures),
    )
