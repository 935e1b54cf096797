"""The commands on the GPU, as a user types them, compared with the same on the CPU."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from alexnet_deploy import installed
from alexnet_deploy.photographs.samples import sample_paths, varied_samples
from alexnet_deploy.verification.comparison import cosine_similarity, relative_error
from gpu_checks.check import Figures, Settings, Skipped, require
from gpu_checks.command_line import run_command
from gpu_checks.onnxruntime_gpu import need_cuda_build
from gpu_checks.reference import folder

DEVICES = {
    "cuda": ("--device", "cuda", "--runtime", "onnxruntime", "--precision", "fp32"),
    "cpu": ("--device", "cpu", "--runtime", "onnxruntime", "--precision", "fp32"),
}
TOLERANCE = 1e-4  # relative error of FC7 in float32, as in an export's verification
NUM_QUERIES = 20
"""More than 15: with fewer the package does not scan on a GPU."""


def classify_embed_index(settings: Settings) -> Figures:
    """Run the three commands on the photographs.

    Raises:
        Failed: one fails, or classes or vectors differ from the CPU's.
        Skipped: this ONNX Runtime is a build for the CPU.
    """
    need_cuda_build()
    where = str(folder(settings))
    figures: Figures = {"seconds": {}}
    labels: dict[str, list[str]] = {}
    vectors: dict[str, Any] = {}
    for device, how in DEVICES.items():
        took = figures["seconds"].setdefault(device, {})
        lines, took["classify"] = run_command("classify", where, "--json", *how)
        labels[device] = [json.loads(line)["predictions"][0]["label"] for line in lines]
        output = Path(f"{device}.npy")
        _, took["embed"] = run_command("embed", where, "-o", str(output), *how)
        vectors[device] = np.load(output)
    _, figures["seconds"]["cuda"]["index"] = run_command(
        "index", where, "--index", "i", *DEVICES["cuda"]
    )
    pairs = list(zip(vectors["cuda"], vectors["cpu"], strict=True))
    figures["labels_equal"] = sum(map(str.__eq__, labels["cuda"], labels["cpu"]))
    figures["fc7_error_max"] = max(relative_error(a, b) for a, b in pairs)
    figures["fc7_cosine_min"] = min(cosine_similarity(a, b) for a, b in pairs)
    # One photograph between two classes may fall to either side, hardly a second one.
    figures["photographs"] = len(labels["cpu"])
    others = figures["photographs"] - figures["labels_equal"]
    allowed = figures["photographs"] / 100 + 1
    require(others <= allowed, f"{others} other classes", figures)
    require(figures["fc7_error_max"] <= TOLERANCE, "other vectors than on the CPU", figures)
    return figures


def search(settings: Settings) -> Figures:
    """Index on each device, and search there with mirrored photographs, which are not indexed.

    Raises:
        Failed: a command fails, or the GPU finds other neighbours than the CPU.
        Skipped: this ONNX Runtime is a build for the CPU, or faiss is not installed.
    """
    need_cuda_build()
    if not installed.has_module("faiss"):
        raise Skipped("searching needs faiss, which is not installed here")
    queries = _mirrored(varied_samples()[:NUM_QUERIES])
    where = str(sample_paths()[0].parents[1])
    found: dict[str, list[str]] = {}
    figures: Figures = {"queries": len(queries), "seconds": {}}
    for device, how in DEVICES.items():
        run_command("index", where, "--index", device, *how)
        lines, seconds = run_command(
            "search", *queries, "--index", device, "-k", "5", "--json", *how
        )
        figures["seconds"][device] = seconds
        results = [json.loads(line)["results"] for line in lines]
        found[device] = [Path(result[0]["path"]).parent.name for result in results]
    figures["nearest"] = found["cuda"]
    require(found["cuda"] == found["cpu"], f"the CPU finds {found['cpu']}", figures)
    require(len(found["cuda"]) == len(queries), "not every query has a result", figures)
    return figures


def _mirrored(paths: tuple[Path, ...]) -> list[str]:
    """Write mirrored copies here; return their names."""
    names = []
    for path in paths:
        names.append(f"{path.parent.name}.png")
        with Image.open(path) as photograph:
            ImageOps.mirror(photograph.convert("RGB")).save(names[-1])
    return names
