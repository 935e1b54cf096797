"""The trainer's speed on one GPU, compared with plain torch, the GPU's peak, and the paper."""

import statistics
import time

import torch
from step_rate import (
    CONV1_MACS,
    MACS_PER_IMAGE,
    PAPER_DAYS,
    PAPER_IMAGES,
    measure,
)

from gpu_checks.check import Figures, Settings
from gpu_checks.torch_gpu import both_towers_on_one, matmul_flops_per_second, seconds
from training.devices import use_precision
from training.trainer import Precision

BATCH = 128  # section 5
STEPS, ROUNDS = 20, 3
FLOPS_PER_IMAGE = 2 * (3 * MACS_PER_IMAGE - CONV1_MACS)


def rate(settings: Settings, *, precision: Precision) -> Figures:
    """Time full steps of the trainer, both towers on one GPU, and of plain torch, in turns.

    Raises:
        Skipped: this torch is a build for the CPU.
    """
    devices = both_towers_on_one()
    use_precision(precision, devices)
    peak = matmul_flops_per_second(precision)
    torch.cuda.empty_cache()
    options = {"precision": precision, "batch": BATCH, "steps": STEPS, "rounds": ROUNDS}
    rates = measure({"devices": "cuda:0,cuda:0", **options})
    ratios = [own / plain for own, plain in zip(rates["trainer"], rates["plain"], strict=True)]
    images_per_s = statistics.median(rates["trainer"])
    return {
        **options,
        "trainer_images_per_s": rates["trainer"],
        "plain_torch_images_per_s": rates["plain"],
        "ratio_median": statistics.median(ratios),
        "ratio_lowest": min(ratios),
        "trainer_tflops": images_per_s * FLOPS_PER_IMAGE / 1e12,
        "matmul_tflops": peak / 1e12,
        "share_of_matmul": images_per_s * FLOPS_PER_IMAGE / peak,
        "hours_for_90_epochs_of_1200000_images": PAPER_IMAGES / images_per_s / 3600,
        "the_paper": f"{PAPER_DAYS}, on two GTX 580",
    }


def copies(settings: Settings) -> Figures:
    """Time the upload of a batch to the GPU, from pageable and from pinned memory.

    Raises:
        Skipped: this torch is a build for the CPU.
    """
    device = both_towers_on_one()[0]
    plain = torch.randint(0, 256, (BATCH, 256, 256, 3), dtype=torch.uint8)
    pinned = plain.pin_memory()
    pinning = []
    for _ in range(5):
        start = time.perf_counter()
        plain.pin_memory()
        pinning.append(time.perf_counter() - start)
    times = {
        "plain": seconds(lambda: plain.to(device)),
        "pinned": seconds(lambda: pinned.to(device, non_blocking=True)),
        "pin_one_batch": statistics.median(pinning),
    }
    return {
        "batch_mb": plain.nbytes / 1e6,
        "milliseconds": {name: 1e3 * each for name, each in times.items()},
        "gb_per_s": {name: plain.nbytes / times[name] / 1e9 for name in ("plain", "pinned")},
    }
