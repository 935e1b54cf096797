"""The NumPy reference's outputs for the photographs, computed once for all checks."""

import functools
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from parity import LAYERS

from alexnet_deploy.model.checkpoints import Checkpoint, load_checkpoint
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.model.reference import Reference, crop
from alexnet_deploy.photographs.decoding import load_photograph
from alexnet_deploy.photographs.finding import find_photographs
from alexnet_deploy.photographs.preprocessing import preprocess
from alexnet_deploy.photographs.samples import sample_paths
from alexnet_deploy.verification.agreement import Layers
from gpu_checks.check import Figures, Settings, Skipped, require

ENOUGH_S = 100.0
"""The check's limit is higher: work in progress still finishes, and everything is saved."""
CHUNK = 4
MOST_PROCESSES = 16
"""Each holds a copy of the weights, 300 MB."""
_GOLDEN = (5**0.5 - 1) / 2
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_KEPT = "reference.npz"

Arrays = dict[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """Photographs and their expected outputs.

    Attributes:
        crops: (N, H, W, 3) uint8, as the package preprocesses them for a runner.
        layers: the reference's logits and FC7 for them, from its own plain crops.
    """

    crops: NDArray[np.uint8]
    layers: Layers


def bundled() -> Checkpoint:
    """Return the bundled checkpoint."""
    return load_checkpoint(bundled_checkpoint())


def folder(settings: Settings) -> Path:
    """Return the given folder, else that of the samples."""
    return settings.photographs or sample_paths()[0].parents[1]


def compute(settings: Settings) -> Figures:
    """Compute and store logits and FC7 of the photographs, on all cores.

    If time does not suffice for all, later checks compare on an evenly spread part; the figures say
    how many of how many.

    Raises:
        Failed: there are no photographs.
    """
    start = time.monotonic()
    paths = spread(list(find_photographs([folder(settings)])))
    chunks = [paths[first : first + CHUNK] for first in range(0, len(paths), CHUNK)]
    processes = min(MOST_PROCESSES, len(os.sched_getaffinity(0)), len(chunks))
    figures: Figures = {"in_the_folder": len(paths), "processes": processes}
    require(bool(paths), f"no photographs in {folder(settings)}", figures)
    os.environ.update(dict.fromkeys(_THREADS, "1"))  # one core per process
    parts: list[Arrays] = []
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as executor:
        for part in executor.map(computed, chunks):
            parts.append(part)
            if time.monotonic() - start > ENOUGH_S:
                executor.shutdown(wait=False, cancel_futures=True)
                break
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    kept = settings.scratch / _KEPT
    unfinished = kept.with_name(f"part-{_KEPT}")
    crops, logits, fc7 = (arrays[name] for name in ("crops", *LAYERS))
    np.savez(unfinished, crops=crops, logits=logits, fc7=fc7)
    os.replace(unfinished, kept)
    return {**figures, "photographs": len(crops)}


def spread(paths: list[Path]) -> list[Path]:
    """Return paths in an order of which every prefix is spread evenly over all."""
    order = sorted(range(len(paths)), key=lambda place: place * _GOLDEN % 1)
    return [paths[place] for place in order]


def computed(paths: list[Path]) -> Arrays:
    """Return `crops` and layers of some photographs; runs in its own process."""
    reference = _reference()
    photographs = [load_photograph(path) for path in paths]
    plain = np.stack([crop(photograph, reference.spec) for photograph in photographs])
    layers = reference.run(plain)
    crops = np.stack([preprocess(photograph, reference.spec) for photograph in photographs])
    return {"crops": crops, **{name: layers[name] for name in LAYERS}}


@functools.cache
def _reference() -> Reference:
    return Reference(bundled())


def expected(settings: Settings) -> Expected:
    """Return what `compute` stored.

    Raises:
        Skipped: it stored nothing.
    """
    kept = settings.scratch / _KEPT
    if not kept.exists():
        raise Skipped("needs the results of the check named reference, which did not finish")
    with np.load(kept) as arrays:
        layers = {name: arrays[name] for name in LAYERS}
        crops = arrays["crops"]
    return Expected(crops=crops, layers=layers)
