"""The checkpoint that comes with the package."""

from importlib import resources
from pathlib import Path


def bundled_checkpoint() -> Path:
    """Return the checkpoint that comes with the package: Caltech-101, 101 classes."""
    return Path(str(resources.files("alexnet_deploy") / "data" / "caltech101.safetensors"))
