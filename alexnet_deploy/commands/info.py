"""`alexnet-deploy info`."""

import json

import click

from alexnet_deploy.console.paths import MODEL
from alexnet_deploy.console.reporting import print_result, say


@click.command(epilog="Example: alexnet-deploy info alexnet.onnx")
@click.argument("file", type=MODEL, required=False)
@click.option("--check", is_flag=True, help="Read all of an index; exit 5 if anything is wrong.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def info(file: str | None, check: bool, as_json: bool) -> None:
    """Describe a checkpoint, an ONNX file, an engine or an index.

    Network, preprocessing, labels, identity, provenance, and what the file says of its own
    verification; of an index its photographs, roots, last runs and most frequent failures.

    FILE is a checkpoint, an .onnx or .engine file of ours, the name of a public network, or the
    directory of an index; without one, $ALEXNET_MODEL or the bundled checkpoint. The keys of
    --json: path, kind, size_bytes, identity, preset, parameters, spec, layers, arrays, labels,
    provenance; for an .onnx file also checkpoint, outputs, precision, calibration, unchanged and
    report. For an engine these except arrays, calibration and unchanged, and also runtime,
    runtime_version, cuda_version, gpu_name, compute_capabilities, profile, lrn, plugin_sha256,
    status. For an index: path, kind, size_bytes, format, metric, model, identity, layer, dimension,
    preprocessing, precision, decode, photographs, vectors, roots, runs, failures; with --check also
    problems.
    """
    from alexnet_deploy.errors import IncompatibleFileError
    from alexnet_deploy.inspection import describe, readable
    from alexnet_deploy.weights.names import chosen_model, file_of

    description = describe(file_of(chosen_model(file, notify=say)), check=check)
    print_result(json.dumps(description) if as_json else readable(description))
    if description.get("problems"):
        raise IncompatibleFileError(
            f"{file}: {len(description['problems']):,} problems; restore it from a copy, or embed "
            "damaged vectors again with: alexnet-deploy index --repair"
        )
