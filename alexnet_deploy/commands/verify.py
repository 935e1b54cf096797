"""`alexnet-deploy verify`."""

import json
from pathlib import Path

import click

from alexnet_deploy.commands import options as shared
from alexnet_deploy.console.paths import FILE, MODEL
from alexnet_deploy.console.reporting import Reporter, print_result, say


@click.command(epilog="Example: alexnet-deploy verify alexnet.onnx --against ckpt.pt --on photos/")
@click.argument("file", type=FILE)
@click.option("--against", type=MODEL, help="Checkpoint or public network to compare FILE with.")
@click.option("--on", "folder", type=FILE, help="Photographs to use.  [default: samples]")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
@shared.runtime_options
def verify(
    file: Path,
    against: str | None,
    folder: Path | None,
    as_json: bool,
    model_arguments: shared.ModelArguments,
) -> None:
    """Check that an ONNX file or an engine computes what it should here.

    FILE, an .onnx or .engine file of ours, is run on this machine and compared with a NumPy
    reference. Without --against an .onnx file is compared with its own weights, after checking
    that they are the ones that were exported; an engine hides its weights, so it needs the
    checkpoint that it was built from, unless that is the bundled one. Exit 4 when it fails.
    """
    from alexnet_deploy.files.path_text import printable
    from alexnet_deploy.photographs.finding import find_photographs
    from alexnet_deploy.photographs.samples import varied_samples
    from alexnet_deploy.verification.file import verify_file
    from alexnet_deploy.weights.names import chosen_model, open_checkpoint

    source = None if against is None else chosen_model(against, notify=say)
    checkpoint = None if source is None else open_checkpoint(source)
    photographs = varied_samples() if folder is None else tuple(find_photographs([folder]))
    options = model_arguments.runner_options()
    with Reporter(lambda: photographs) as reporter:
        report = verify_file(file, checkpoint, photographs, options, reporter.advance)
    print_result(json.dumps(report.to_dict()) if as_json else report.table())
    report.raise_if_failed(printable(file))
    if checkpoint is None:
        say(
            "compared with the file's own weights: computed right, but whose they are it does not "
            "show; name their checkpoint with --against"
        )
