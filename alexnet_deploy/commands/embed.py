"""`alexnet-deploy embed`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from alexnet_deploy.choices import LAYERS, POOLS, STORED_TYPES, Pool, StoredType
from alexnet_deploy.commands import options as shared
from alexnet_deploy.console.decoding import pixel_options
from alexnet_deploy.console.paths import FILE, LAYER
from alexnet_deploy.console.reporting import Reporter, print_result, say

if TYPE_CHECKING:
    from alexnet_deploy.inference.failures import FailureLimit


def _layer_table() -> str:
    """Return what `--layer` takes, a line a layer."""
    head = ("LAYER", "ReLU", "torchvision's name", "Caffe's")
    rows = [(one.name, one.relu, " ".join(one.torchvision), " ".join(one.caffe)) for one in LAYERS]
    lines = ("{:13}  {:6}  {:32}  {}".format(*row).rstrip() for row in (head, *rows))
    return "\n".join(("\b", *lines))


@click.command(
    epilog=f"{_layer_table()}\n\n"
    "Example: alexnet-deploy embed photos/ -o vectors.npy --layer features.0"
)
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
    help="Layer to take, by any name in the table below, or all; repeat for more.  [default: fc7]",
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
@shared.fast_option
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

    LAYER is a row of the table below, by any of its names; files and results have the first. One
    before ReLU is what came out of torchvision's module, before its ReLU overwrites that in place.

    Row n is photograph n; one that cannot be read is a row of NaN, in .parquet a null, with its
    reason in .paths.jsonl or the column error. Several layers go to one .npy each,
    OUTPUT.LAYER.npy. A run that was stopped, or killed, is continued by the same command.

    How the vectors were made is in OUTPUT.json, or in the .parquet file's metadata; info prints it.
    Vectors are comparable if identity, layers, precision and decode, how files became pixels, are
    the same.
    """
    from alexnet_deploy.inference import embeddings
    from alexnet_deploy.inference.run import RunSummary
    from alexnet_deploy.photographs.sources import path_of

    embeddings.files_of(output, layers[:1])  # its suffix; layers are for the network to judge
    options = embeddings.EmbedOptions(
        layers=layers,
        pool=pool,
        dtype=dtype,
        decode=model_arguments.decoding(),
        command=("alexnet-deploy", *sys.argv[1:]),
    )
    find, summary = photographs.find, RunSummary()
    found, report = find(summary.left_out), Reporter(find)
    with model_arguments.open_runner(layers, photographs, output) as runner, report:
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
