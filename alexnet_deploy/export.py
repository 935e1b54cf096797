"""Checkpoint to a verified model file; the one way by which `.onnx` files are made."""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

from alexnet_deploy.checkpoints import Checkpoint
from alexnet_deploy.engines.base import DEFAULT_OUTPUTS, EngineOptions, check_outputs
from alexnet_deploy.errors import UsageError
from alexnet_deploy.model_file import ModelFile
from alexnet_deploy.onnx_graph import build_model
from alexnet_deploy.output_files import atomic_write
from alexnet_deploy.verification_report import Report


def export_onnx(
    checkpoint: Checkpoint,
    path: Path,
    *,
    outputs: tuple[str, ...] = DEFAULT_OUTPUTS,
    photographs: Iterable[Path] | None,
    options: EngineOptions | None = None,
    on_report: Callable[[Report], None] = lambda report: None,
) -> ModelFile:
    """Write `checkpoint` as `.onnx`, after comparing it with the reference.

    Args:
        checkpoint: what to export.
        path: the file to write; it appears only when verification passed.
        outputs: layers that the file offers.
        photographs: what to verify on; None writes the file unverified, without a report.
        options: how to run the artefact while verifying.
        on_report: called with the report, passed or failed, before anything is written.

    Raises:
        VerificationError: the artefact differs; nothing was written.
        OutputError: the file cannot be written.
        UsageError: a layer that the network does not have, or a name not ending in .onnx, by
            which no command would know the file.
    """
    check_outputs(outputs, checkpoint.spec)
    if path.suffix != ".onnx":
        raise UsageError(f"{path}: a model file's name ends in .onnx; choose such a name")
    # Opened first: a place that cannot be written must show before minutes of verification.
    with atomic_write(path) as target:
        if photographs is None:
            file = build_model(checkpoint, outputs)
        else:
            file = verified_model(
                checkpoint,
                outputs=outputs,
                photographs=photographs,
                options=options or EngineOptions(),
                on_report=on_report,
            )
        target.writelines(file.chunks())
    return file


def verified_model(
    checkpoint: Checkpoint,
    *,
    outputs: tuple[str, ...],
    photographs: Iterable[Path],
    options: EngineOptions,
    on_report: Callable[[Report], None] = lambda report: None,
) -> ModelFile:
    """Build the model in memory and verify it; its report is in it.

    Raises:
        VerificationError: it differs from the reference.
    """
    # Here, because an export without verification needs none of what it brings along.
    from alexnet_deploy.verification import verify

    file = build_model(checkpoint, outputs)
    report = verify(file, checkpoint, photographs, options)
    on_report(report)
    report.raise_if_failed(file.source)
    return dataclasses.replace(file, report=report.to_dict())
