"""`alexnet-deploy export`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from alexnet_deploy.commands import options as shared
from alexnet_deploy.commands.reporting import print_result

if TYPE_CHECKING:
    from alexnet_deploy.engines.base import Runtime


@click.command(epilog="Example: alexnet-deploy export ckpt.pt -o alexnet.onnx --verify-on photos/")
@click.argument("checkpoint", type=shared.FILE, required=False)
@click.option(
    "-o", "--output", type=shared.FILE, help="File to write.  [default: CKPT's name .onnx]"
)
@click.option(
    "--layer",
    "layers",
    multiple=True,
    help="Layer to offer as an output; repeat for more.  [default: probabilities, fc7]",
)
@click.option(
    "--preset", help="Which AlexNet a state dict is: paper, torchvision, caffe, caffenet."
)
@click.option("--labels", type=shared.FILE, help="Class names, one a line, in output order.")
@click.option("--verify-on", type=shared.FILE, help="Photographs to verify on.  [default: samples]")
@click.option("--no-verify", is_flag=True, help="Write the file unverified, and say so in it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--runtime",
    type=click.Choice(shared.RUNTIMES),
    default="auto",
    show_default=True,
    help="Library that runs the file while it is verified.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Its CPU threads.  [default: all]")
def export(
    checkpoint: Path | None,
    output: Path | None,
    layers: tuple[str, ...],
    preset: str | None,
    labels: Path | None,
    verify_on: Path | None,
    no_verify: bool,
    as_json: bool,
    runtime: "Runtime",
    threads: int | None,
) -> None:
    """Write a checkpoint as a verified ONNX file.

    The fp32 file is compared with a NumPy reference on photographs, and written only if it
    computes the same (exit 4 if not). CHECKPOINT is .safetensors or .pt; without one,
    $ALEXNET_MODEL or the bundled one. With --json: {"file", "fingerprint", "report"}; report is
    null with --no-verify.
    """
    from alexnet_deploy.checkpoints import load_checkpoint, read_labels
    from alexnet_deploy.engines.base import DEFAULT_OUTPUTS, EngineOptions
    from alexnet_deploy.export import export_onnx
    from alexnet_deploy.images import find_photographs
    from alexnet_deploy.models import default_model
    from alexnet_deploy.path_text import printable
    from alexnet_deploy.samples import sample_paths

    source = checkpoint or default_model()
    names = None if labels is None else read_labels(labels)
    loaded = load_checkpoint(source, preset=preset, labels=names)
    target = output or Path(f"{source.stem}.onnx")
    photographs = sample_paths() if verify_on is None else find_photographs([verify_on])
    file = export_onnx(
        loaded,
        target,
        outputs=layers or DEFAULT_OUTPUTS,
        photographs=None if no_verify else photographs,
        options=EngineOptions(runtime=runtime, threads=threads),
        on_report=lambda report: None if as_json else print_result(report.table()),
    )
    if as_json:
        result = {"file": str(target), "fingerprint": file.fingerprint, "report": file.report}
        print_result(json.dumps(result))
    else:
        note = ", not verified, as asked" if no_verify else ""
        size_mb = target.stat().st_size / 1e6
        print_result(f"{printable(target)}: {size_mb:.1f} MB{note}")
