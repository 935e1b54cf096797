"""JPEGs decoded on the GPU: how far from Pillow's, and how many at once; `bench` has the rest."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from alexnet_deploy.choices import Scale
from alexnet_deploy.model.spec import PRESETS
from alexnet_deploy.photographs import gpu_jpegs
from alexnet_deploy.photographs.pipeline import crop_loader
from alexnet_deploy.photographs.pixels import Decode
from alexnet_deploy.timing import seconds_of
from gpu_checks.record import Figures

ROUNDS = 3
MOST = 400
"""Photographs, spread evenly."""
MEAN_APART = 1.0
"""Levels between crops, on average, of decoders that differ in rounding alone."""
AT_ONCE = 64
"""Files in a call of the library itself, to which the GPU's own decoder gives most."""


@pytest.mark.gpu("nvidia.nvimgcodec")
@pytest.mark.timeout(60)
def test_jpegs(photographs: Path, figures: Figures) -> None:
    """Levels between crops decoded both ways; pictures a second of the library, given many at once.

    JPEGs that are `refused` Pillow decoded for the GPU.
    """
    paths = sorted(photographs.rglob("*.jpg"))
    paths = paths[:: -(-len(paths) // MOST)]
    before = gpu_jpegs.REFUSALS.count
    usual, ours = (crops(paths, scale) for scale in ("exact", "gpu"))
    apart = np.abs(ours.astype(np.int16) - usual)
    figures |= {
        "photographs": len(paths),
        "refused": gpu_jpegs.REFUSALS.count - before,
        "levels_apart_mean": apart.mean(),
        "levels_apart_most": apart.max(),
    }
    assert apart.mean() <= MEAN_APART, "other pictures than Pillow's"
    files = [path.read_bytes() for path in paths][:AT_ONCE]
    decode_at_once(files)  # to warm up
    times = [seconds_of(lambda: decode_at_once(files)) for _ in range(ROUNDS)]
    figures["many_at_once_images_per_s"] = len(files) / np.median(times)


def crops(paths: list[Path], scale: Scale) -> NDArray[np.uint8]:
    """Return all crops, (N, H, W, 3)."""
    load = crop_loader(PRESETS["paper"], Decode.of(scale))
    return np.stack([crop for path in paths if (crop := load(path).crop) is not None])


def decode_at_once(files: list[bytes]) -> None:
    """Decode files in one call, and leave them on the GPU."""
    from nvidia import nvimgcodec

    backends = [nvimgcodec.Backend(getattr(nvimgcodec, name)) for name in gpu_jpegs._BACKENDS]
    decoder: Any = nvimgcodec.Decoder(
        device_id=gpu_jpegs._DEVICE, backends=backends, options=gpu_jpegs._OPTIONS
    )
    assert all(picture is not None for picture in decoder.decode(files))
