"""The checkpoint that comes with the package."""

from pathlib import Path

from alexnet_deploy.installed import DATA


def bundled_checkpoint() -> Path:
    """Return the checkpoint that comes with the package: Caltech-101, 101 classes."""
    return DATA / "caltech101.safetensors"
