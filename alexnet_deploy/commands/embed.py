"""`alexnet-deploy embed`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from alexnet_deploy.choices import POOLS, STORED_TYPES, Pool, StoredType
from alexnet_deploy.commands import options as shared
from alexnet_deploy.console.decoding import pixel_options
from alexnet_deploy.console.paths import FILE, LAYER
from alexnet_deploy.console.reporting import Reporter, print_result, say

if TYPE_CHECKING:
    from alexnet_deploy.inference.failures import FailureLimit


@click.command(epilog="Example: alexnet-deploy embed photos/ -o vectors.npy --layer fc7")
@click.option(
    "-o",
    "--output",
    type=FILE,
    required=True,
    help="File to write: .npy (with .json and .paths.jsonl beside it) or .parquet.",
)
@click.option(
    "--layer",
    "layers",
    type=LAYER,
    multiple=True,
    default=("fc7",),
    help="Layer to take, conv1 to logits; repeat for more.  [default: fc7]",
)
@click.option(
    "--pool",
    type=click.Choice(POOLS),
    default="none",
    show_default=True,
    help="Reduce maps (C, H, W) to one number a channel, (C,).",
)
@click.option(
    "--dtype",
    type=click.Choice(STORED_TYPES),
    default="float32",
    show_default=True,
    help="Of the numbers in the file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@shared.photograph_options
@pixel_options
@shared.model_options
def embed(
    photographs: shared.Photographs,
    output: Path,
    layers: tuple[str, ...],
    pool: Pool,
    dtype: StoredType,
    as_json: bool,
    max_failures: "FailureLimit",
    model_arguments: shared.ModelArguments,
) -> None:
    """Write a layer's activations for photographs.

    PATH is a file, a folder (searched recursively), a pattern such as '*.png', or - for standard
    input.

    Row n is photograph n; one that cannot be read is a row of NaN, in .parquet a null, with its
    reason in .paths.jsonl or the column error. Several layers go to one .npy each,
    OUTPUT.LAYER.npy. A run that was stopped, or killed, is continued by the same command.

    How the vectors were made is in OUTPUT.json, or in the .parquet file's metadata; info prints it.
    With --json the same is printed: {"format", "tool", "tool_version", "identity", "network",
    "spec", "layers": [{"name", "shape", "relu": before, after or none, "pool"}], "dtype", "decode",
    "precision", "runtime", "runtime_version", "device", "command", "date", "num_rows",
    "num_failed", "left_out": {suffix: number}, "files", "failures": [{"row", "path", "error"}]}.
    Vectors are comparable if identity, layers, precision and decode, how files became pixels, are
    the same.
    """
    from alexnet_deploy.inference import embeddings
    from alexnet_deploy.inference.run import RunSummary
    from alexnet_deploy.photographs.sources import path_of

    embeddings.files_of(output, layers)
    command = ("alexnet-deploy", *sys.argv[1:])
    options = embeddings.EmbedOptions(
        layers=layers,
        pool=pool,
        dtype=dtype,
        decode=model_arguments.decoding(),
        command=command,
    )
    find, summary = photographs.find, RunSummary()
    found, report = find(summary.left_out), Reporter(find)
    with model_arguments.open_runner(layers) as runner, report:
        written = embeddings.embed(
            runner,
            found,
            output,
            options,
            threads=model_arguments.threads,
            summary=summary,
            on_result=lambda result: report.advance(path_of(result.source), result.error),
            notify=say,
        )
    print_result(written.to_json() if as_json else written.describe())
    report.finish(summary, max_failures)
