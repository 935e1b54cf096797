"""`alexnet-deploy info`."""

import json
from pathlib import Path

import click

from alexnet_deploy.commands import options as shared
from alexnet_deploy.commands.reporting import print_result


@click.command(epilog="Example: alexnet-deploy info alexnet.onnx")
@click.argument("file", type=shared.FILE, required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def info(file: Path | None, as_json: bool) -> None:
    """Say what a checkpoint or ONNX file is.

    Network, preprocessing, labels, fingerprint, provenance, verification.

    FILE is a checkpoint or an .onnx file of ours; without one, $ALEXNET_MODEL or the bundled
    checkpoint. The keys of --json: path, kind, size_bytes, fingerprint, preset, parameters, spec,
    layers, arrays, labels, provenance; for an .onnx file also outputs, unchanged and report.
    """
    from alexnet_deploy.inspection import describe, readable
    from alexnet_deploy.models import default_model

    description = describe(file or default_model())
    print_result(json.dumps(description) if as_json else readable(description))
