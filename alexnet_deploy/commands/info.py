"""`alexnet-deploy info`."""

import json
import os
from pathlib import Path

import click

from alexnet_deploy.console.paths import MODEL
from alexnet_deploy.console.reporting import print_result, say
from alexnet_deploy.errors import UsageError


@click.command(epilog="Example: alexnet-deploy info alexnet.onnx")
@click.argument("file", type=MODEL, required=False)
@click.option("--check", is_flag=True, help="Read all of an index; exit 5 if anything is wrong.")
@click.option(
    "--failures", is_flag=True, help="Print each photograph of an index that failed, and why."
)
@click.option(
    "-0", "--null", is_flag=True, help="Print only the paths of --failures, each with a NUL."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(file: str | None, check: bool, failures: bool, null: bool, as_json: bool) -> None:
    """Describe a checkpoint, an ONNX file, an engine, a coder, vectors or an index.

    Network, preprocessing, labels, identity, provenance, and what the file says of its own
    verification; of vectors how they were made, and whether an .npy agrees with its .json; of an
    index its photographs, roots, last runs and most frequent failures.

    FILE is a checkpoint, an .onnx or .engine file of ours, the name of a public network, a coder of
    index --coder, an .npy, .json or .parquet of embed, or the directory of an index; without one,
    $ALEXNET_MODEL or the bundled checkpoint.
    """
    if null and not failures:
        raise UsageError("-0 ends the paths of --failures; add --failures")
    if failures:
        _print_failures(file, check, null, as_json)
        return
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


def _print_failures(file: str | None, check: bool, null: bool, as_json: bool) -> None:
    from alexnet_deploy.files.path_text import path_fields, printable
    from alexnet_deploy.index.status import failures_of

    if check or (null and as_json):
        raise UsageError(f"--failures and --{'check' if check else 'json -0'}: choose one")
    if file is None or os.path.isfile(file):
        raise UsageError(f"{file or 'FILE'}: --failures is for an index; name its directory")
    for path, reason in failures_of(Path(file)):
        if null:
            print_result(os.fsencode(path) + b"\0")
        elif as_json:
            print_result(json.dumps(path_fields(path) | {"error": reason}))
        else:
            print_result(printable(f"{path}: {reason}"))
