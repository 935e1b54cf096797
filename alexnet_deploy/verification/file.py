"""Verify a file on disk, a model or an engine."""

from collections.abc import Callable, Iterable
from pathlib import Path

from alexnet_deploy.errors import Argument, UsageError
from alexnet_deploy.graph.reading import RewrittenFileError, read_model
from alexnet_deploy.graph.report import Report
from alexnet_deploy.model.checkpoints import Checkpoint, load_checkpoint
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.runtimes.base import RunnerOptions
from alexnet_deploy.runtimes.engine_file import ENGINE_SUFFIXES, read_engine
from alexnet_deploy.verification.engine import verify_engine
from alexnet_deploy.verification.onnx import verify
from alexnet_deploy.verification.rewritten import verify_rewritten


def verify_file(
    path: Path,
    checkpoint: Checkpoint | None,
    photographs: Iterable[Path],
    options: RunnerOptions,
    on_photograph: Callable[[Path, str | None], None] = lambda path, error: None,
) -> Report:
    """Run the file at `path` and the reference on `photographs` and compare.

    Args:
        path: an `.onnx` or `.engine` file; one that another tool rewrote needs `checkpoint`.
        checkpoint: what it should compute; None for a model file's own weights, or for the bundled
            checkpoint if an engine was built from it.
        photographs: as for `verification.onnx.verify`.
        options: how to run the file.
        on_photograph: as for `verification.onnx.verify`.

    Raises:
        UsageError: the file is missing, or an engine of another checkpoint is given without it.
        IncompatibleFileError, DeviceError, NoPhotographsError: as for `verification.onnx.verify`.
    """
    if path.suffix not in ENGINE_SUFFIXES:
        try:
            model = read_model(path)
        except RewrittenFileError as error:
            if checkpoint is None:
                raise
            return verify_rewritten(path, error, checkpoint, photographs, options, on_photograph)
        return verify(model, checkpoint, photographs, options, on_photograph)
    file = read_engine(path)
    if checkpoint is None:
        checkpoint = load_checkpoint(bundled_checkpoint())
        if checkpoint.identity != file.record.checkpoint:
            raise UsageError(
                f"{path}: an engine hides its weights; name the checkpoint that it was built from "
                f"(identity {file.record.checkpoint[:16]}...) with ",
                Argument("checkpoint"),
            )
    return verify_engine(file, checkpoint, photographs, options, on_photograph)
