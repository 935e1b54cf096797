"""Measure `embed` on a folder: images per second, compared with a bound and with plain torch.

    python tools/embed_rate.py TEST [--rounds 3] [--json FILE]

Whole processes, start included, FC7 to `.npy`, alternating with the peer: the same photographs and
crops through a plain torch network in one script, decode threads included. The floor is a lower
bound on the time: the network's multiplications at the rate of the BLAS library's best matrix
product, plus decoding and resizing spread over all cores. Peak memory is measured with the folder
and with three copies of it.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_deploy.model.checkpoints import Checkpoint, load_checkpoint
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.photographs.decoding import load_photograph
from alexnet_deploy.photographs.finding import find_photographs
from alexnet_deploy.photographs.pipeline import default_threads
from alexnet_deploy.photographs.preprocessing import preprocess

BATCH = 32
NUM_DECODED = 200  # photographs sampled to time decoding alone


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        embed_with_torch(arguments.folder)
        return
    paths = list(find_photographs([arguments.folder]))
    embed(arguments.folder)  # the first run exports the checkpoint into the cache
    own, peer, floor = [], [], []
    for _ in range(arguments.rounds):
        own.append(len(paths) / embed(arguments.folder)[0])
        peer_command = [sys.executable, __file__, str(arguments.folder), "--peer"]
        peer.append(len(paths) / run(peer_command)[0])
        floor.append(floor_rate(paths))
    figures: dict[str, float | int] = {
        "photographs": len(paths),
        "cores": default_threads(),
        "images_per_s": statistics.median(own),
        "torch_images_per_s": statistics.median(peer),
        "floor_images_per_s": statistics.median(floor),
        "ratio_to_torch": statistics.median(a / b for a, b in zip(own, peer, strict=True)),
        "ratio_to_floor": statistics.median(a / b for a, b in zip(own, floor, strict=True)),
        **peak_memory(arguments.folder),
    }
    for name, value in figures.items():
        print(f"{name:<24} {value:.2f}" if isinstance(value, float) else f"{name:<24} {value}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


def run(command: list[str]) -> tuple[float, int]:
    """Run a process; return its wall seconds and its peak memory in kB."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"{' '.join(command)} failed: {status}")
    return time.perf_counter() - start, usage.ru_maxrss


def embed(folder: Path) -> tuple[float, int]:
    """Run the command on a folder."""
    with tempfile.TemporaryDirectory() as scratch:
        output = str(Path(scratch, "fc7.npy"))
        return run([sys.executable, "-m", "alexnet_deploy", "embed", str(folder), "-o", output])


def peak_memory(folder: Path) -> dict[str, float]:
    """Return the peak memory in MB with the folder and with three copies of it."""
    with tempfile.TemporaryDirectory() as scratch:
        for copy in range(3):
            subprocess.run(["cp", "-r", str(folder), str(Path(scratch, str(copy)))], check=True)
        tripled = embed(Path(scratch))[1] / 1024
    return {"peak_mb": embed(folder)[1] / 1024, "peak_mb_three_copies": tripled}


def floor_rate(paths: list[Path]) -> float:
    """Return the images per second of the floor; see the module docstring."""
    checkpoint = load_checkpoint(bundled_checkpoint())
    some = paths[:: max(1, len(paths) // NUM_DECODED)]
    start = time.process_time()
    for path in some:
        preprocess(load_photograph(path), checkpoint.spec)
    decode_s = (time.process_time() - start) / len(some) / default_threads()
    square = np.ones((3072, 3072), np.float32)
    product_s = []
    for _ in range(5):
        start = time.perf_counter()
        np.matmul(square, square)
        product_s.append(time.perf_counter() - start)
    rate = len(square) ** 3 / min(product_s)  # multiplications a second
    return 1 / (decode_s + multiplications(checkpoint) / rate)


def multiplications(checkpoint: Checkpoint) -> int:
    """Count the multiplications per image, factored layers as stored."""
    shapes = checkpoint.spec.layer_shapes()
    return sum(
        array.size * math.prod(shapes.get(name.split(".")[0], (1,))[1:])
        for name, array in checkpoint.arrays.items()
        if ".weight" in name
    )


def embed_with_torch(folder: Path) -> None:
    """Do the same with Pillow and torch, decoding in threads."""
    import torch
    import torch.nn.functional as F

    checkpoint = load_checkpoint(bundled_checkpoint())
    spec = checkpoint.spec
    arrays: dict[str, Any] = {
        name: torch.from_numpy(array).float() for name, array in checkpoint.arrays.items()
    }
    mean = torch.tensor(spec.preprocessing.mean).view(1, 3, 1, 1)
    std = torch.tensor(spec.preprocessing.std).view(1, 3, 1, 1)

    def forward(images: Any) -> Any:
        x = (images.permute(0, 3, 1, 2).float() - mean) / std
        x = F.pad(x, (0, 3, 0, 3))
        for number, group in enumerate(spec.groups, start=1):
            weight, bias = arrays[f"conv{number}.weight"], arrays[f"conv{number}.bias"]
            padding = 0 if number == 1 else weight.shape[-1] // 2
            stride = 4 if number == 1 else 1
            x = F.relu(F.conv2d(x, weight, bias, stride, padding, groups=group))
            if number <= 2:
                towers = [F.local_response_norm(half, 5, k=2.0) for half in x.chunk(2, dim=1)]
                x = torch.cat(towers, dim=1)
            if number in (1, 2, 5):
                x = F.max_pool2d(x, 3, 2)
        x = x.flatten(1)
        for layer in ("fc6", "fc7"):
            x = F.linear(x, arrays[f"{layer}.weight.right"])
            x = F.relu(F.linear(x, arrays[f"{layer}.weight.left"], arrays[f"{layer}.bias"]))
        return x

    vectors = []
    with ThreadPoolExecutor(default_threads()) as threads, torch.inference_mode():
        crops = threads.map(
            lambda path: preprocess(load_photograph(path), spec), find_photographs([folder])
        )
        batch = []
        for crop in crops:
            batch.append(crop)
            if len(batch) == BATCH:
                vectors.append(forward(torch.from_numpy(np.stack(batch))).numpy())
                batch = []
        if batch:
            vectors.append(forward(torch.from_numpy(np.stack(batch))).numpy())
    with tempfile.TemporaryFile() as file:
        np.save(file, np.concatenate(vectors))


if __name__ == "__main__":
    main()
