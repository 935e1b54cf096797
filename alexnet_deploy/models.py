"""From `--model` to a running engine: find the file, export a checkpoint once, open it."""

import dataclasses
import hashlib
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from importlib import resources
from pathlib import Path

from alexnet_deploy.checkpoints import Checkpoint, load_checkpoint
from alexnet_deploy.engines.base import Engine, EngineOptions
from alexnet_deploy.engines.factory import open_engine
from alexnet_deploy.errors import IncompatibleFileError, OutputError, UsageError
from alexnet_deploy.export import export_onnx
from alexnet_deploy.onnx_graph import GRAPH_VERSION, ModelFile, read_model
from alexnet_deploy.samples import sample_paths

MODEL_VARIABLE = "ALEXNET_MODEL"
CHECKPOINT_SUFFIXES = (".safetensors", ".pt", ".pth")
# Enough to catch a wrong export; a full check is `alexnet-deploy export` or `verify`.
_NUM_CACHE_SAMPLES = 4


def bundled_checkpoint() -> Path:
    """Return the checkpoint that comes with the package: Caltech-101, 101 classes."""
    return Path(str(resources.files("alexnet_deploy") / "data" / "caltech101.safetensors"))


def default_model() -> Path:
    """Return `$ALEXNET_MODEL` if it is set, else the bundled checkpoint."""
    variable = os.environ.get(MODEL_VARIABLE)
    return Path(variable) if variable else bundled_checkpoint()


def open_model(
    model: Path | None, options: EngineOptions, *, notify: Callable[[str], None] = lambda _: None
) -> Engine:
    """Open a model file or a checkpoint, ready to run.

    Args:
        model: `.onnx`, `.safetensors` or `.pt`; None for `default_model()`.
        options: how to run it.
        notify: called with one line for a person when something takes a while or is done
            differently: an export, a cache that cannot be used.

    Raises:
        IncompatibleFileError: the file is not one of ours or is damaged.
        UsageError: the file does not exist.
        VerificationError: the checkpoint's export does not compute what it should.
    """
    return open_engine(load_model(model or default_model(), notify=notify), options)


def load_model(path: Path, *, notify: Callable[[str], None] = lambda _: None) -> ModelFile:
    """Read an `.onnx` file, or export a checkpoint into the user's cache and read that."""
    if not path.is_file():
        raise UsageError(f"{path}: no such model file; give --model a checkpoint or an .onnx file")
    if path.suffix == ".onnx":
        return read_model(path)
    if path.suffix in CHECKPOINT_SUFFIXES:
        return _exported(load_checkpoint(path), path, notify)
    raise IncompatibleFileError(
        f"{path}: a model ends in .onnx or {', '.join(CHECKPOINT_SUFFIXES)}, "
        f"not in {path.suffix or 'no suffix'}; rename or export it"
    )


def cache_directory() -> Path:
    """Return where exported checkpoints are kept: `$XDG_CACHE_HOME/alexnet-deploy`."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "alexnet-deploy"


def _exported(checkpoint: Checkpoint, source: Path, notify: Callable[[str], None]) -> ModelFile:
    """Return the checkpoint's verified export, from the cache when it is there."""
    identity = f"{GRAPH_VERSION} {checkpoint.fingerprint} {checkpoint.spec.to_json()}"
    name = f"{source.stem}-{hashlib.sha256(identity.encode()).hexdigest()[:24]}.onnx"
    cached = cache_directory() / name
    with suppress(OSError, IncompatibleFileError):
        file = read_model(cached)
        if file.report is not None:
            return file
    notify(f"preparing {source.name}: exported once, then kept in {cached.parent}")
    photographs = sample_paths()[:_NUM_CACHE_SAMPLES]
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        export_onnx(checkpoint, cached, photographs=photographs)
    except (OSError, OutputError) as error:
        notify(f"the cache cannot be used ({error}); a temporary one is used for this run")
        with tempfile.TemporaryDirectory(prefix="alexnet-deploy-") as folder:
            temporary = Path(folder) / name
            export_onnx(checkpoint, temporary, photographs=photographs)
            return dataclasses.replace(read_model(temporary), source=str(source))
    return dataclasses.replace(read_model(cached), source=str(source))
