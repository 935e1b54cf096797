"""Whole processes, timed, and a bound on how fast any program could embed photographs here."""

import math
import os
import resource
import subprocess
import time
from pathlib import Path

import numpy as np

from alexnet_deploy.model.checkpoints import Checkpoint, load_checkpoint
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.photographs.decoding import load_photograph
from alexnet_deploy.photographs.pipeline import default_threads
from alexnet_deploy.photographs.preprocessing import preprocess

NUM_DECODED = 200  # photographs sampled to time decoding alone


def run(command: list[str]) -> tuple[float, resource.struct_rusage]:
    """Run a process; return its wall seconds, and what it used.

    Its peak memory is not below that of the process that calls this.
    """
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"{' '.join(command)} failed: {status}")
    return time.perf_counter() - start, usage


def floor_rate(paths: list[Path]) -> float:
    """Return the photographs per second that a bound on the time allows.

    It is the time of the network's multiplications at the rate of the BLAS library's best matrix
    product, plus that of decoding and resizing, spread over all cores.
    """
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
