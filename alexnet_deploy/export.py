"""Checkpoint to a verified model file; the one way by which `.onnx` files are made."""

from collections.abc import Sequence
from pathlib import Path

from alexnet_deploy.checkpoints import Checkpoint
from alexnet_deploy.engines.base import DEFAULT_OUTPUTS, EngineOptions, check_outputs
from alexnet_deploy.onnx_graph import build_model, write_model
from alexnet_deploy.verification import Report, verify


def export_onnx(
    checkpoint: Checkpoint,
    path: Path,
    *,
    outputs: tuple[str, ...] = DEFAULT_OUTPUTS,
    photographs: Sequence[Path] | None = None,
    options: EngineOptions | None = None,
) -> Report | None:
    """Write `checkpoint` as `.onnx`, after comparing it with the reference.

    Args:
        checkpoint: what to export.
        path: the file to write; it appears only when verification passed.
        outputs: layers that the file offers.
        photographs: what to verify on; None writes the file unverified and returns None.
        options: how to run the artefact while verifying.

    Raises:
        VerificationError: the artefact differs; nothing was written.
        OutputError: the file cannot be written.
        UsageError: a layer that the network does not have.
    """
    check_outputs(outputs, checkpoint.spec)
    file = build_model(checkpoint, outputs)
    report = None
    if photographs is not None:
        report = verify(file, checkpoint, photographs, options or EngineOptions())
        report.raise_if_failed(str(path))
        file = file.with_report(report.to_dict())
    write_model(file, path)
    return report
