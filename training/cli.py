"""The command line of the trainer; errors and exit codes are those of `alexnet-deploy`.

130 after SIGINT, 143 after SIGTERM and 129 after SIGHUP; `train` has then written a checkpoint to
resume from.
"""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alexnet_deploy import installed
from alexnet_deploy.console.decoding import decoding_options
from alexnet_deploy.console.group import CommandGroup, ignore_warnings_of_pillow
from alexnet_deploy.console.paths import FILE, MODEL
from alexnet_deploy.console.reporting import Reporter, print_result, say
from alexnet_deploy.console.signals import end_in_order
from alexnet_deploy.errors import MissingPackageError, UsageError
from alexnet_deploy.files.path_text import path_fields, printable

if TYPE_CHECKING:
    from training.recipes import Recipe
    from training.run import RunReport


@click.group(
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: python -m training train photos/ -o runs/first --recipe modern",
)
def cli() -> None:
    """Train AlexNet (2012) in two towers, from folders of photographs to a checkpoint.

    Checkpoints (.pt) are read by every command of alexnet-deploy. Exit codes: 0 done, 1 failed,
    2 wrong usage, 5 incompatible file; 130 after Ctrl-C.
    """


def main() -> None:
    """Run the command line."""
    end_in_order()
    ignore_warnings_of_pillow()
    cli(prog_name="python -m training")


def _require_torch() -> None:
    """Say what to install instead of ending in a traceback.

    Raises:
        MissingPackageError: torch is not installed.
    """
    if not installed.has_module("torch"):
        raise MissingPackageError("torch", "train", "the trainer")


def _workers(context: click.Context, option: click.Parameter, value: int | None) -> int:
    if value is not None:
        return value
    from alexnet_deploy.photographs.pipeline import default_threads

    return default_threads()


def _bytes_of_gigabytes(context: click.Context, option: click.Parameter, value: float) -> int:
    if math.isnan(value):  # which is in every range
        raise click.BadParameter(f"{value} is no number of gigabytes")
    return int(value * 1e9)


