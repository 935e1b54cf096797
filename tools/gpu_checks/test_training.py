"""Training on one GPU: the step's speed, copies to it, and the command itself."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import step_rate
import torch
from peers import by_torch
from PIL import Image

from alexnet_deploy.model.spec import PRESETS
from alexnet_deploy.timing import median_ratio, seconds_of
from gpu_checks.record import Figures
from gpu_checks.runner_rates import ROUNDS, TURN_S, noise
from gpu_checks.torch_clock import gpu_seconds
from training.devices import parse_devices, use_precision
from training.trainer import Precision

pytestmark = [pytest.mark.gpu("torch"), pytest.mark.timeout(90)]

DEVICES = "cuda:0,cuda:0"
BATCH = 128  # section 5
STEPS, STEP_ROUNDS = 20, 3
FLOPS_PER_IMAGE = 2 * (3 * step_rate.MACS_PER_IMAGE - step_rate.CONV1_MACS)
SIDE = 8192
"""Side of the matrices on whose product the peak is measured."""
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}
CLASSES = {"dark": 60, "light": 190}
"""Names and mean grey levels of easily separable classes."""
PHOTOGRAPHS = 40
EPOCHS = 4


@pytest.mark.parametrize("precision", ["bf16", "tf32", "fp32"])
def test_rate(precision: Precision, figures: Figures) -> None:
    """Full steps of the trainer, both towers on one GPU, and of plain torch, in turns."""
    peak = matmul_flops_per_s(precision)
    torch.cuda.empty_cache()
    options = {"precision": precision, "batch": BATCH, "steps": STEPS, "rounds": STEP_ROUNDS}
    rates = step_rate.measure({"devices": DEVICES, **options})
    images_per_s = statistics.median(rates["trainer"])
    figures |= {
        **options,
        "trainer_images_per_s": rates["trainer"],
        "plain_torch_images_per_s": rates["plain"],
        "ratio_median": median_ratio(rates["trainer"], rates["plain"]),
        "trainer_tflops": images_per_s * FLOPS_PER_IMAGE / 1e12,
        "matmul_tflops": peak / 1e12,
        "share_of_matmul": images_per_s * FLOPS_PER_IMAGE / peak,
        "hours_for_90_epochs_of_1200000_images": step_rate.PAPER_IMAGES / images_per_s / 3600,
        "the_paper": f"{step_rate.PAPER_DAYS}, on two GTX 580",
    }


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_torch_inference(precision: str, figures: Figures, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain torch's rate, to compare with that of a runner: from an array to FC7 in an array."""
    use_precision("fp32", parse_devices(DEVICES))  # of fp32: without TF32
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)  # the fastest convolutions
    compute = by_torch(device="cuda", precision=precision)
    for batch in (1, 32, 256):
        work = partial(compute, noise(PRESETS["paper"].input_size, batch))
        work()
        times = [seconds_of(work, at_least_s=TURN_S) for _ in range(ROUNDS)]
        figures[f"batch_{batch}"] = {"images_per_s": batch / statistics.median(times)}


def matmul_flops_per_s(precision: Precision) -> float:
    """Return the rate of a product of two large random matrices."""
    use_precision(precision, parse_devices(DEVICES))
    a, b = (torch.randn(SIDE, SIDE, device="cuda").to(DTYPES[precision]) for _ in range(2))
    return 2 * SIDE**3 / seconds(lambda: torch.mm(a, b))


def seconds(work: Callable[[], Any], repeats: int = 15) -> float:
    """Return the median GPU time of `work`, in seconds."""
    for _ in range(3):
        work()
    return statistics.median(gpu_seconds(work) for _ in range(repeats))


def test_copies(figures: Figures) -> None:
    """The upload of a batch to the GPU, from pageable and from pinned memory."""
    plain = torch.randint(0, 256, (BATCH, 256, 256, 3), dtype=torch.uint8)
    pinned = plain.pin_memory()
    pinning = []
    for _ in range(5):
        start = time.perf_counter()
        plain.pin_memory()
        pinning.append(time.perf_counter() - start)
    times = {
        "plain": seconds(lambda: plain.to("cuda")),
        "pinned": seconds(lambda: pinned.to("cuda", non_blocking=True)),
        "pin_one_batch": statistics.median(pinning),
    }
    figures |= {
        "batch_mb": plain.nbytes / 1e6,
        "milliseconds": {name: 1e3 * each for name, each in times.items()},
        "gb_per_s": {name: plain.nbytes / times[name] / 1e9 for name in ("plain", "pinned")},
    }


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("_in_own_folder")
def test_command(figures: Figures) -> None:
    """A network of full size that learns to tell two classes apart, in bfloat16."""
    pytest.importorskip("matplotlib")
    draw_photographs(Path("photographs"))
    how = ("--recipe", "modern", "--batch-size", "16", "--epochs", str(EPOCHS))
    command = ["train", "photographs", "-o", "run", "--devices", DEVICES, *how, "--json"]
    finished = subprocess.run(
        [sys.executable, "-m", "training", *command, "--precision", "bf16"],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    last = json.loads(finished.stdout.splitlines()[-1])["last"]
    names = ("epoch", "step", "train_loss", "val_loss", "val_top1", "images_per_second", "wall_s")
    figures |= {name: last[name] for name in names}
    assert last["val_top1"] > 0.9, "it has not learned to tell dark from light"


def draw_photographs(folder: Path) -> None:
    """Write noise around each class's grey level."""
    rng = np.random.default_rng(0)
    for name, level in CLASSES.items():
        (folder / name).mkdir(parents=True)
        for number in range(PHOTOGRAPHS):
            pixels = rng.normal(level, 20, (256, 256, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:02}.jpg")
