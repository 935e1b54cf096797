"""The model used when none is given."""

import os
from importlib import resources
from pathlib import Path

from alexnet_deploy.files.input_files import existing_file

MODEL_VARIABLE = "ALEXNET_MODEL"


def bundled_checkpoint() -> Path:
    """Return the checkpoint that comes with the package: Caltech-101, 101 classes."""
    return Path(str(resources.files("alexnet_deploy") / "data" / "caltech101.safetensors"))


def default_model() -> Path:
    """Return `$ALEXNET_MODEL` if it is set, else the bundled checkpoint.

    Raises:
        UsageError: the variable does not name a readable file.
    """
    variable = os.environ.get(MODEL_VARIABLE)
    if not variable:
        return bundled_checkpoint()
    existing_file(Path(variable), f"a checkpoint, an .onnx or an .engine file in ${MODEL_VARIABLE}")
    return Path(variable)