def _reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for reading photographs."""
    workers = click.option(
        "--workers",
        "num_workers",
        type=click.IntRange(0),
        callback=_workers,
        help="Processes that decode what is not kept in memory.  [default: one per core]",
    )
    memory = click.option(
        "--memory",
        "memory_bytes",
        type=click.FloatRange(0, 1e6),
        callback=_bytes_of_gigabytes,
        default=4.0,
        show_default=True,
        help="GB of photographs, 0.2 MB each, to keep in memory at most.",
    )
    return workers(memory(command))


@cli.command(epilog="Example: python -m training prepare imagenet/train -o prepared/train")
@click.argument("source", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, help="Folder to fill.")
@click.option("--init", type=MODEL, help="Network whose pictures to make, to fine-tune it.")
@click.option("--threads", type=click.IntRange(1), help="Decode threads.  [default: one per core]")
@decoding_options
def prepare(source: Path, output: Path, init: str | None, threads: int | None) -> None:
    """Store photographs as 256x256 JPEGs, with their mean image and RGB covariance.

    SOURCE has one sub-folder of photographs for each class, and so will the output. As in section 2
    of the paper, the shorter side is scaled to 256 px and the central square is cut out, unless
    the network of --init resizes in another way. If interrupted, run it again to continue.
    """
    _require_torch()
    from alexnet_deploy.photographs.finding import find_photographs
    from alexnet_deploy.weights.names import chosen_model, open_checkpoint
    from training.pictures import PAPER_FORM, form_of
    from training.prepare import prepare as prepare_folder

    form = PAPER_FORM
    if init is not None:
        form = form_of(open_checkpoint(chosen_model(init, notify=say)).spec.preprocessing)
    with Reporter(lambda: find_photographs([source])) as reporter:
        report = prepare_folder(
            source, output, form=form, threads=threads, on_result=reporter.advance
        )
    say(report.line())


@cli.command(epilog="Example: python -m training train photos/ -o runs/first --recipe modern")
@click.argument("data", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, help="Folder of the run.")
@click.option("--resume", is_flag=True, help="Continue the run in the folder.")
@click.option(
    "--recipe",
    "recipe_name",
    type=click.Choice(["paper", "modern"]),
    default="paper",
    show_default=True,
    help="The paper's, or how one would train the network today on a few thousand photographs.",
)
@click.option("--validation", type=FILE, help="Folder of the same classes to validate on.")
@click.option(
    "--hold-out",
    type=float,
    default=0.1,
    show_default=True,
    help="Share of DATA to validate on if there is no --validation; 0 for none.",
)
@click.option(
    "--devices",
    default="cpu,cpu",
    show_default=True,
    help="Of the two towers: cuda:0,cuda:1 or cuda:0,cuda:0 or cpu,cpu. A network "
    "without towers, from --init, is on the first.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "tf32", "bf16"]),
    default="fp32",
    show_default=True,
    help="Of products. bf16 is fast on GPUs since 2020 and on CPUs that have it, slow elsewhere; "
    "tf32 needs such a GPU.",
)
@click.option(
    "--init",
    type=MODEL,
    help="Any network to fine-tune, a file with weights or the name of a public one; fc8 keeps the "
    "rows of classes of the same name.",
)
@click.option(
    "--old-rate-factor",
    type=float,
    default=0.1,
    show_default=True,
    help="Factor on the learning rate of all layers but fc8, where --init lacks some classes.",
)
@click.option(
    "--train",
    type=click.Choice(["all", "head"]),
    default="all",
    show_default=True,
    help="The layers that learn; head is fc8 alone, in half the time, with --init.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Random seed.")
@click.option("--epochs", "num_epochs", type=int, help="Overrides the recipe's.")
@click.option("--batch-size", type=int, help="Overrides the recipe's.")
@click.option("--learning-rate", type=float, help="Overrides the recipe's.")
@click.option(
    "--set",
    "fields",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Another field of the recipe, such as label_smoothing=0.2; repeat for more.",
)
@click.option(
    "--keep",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="Number of checkpoints to keep.",
)
@click.option(
    "--save-minutes",
    type=click.FloatRange(0, min_open=True),
    default=30.0,
    show_default=True,
    help="Minutes between checkpoints within an epoch; each epoch also ends with one.",
)
@_reading_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
def train(
    recipe_name: str,
    num_epochs: int | None,
    batch_size: int | None,
    learning_rate: float | None,
    fields: tuple[str, ...],
    as_json: bool,
    **others: Any,
) -> None:
    """Train a network on DATA, a folder with one sub-folder of photographs for each class.

    The folder of the run gets log.jsonl, curves.png, the checkpoints step-N.pt to --resume from,
    best.pt, the network with the lowest validation error, and skipped.jsonl, the photographs that
    could not be read. Ctrl-C stops after the current step, with a checkpoint. With --json:
    {"checkpoint", "best", "epochs", "steps", "stopped", "last": the last line of the log}.
    """
    _require_torch()
    from alexnet_deploy.weights.names import chosen_model
    from training.options import TrainOptions
    from training.reporting import TerminalReporter
    from training.train import train as run_training

    changes = {
        "num_epochs": num_epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
    }
    given = click.get_current_context().get_parameter_source("old_rate_factor")
    if others["init"] is None and given is click.core.ParameterSource.COMMANDLINE:
        raise UsageError("--old-rate-factor: only --init has old layers; add it, or leave it out")
    if others["init"] is not None:
        others["init"] = chosen_model(others["init"], notify=say)
    recipe = _recipe(recipe_name, changes, fields)
    options = TrainOptions(recipe=recipe, **others)
    report = run_training(options, TerminalReporter())
    print_result(_as_json(report) if as_json else _as_text(report))
    if report.signal_number is not None:
        say("stopped; repeat the command with --resume to continue")
        raise click.exceptions.Exit(128 + report.signal_number)


def _recipe(name: str, changes: dict[str, Any], fields: tuple[str, ...]) -> "Recipe":
    """Return a recipe with the given options in place of its own."""
    from training.recipes import RECIPES

    chosen = {field: value for field, value in changes.items() if value is not None}
    for text in fields:
        field, separator, value = text.partition("=")
        if not separator:
            raise UsageError(f"--set {text!r}: expected FIELD=VALUE, as in label_smoothing=0.2")
        try:
            chosen[field] = json.loads(value)
        except (ValueError, RecursionError):
            chosen[field] = value  # a word
    return RECIPES[name].with_options(chosen)


def _as_text(report: "RunReport") -> str:
    lines = [f"checkpoint: {report.checkpoint}"]
    if report.best is not None:
        lines.append(f"best on validation: {report.best}")
    return "\n".join(map(printable, lines))


def _as_json(report: "RunReport") -> str:
    last = report.records[-1] if report.records else None
    return json.dumps(
        {
            "checkpoint": path_fields(report.checkpoint),
            "best": None if report.best is None else path_fields(report.best),
            "epochs": report.epoch,
            "steps": report.step,
            "stopped": report.signal_number,
            "last": None if last is None else dataclasses.asdict(last),
        }
    )


@cli.command(
    epilog="Example: python -m training shrink runs/first/best.pt photos/ -o small.safetensors"
)
@click.argument("checkpoint", type=FILE)
@click.argument("data", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, help=".safetensors file to write.")
@click.option("--fc6-rank", type=int, default=160, show_default=True, help="Rank of fc6's product.")
@click.option("--fc7-rank", type=int, default=128, show_default=True, help="Rank of fc7's product.")
@click.option(
    "--epochs",
    "num_epochs",
    type=click.IntRange(0),
    default=6,
    show_default=True,
    help="Passes over DATA to train the factors; 0 for the decomposition alone.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Photographs per step.",
)
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda:0.")
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Random seed."
)
@_reading_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
def shrink(fc6_rank: int, fc7_rank: int, as_json: bool, **others: Any) -> None:
    """Shrink CHECKPOINT: fc6 and fc7 as products of two thin matrices, all in float16.

    The factors are distilled from the full network on DATA, the photographs that it was trained
    on. With --json: {"output": {"path"}, "size_bytes", "loss"}.
    """
    _require_torch()
    from training.factoring import Ranks
    from training.reporting import TerminalReporter
    from training.shrink import ShrinkOptions
    from training.shrink import shrink as shrink_checkpoint

    ranks = Ranks(fc6=fc6_rank, fc7=fc7_rank)
    options = ShrinkOptions(ranks=ranks, **others)
    report = shrink_checkpoint(options, TerminalReporter())
    if as_json:
        fields = {"size_bytes": report.size_bytes, "loss": report.loss}
        print_result(json.dumps({"output": path_fields(report.output)} | fields))
    else:
        print_result(f"{printable(report.output)}: {report.size_bytes / 1e6:.2f} MB")
