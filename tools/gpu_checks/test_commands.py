"""The commands on the GPU, as a user types them, compared with the same on the CPU."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from alexnet_deploy import installed
from alexnet_deploy.photographs.samples import sample_paths, varied_samples
from alexnet_deploy.verification.comparison import cosine_similarity, relative_error
from gpu_checks.command_line import run_command
from gpu_checks.record import Figures

pytestmark = [pytest.mark.gpu("onnxruntime"), pytest.mark.usefixtures("_in_own_folder")]

DEVICES = {
    "cuda": ("--device", "cuda", "--runtime", "onnxruntime", "--precision", "fp32"),
    "cpu": ("--device", "cpu", "--runtime", "onnxruntime", "--precision", "fp32"),
}
TOLERANCE = 1e-4  # relative error of FC7 in float32, as in an export's verification
NUM_QUERIES = 20
"""More than 15: with fewer the package does not scan on a GPU."""


@pytest.mark.timeout(180)
def test_classify_embed_index(photographs: Path, figures: Figures) -> None:
    """Classes and vectors of the photographs."""
    where = str(photographs)
    figures["seconds"] = {device: {} for device in DEVICES}
    labels: dict[str, list[str]] = {}
    vectors: dict[str, Any] = {}
    for device, how in DEVICES.items():
        took = figures["seconds"][device]
        lines, took["classify"] = run_command("classify", where, "--json", *how)
        labels[device] = [json.loads(line)["predictions"][0]["label"] for line in lines]
        _, took["embed"] = run_command("embed", where, "-o", f"{device}.npy", *how)
        vectors[device] = np.load(f"{device}.npy")
    how = DEVICES["cuda"]
    _, figures["seconds"]["cuda"]["index"] = run_command("index", where, "--index", "i", *how)
    pairs = list(zip(vectors["cuda"], vectors["cpu"], strict=True))
    figures |= {
        "photographs": len(labels["cpu"]),
        "labels_equal": sum(map(str.__eq__, labels["cuda"], labels["cpu"])),
        "fc7_error_max": max(relative_error(a, b) for a, b in pairs),
        "fc7_cosine_min": min(cosine_similarity(a, b) for a, b in pairs),
    }
    # One photograph between two classes may fall to either side, hardly a second one.
    others = figures["photographs"] - figures["labels_equal"]
    assert others <= figures["photographs"] / 100 + 1, f"{others} other classes"
    assert figures["fc7_error_max"] <= TOLERANCE, "other vectors than on the CPU"


def test_search(figures: Figures) -> None:
    """Neighbours of mirrored photographs, which are not indexed, in an index of each device."""
    pytest.importorskip("faiss")
    queries = mirrored(varied_samples()[:NUM_QUERIES])
    where = str(sample_paths()[0].parents[1])
    found: dict[str, list[str]] = {}
    figures |= {"queries": len(queries), "seconds": {}}
    for device, how in DEVICES.items():
        run_command("index", where, "--index", device, *how)
        lines, figures["seconds"][device] = run_command(
            "search", *queries, "--index", device, "-k", "5", "--json", *how
        )
        nearest = [json.loads(line)["results"][0]["path"] for line in lines]
        found[device] = [Path(path).parent.name for path in nearest]
    figures["nearest"] = found["cuda"]
    assert found["cuda"] == found["cpu"], f"the CPU finds {found['cpu']}"
    assert len(found["cuda"]) == len(queries), "not every query has a result"


@pytest.mark.timeout(180)
def test_bench(photographs: Path, figures: Figures) -> None:
    """Photographs a second, and what bounds them, with each way of decoding that is here."""
    is_here = installed.has_module("nvidia") and installed.has_module("nvidia.nvimgcodec")
    decoders = ("--decode", "exact", *(("--decode", "gpu") if is_here else ()))
    how = ("--device", "cuda", "--runtime", "onnxruntime", "--batch-size", "256", "--rounds", "3")
    precisions = ("--precision", "fp32", "--precision", "fp16")
    lines, _ = run_command("bench", str(photographs), "--json", *how, *precisions, *decoders)
    figures |= json.loads(lines[-1])


def mirrored(paths: tuple[Path, ...]) -> list[str]:
    """Write mirrored copies here; return their names."""
    names = []
    for path in paths:
        names.append(f"{path.parent.name}.png")
        with Image.open(path) as photograph:
            ImageOps.mirror(photograph.convert("RGB")).save(names[-1])
    return names
