"""`alexnet-deploy bench`."""

import functools
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alexnet_deploy.choices import DEVICES, PRECISIONS, RUNTIMES, SCALES
from alexnet_deploy.commands import options as shared
from alexnet_deploy.console.decoding import decoding_options, given_bounds
from alexnet_deploy.console.paths import FILE, MODEL
from alexnet_deploy.console.reporting import Reporter, in_options, print_result, say
from alexnet_deploy.errors import UsageError

if TYPE_CHECKING:
    from alexnet_deploy.benchmark.settings import Setting
    from alexnet_deploy.inference.failures import FailureLimit


_several = functools.partial(click.option, multiple=True)


@click.command(epilog="Example: alexnet-deploy bench photos/ --precision fp32 --precision int8")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--chart", type=FILE, help="Draw the rates and their bounds as PNG.")
@click.option(
    "--photographs",
    "num_photographs",
    type=click.IntRange(1, 4000),
    default=100,
    show_default=True,
    help="Of more, as many at equal distances.",
)
@click.option(
    "--rounds",
    "num_rounds",
    type=click.IntRange(1, 1000),
    default=5,
    show_default=True,
    help="In each, everything takes its turn.",
)
@functools.partial(shared.photograph_options, is_optional=True)
@click.option(
    "--model",
    type=MODEL,
    help="As for classify.  [default: $ALEXNET_MODEL, else the bundled checkpoint]",
)
@_several(
    "--runtime",
    "runtimes",
    type=click.Choice(RUNTIMES[1:]),
    help="Library; repeat for more.  [default: each that is installed]",
)
@click.option(
    "--device",
    type=click.Choice(DEVICES),
    default="auto",
    show_default=True,
    help="auto is each that this machine has.",
)
@_several(
    "--precision",
    "precisions",
    type=click.Choice(PRECISIONS[1:]),
    help="Arithmetic; repeat for more.  [default: fp32, and bf16 or fp16 where that is faster]",
)
@_several(
    "--batch-size",
    "batch_sizes",
    type=click.IntRange(min=1),
    default=(32,),
    help="Photographs per call of the network; repeat for more.  [default: 32]",
)
@_several(
    "--decode",
    "scales",
    type=click.Choice(SCALES),
    help="How JPEGs are decoded; repeat for more.  [default: exact, and scaled for large "
    "photographs]",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: all cores]")
@decoding_options
def bench(
    photographs: shared.Photographs | None,
    as_json: bool,
    chart: Path | None,
    max_failures: "FailureLimit",
    model: str | None,
    **choices: Any,
) -> None:
    """Measure how fast this machine embeds photographs, and what bounds it.

    PATH is a file, a folder (searched recursively) or a pattern; without one, the 100 sample
    photographs. Each is read before anything is timed, so that no figure is of the disk. All that
    is measured takes turns, round after round, and figures are medians over the rounds.

    Decoding alone and the network alone, each on all cores, bound what both can do together:
    1 / (1/decoding + 1/network) on a CPU, whose cores they share, the slower of the two beside a
    GPU. The whole is what `embed` does with the model open, "with start" the same in a new process.
    What is faster is recommended only if on these photographs it agrees with fp32 as far as
    `verify` demands of its precision, scaled decoding as far as of bf16: the share with the same
    class, and the cosine of their FC7 vectors.

    Rates in JSON are photographs a second, each its median and the quartiles.
    """
    from alexnet_deploy.benchmark.measuring import bench as measured
    from alexnet_deploy.benchmark.settings import Choices
    from alexnet_deploy.benchmark.table import table
    from alexnet_deploy.figures.rates import open_chart
    from alexnet_deploy.inference.failures import check_failures
    from alexnet_deploy.photographs.samples import sample_paths
    from alexnet_deploy.weights.names import chosen_model

    report = Reporter()
    with open_chart(chart) as draw:
        found = measured(
            chosen_model(model, notify=say),
            sample_paths() if photographs is None else _files(photographs),
            Choices(**choices),
            new_process=_embedding(model),
            notify=say,
            on_photograph=report.advance,
        )
        draw(found)
    print_result(found.to_json() if as_json else in_options(table(found)))
    total = found.num_photographs + found.num_failed
    check_failures(found.num_failed, total, max_failures)


def _files(photographs: shared.Photographs) -> "Iterator[Path]":
    """Yield the photographs that were named, which a new process must find, too."""
    if "-" in photographs.paths:
        raise UsageError("-: is standard input, which can be read only once; name files")
    return (path for path in photographs.find() if isinstance(path, Path))


def _embedding(model: str | None) -> "Callable[[Setting, Path, Path], list[str]]":
    """Return what makes the command line of a new process that embeds."""
    bounds = given_bounds()

    def command(setting: "Setting", listed: Path, output: Path) -> list[str]:
        own = setting.options
        options = {
            "--from-file": listed,
            "--output": output,
            "--model": model,
            "--runtime": own.runtime,
            "--device": own.device,
            "--precision": own.precision,
            "--batch-size": own.batch_size,
            "--threads": own.threads,
            "--decode": setting.decode.scale,
            **bounds,
        }
        pairs = ((name, str(value)) for name, value in options.items() if value is not None)
        return [sys.executable, "-m", "alexnet_deploy", "embed", *itertools.chain(*pairs)]

    return command
