"""A table of public networks with one that is small and made up, and the file of it."""

import hashlib
import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from alexnet_deploy.importing import known, matching
from alexnet_deploy.importing.known import KnownNetwork, known_networks
from alexnet_deploy.model import spec

NAME, FILE_NAME = "tiny", "tiny-1.safetensors"
FC_WIDTH = 8
# torchvision's names, with widths that only a test has.
_SHAPES = {
    "features.0": (4, 3, 11, 11),
    "features.3": (5, 4, 5, 5),
    "features.6": (6, 5, 3, 3),
    "features.8": (7, 6, 3, 3),
    "features.10": (3, 7, 3, 3),
    "classifier.1": (FC_WIDTH, 3 * 6 * 6),
    "classifier.4": (FC_WIDTH, FC_WIDTH),
    "classifier.6": (11, FC_WIDTH),
}


def published(seed: int = 0) -> bytes:
    """Return the file as its publisher has it: another program's, without a spec."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, shape in _SHAPES.items():
        arrays[f"{name}.weight"] = rng.standard_normal(shape, np.float32)
        arrays[f"{name}.bias"] = rng.standard_normal(shape[:1], np.float32)
    return save(arrays)


def use_few_outputs(patch: pytest.MonkeyPatch) -> None:
    """Let fc6 and fc7 have as many outputs as those of `published`."""
    # A module that is first imported meanwhile would keep the number.
    for other in ("importing.onnx_layers", "index.manifest"):
        importlib.import_module(f"alexnet_deploy.{other}")
    for module in (spec, matching):
        patch.setattr(module, "FC_WIDTH", FC_WIDTH)


def use_table(patch: pytest.MonkeyPatch, folder: Path, *urls: str) -> KnownNetwork:
    """Let `tiny`, published at `urls`, be the one public network."""
    use_few_outputs(patch)
    content = published()
    table = folder / "networks.toml"
    fields = {
        "name": NAME,
        "title": "a tiny AlexNet",
        "page": "https://example.org/tiny",
        "preset": "torchvision",
        "channels": "RGB",
        "licence": "CC0",
        "top1": 12.5,
        "top5": 25.0,
        "measured": "never",
        "arrays": "",
    }
    file = {
        "name": FILE_NAME,
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "sha1": "",
        "urls": list(urls),
    }
    # What JSON writes of these is TOML, too.
    lines = [f"{key} = {json.dumps(value)}" for key, value in fields.items()]
    lines += ["[[network.files]]", *(f"{key} = {json.dumps(file[key])}" for key in file)]
    table.write_text("\n".join(["[[network]]", *lines]))
    patch.setattr(known, "_TABLE", table)
    return known_networks()[NAME]
