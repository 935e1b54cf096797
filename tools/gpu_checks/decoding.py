"""JPEGs decoded on the GPU: how far from Pillow's, and how many a second."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.choices import Scale
from alexnet_deploy.model.spec import PRESETS
from alexnet_deploy.photographs import gpu_jpegs
from alexnet_deploy.photographs.pipeline import batches, crop_loader, default_threads
from alexnet_deploy.photographs.pixels import Decode
from alexnet_deploy.timing import in_turns, median_ratio, seconds_of
from gpu_checks.check import Figures, Settings, require
from gpu_checks.reference import folder

SPEC = PRESETS["paper"]
ROUNDS = 3
MOST = 400
"""Photographs, spread evenly."""
MEAN_APART = 1.0
"""Levels between crops, on average, of decoders that differ in rounding alone."""
AT_ONCE = 64
"""Files in a call of the library itself, to which the GPU's own decoder gives most."""


def compare(settings: Settings) -> Figures:
    """Decode the photographs both ways, into crops.

    Returns:
        Levels between the crops, the mean and the most; the JPEGs that Pillow decoded for the GPU;
        crops a second with each, with the threads of this machine and with four times as many;
        and whole pictures a second of the library alone, given many at once.

    Raises:
        Failed: the crops differ by more than rounding.
        MissingPackageError: nvImageCodec is not installed.
    """
    paths = sorted(folder(settings).rglob("*.jpg"))
    paths = paths[:: -(-len(paths) // MOST)]
    usual, (ours, num_refused) = crops(paths, "exact")[0], crops(paths, "gpu")
    apart = np.abs(ours.astype(np.int16) - usual)
    figures: Figures = {
        "photographs": len(paths),
        "refused": num_refused,
        "levels_apart_mean": float(apart.mean()),
        "levels_apart_most": int(apart.max()),
    }
    require(apart.mean() <= MEAN_APART, "other pictures than Pillow's", figures)
    threads = default_threads()
    ways: dict[str, tuple[Scale, int]] = {
        "pillow": ("exact", threads),
        "gpu": ("gpu", threads),
        "gpu_4_times_the_threads": ("gpu", 4 * threads),
    }
    timers = {name: partial(seconds_of, partial(crops, paths, *how)) for name, how in ways.items()}
    files = [path.read_bytes() for path in paths][:AT_ONCE]
    timers["gpu_many_at_once"] = partial(seconds_of, partial(decode_at_once, files))
    in_turns(timers, 1)  # to warm up
    seconds = in_turns(timers, ROUNDS)
    for name, taken in seconds.items():
        count = len(files) if name == "gpu_many_at_once" else len(paths)
        figures[f"{name}_images_per_s"] = count / float(np.median(taken))
    figures["times_pillow"] = median_ratio(seconds["pillow"], seconds["gpu"])
    return figures


def crops(
    paths: list[Path], scale: Scale, threads: int | None = None
) -> tuple[NDArray[np.uint8], int]:
    """Return all crops, (N, H, W, 3), and how many JPEGs Pillow decoded for the GPU."""
    stream = list(
        batches(
            paths,
            crop_loader(SPEC, Decode.of(scale)),
            input_size=SPEC.input_size,
            batch_size=32,
            threads=threads or default_threads(),
        )
    )
    return np.concatenate([one.images for one in stream]), sum(one.num_refused for one in stream)


def decode_at_once(files: list[bytes]) -> None:
    """Decode files in one call, and leave them on the GPU."""
    from nvidia import nvimgcodec

    backends = [nvimgcodec.Backend(getattr(nvimgcodec, name)) for name in gpu_jpegs._BACKENDS]
    decoder: Any = nvimgcodec.Decoder(
        device_id=gpu_jpegs._DEVICE, backends=backends, options=gpu_jpegs._OPTIONS
    )
    assert all(picture is not None for picture in decoder.decode(files))
