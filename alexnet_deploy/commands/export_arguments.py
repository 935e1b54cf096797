"""What was said to `alexnet-deploy export`, and which of it means nothing beside the rest."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from alexnet_deploy.choices import FilePrecision, Runtime
from alexnet_deploy.console.reporting import print_result
from alexnet_deploy.errors import UsageError

if TYPE_CHECKING:
    from alexnet_deploy.graph.report import Report
    from alexnet_deploy.model.checkpoints import Checkpoint
    from alexnet_deploy.runtimes.engine_file import HardwareCompatibility
    from alexnet_deploy.weights.names import ModelSource


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExportArguments:
    """What was said on the command line, under the names of its options."""

    source: "ModelSource"
    output: Path | None
    triton: Path | None
    precision: FilePrecision
    calibrate: Path | None
    trt: bool
    rtx: bool
    lrn: Literal["plugin", "native"] | None
    min_batch: int | None
    opt_batch: int | None
    max_batch: int | None
    compute_capability: tuple[str, ...]
    version_compatible: bool
    hardware_compatible: "HardwareCompatibility"
    layers: tuple[str, ...]
    opset: int | None
    verify_on: Path | None
    no_verify: bool
    as_json: bool
    runtime: Runtime
    threads: int | None

    @property
    def is_engine(self) -> bool:
        """Whether an engine is to be written, and not an ONNX file."""
        return self.trt or self.rtx

    @property
    def target(self) -> Path:
        """The file to write."""
        if self.triton is not None:
            return self.triton / self.name / "1" / f"model{'.plan' if self.is_engine else '.onnx'}"
        return self.output or Path(f"{self.name}{'.engine' if self.is_engine else '.onnx'}")

    @property
    def name(self) -> str:
        """What the network is called, if nothing else is said."""
        return Path(str(self.source)).stem

    def load(self) -> "Checkpoint":
        """Read the checkpoint."""
        from alexnet_deploy.weights.names import open_checkpoint

        return open_checkpoint(self.source)

    def verification_photographs(self) -> tuple[Path, ...] | None:
        """Find what to verify on; None is not to verify."""
        from alexnet_deploy.photographs.finding import find_photographs
        from alexnet_deploy.photographs.samples import varied_samples

        if self.no_verify:
            return None
        folder = self.verify_on
        return varied_samples() if folder is None else tuple(find_photographs([folder]))

    def calibration_photographs(self) -> tuple[Path, ...] | None:
        """Find what to calibrate on; None is the varied samples."""
        from alexnet_deploy.photographs.finding import find_photographs

        return None if self.calibrate is None else tuple(find_photographs([self.calibrate]))

    def show(self, report: "Report") -> None:
        """Print a report as soon as it is there; --json prints it at the end, with the rest."""
        if not self.as_json:
            print_result(report.table())


def check_export(arguments: ExportArguments) -> None:
    """Refuse options that mean nothing beside the others.

    Raises:
        UsageError: naming the option.
    """
    for_engines = {
        "--lrn": arguments.lrn,
        "--min-batch": arguments.min_batch,
        "--opt-batch": arguments.opt_batch,
        "--max-batch": arguments.max_batch,
        "--compute-capability": arguments.compute_capability,
        "--version-compatible": arguments.version_compatible,
        "--hardware-compatible": arguments.hardware_compatible != "none",
    }
    if arguments.trt and arguments.rtx:
        raise UsageError("--trt and --rtx: build engines of two libraries; choose one")
    if arguments.triton is not None:
        _check_triton(arguments)
        del for_engines["--max-batch"]
    for option, value in for_engines.items():
        if value and not arguments.is_engine:
            library = "--rtx" if option == "--compute-capability" else "--trt"
            raise UsageError(f"{option}: is for engines; add {library}, or leave it out")
    if arguments.is_engine and (arguments.runtime != "auto" or arguments.threads):
        option = "--threads" if arguments.runtime == "auto" else "--runtime"
        raise UsageError(
            f"{option}: is for ONNX files, an engine runs as it is built; leave it out"
        )
    if arguments.opset and (arguments.is_engine or arguments.precision == "bf16"):
        what = "an engine has no operators of ONNX" if arguments.is_engine else "bf16 needs 22"
        raise UsageError(f"--opset: {what}; leave it out")
    if arguments.verify_on and arguments.no_verify:
        raise UsageError("--verify-on and --no-verify: mean opposite things; choose one")
    if arguments.calibrate and arguments.precision != "int8":
        raise UsageError("--calibrate: only int8 needs it; add --precision int8, or leave it out")


def _check_triton(arguments: ExportArguments) -> None:
    """Refuse what Triton cannot serve, and a name for the file.

    Raises:
        UsageError: naming the option.
    """
    refused = {
        "--output": (arguments.output, "--triton names the files"),
        "--rtx": (arguments.rtx, "Triton runs TensorRT's engines, of --trt"),
        "--version-compatible": (
            arguments.version_compatible,
            "the container has to have the TensorRT that built the plan",
        ),
        "--min-batch": ((arguments.min_batch or 1) > 1, "Triton passes single photographs on, too"),
    }
    for option, (is_given, why) in refused.items():
        if is_given:
            raise UsageError(f"{option}: {why}; leave it out")
    if arguments.precision == "bf16" and not arguments.trt:
        raise UsageError(
            "--precision bf16: Triton's ONNX Runtime has none; add --trt, or take fp16"
        )
