"""Options that several commands share, as decorators, and the values that they become."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from alexnet_deploy.choices import DEVICES, PRECISIONS, RUNTIMES, Device, Precision, Runtime
from alexnet_deploy.console.decoding import decoded_memory_option
from alexnet_deploy.console.paths import FILE, MODEL
from alexnet_deploy.console.reporting import say

if TYPE_CHECKING:
    from alexnet_deploy.index.model import ModelRequest
    from alexnet_deploy.inference.failures import FailureLimit
    from alexnet_deploy.inference.model import Model
    from alexnet_deploy.runtimes.base import Runner, RunnerOptions

_Command = Callable[..., None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelArguments:
    """What `--model`, `--runtime` and the others said; a command gets it as `model_arguments`."""

    runtime: Runtime
    device: Device
    precision: Precision
    batch_size: int | None
    threads: int | None
    model: str | None = None

    def runner_options(self, outputs: tuple[str, ...] = ()) -> "RunnerOptions":
        """Return the runner options; `outputs` are the layers to compute."""
        from alexnet_deploy.runtimes.base import RunnerOptions

        return RunnerOptions(
            runtime=self.runtime,
            device=self.device,
            precision=self.precision,
            batch_size=self.batch_size or 32,
            exact_batch=self.batch_size is not None,
            threads=self.threads,
            outputs=outputs,
        )

    def request(self, layer: str | None = None) -> "ModelRequest":
        """Return what to ask of an index's runner; what was not said is the index's to say."""
        from alexnet_deploy.index.model import ModelRequest
        from alexnet_deploy.weights.names import chosen_model

        return ModelRequest(
            model=None if self.model is None else chosen_model(self.model, notify=say),
            layer=layer,
            precision=self.precision,
            runtime=self.runtime,
            device=self.device,
            batch_size=self.batch_size,
            threads=self.threads,
        )

    def open(self) -> "Model":
        """Open the model and print on stderr, once, what runs."""
        from alexnet_deploy.export.opening import open_model

        model = open_model(
            self.model,
            runtime=self.runtime,
            device=self.device,
            precision=self.precision,
            batch_size=self.batch_size,
            threads=self.threads,
            notify=say,
        )
        say(model.description)
        return model

    def open_runner(self, outputs: tuple[str, ...]) -> "Runner":
        """Open a runner for these layers and print on stderr, once, what runs."""
        from alexnet_deploy.export.opening import open_runner_of
        from alexnet_deploy.weights.names import chosen_model

        source = chosen_model(self.model, notify=say)
        runner = open_runner_of(source, self.runner_options(outputs), notify=say)
        say(runner.description)
        return runner


def _failure_limit(ctx: click.Context, param: click.Parameter, value: str) -> "FailureLimit":
    from alexnet_deploy.inference.failures import FailureLimit

    return FailureLimit.parse(value)


def runtime_options(
    command: _Command,
    *,
    precision_default: str = "auto, the file's own; of a checkpoint fp32",
    batch_size_default: str = "32",
) -> _Command:
    """Add `--runtime --device --precision --batch-size --threads`, collected in one argument.

    And `--max-decoded-memory`, which holds for the process.
    """
    options = (
        click.option(
            "--runtime",
            type=click.Choice(RUNTIMES),
            default="auto",
            show_default=True,
            help="Library that runs the network; auto takes the fastest installed.",
        ),
        click.option(
            "--device",
            type=click.Choice(DEVICES),
            default="auto",
            show_default=True,
            help="auto is the GPU where the installed ONNX Runtime can use one, else the CPU.",
        ),
        click.option(
            "--precision",
            type=click.Choice(PRECISIONS),
            default="auto",
            help=f"Arithmetic of the network.  [default: {precision_default}]",
        ),
        click.option(
            "--batch-size",
            type=click.IntRange(min=1),
            help=f"Photographs per call of the network.  [default: {batch_size_default}]",
        ),
        click.option(
            "--threads",
            type=click.IntRange(min=1),
            help="CPU threads, for the network and for decoding.  [default: all cores]",
        ),
        decoded_memory_option,
    )

    @functools.wraps(command)
    def collected(**arguments: Any) -> None:
        names = [field.name for field in dataclasses.fields(ModelArguments)]
        own = {name: arguments.pop(name) for name in names if name in arguments}
        command(model_arguments=ModelArguments(**own), **arguments)

    return _add(options, collected)


def model_options(command: _Command) -> _Command:
    """Add `--model` and the runtime options, collected in one argument `model_arguments`."""
    model = click.option(
        "--model",
        type=MODEL,
        help="Checkpoint, .onnx or .engine file, or a public network's name.  "
        "[default: $ALEXNET_MODEL, else the bundled checkpoint]",
    )
    return model(runtime_options(command))


def index_options(command: _Command) -> _Command:
    """Add `--index`, and the runner's options with what an index says as their defaults."""
    index = click.option(
        "--index",
        "directory",
        type=FILE,
        envvar="ALEXNET_INDEX",
        default="alexnet-index",
        show_default=True,
        show_envvar=True,
        help="Directory of the index.",
    )
    model = click.option(
        "--model",
        type=MODEL,
        help="Checkpoint, .onnx or .engine file, or a public network's name.  "
        "[default: the index's; else as for classify]",
    )
    runtime = functools.partial(
        runtime_options,
        precision_default="the index's; the model file's own for a new one",
        batch_size_default="32, or fewer where fewer are given",
    )
    return _add((index, model, runtime), command)


def max_failures_option(command: _Command) -> _Command:
    """Add `--max-failures`."""
    option = click.option(
        "--max-failures",
        callback=_failure_limit,
        metavar="NUMBER|PERCENT%",
        default="1%",
        show_default=True,
        help="Exit with 3 if more photographs than this cannot be read.",
    )
    return option(command)


def failure_options(command: _Command) -> _Command:
    """Add `--include-hidden` and `--max-failures`."""
    include_hidden = click.option(
        "--include-hidden",
        is_flag=True,
        help="Include hidden files and folders, and thumbnails such as @eaDir.",
    )
    return _add((include_hidden, max_failures_option), command)


def photograph_options(command: _Command) -> _Command:
    """Add the argument PATH... and the options of `failure_options`."""
    paths = click.argument("paths", metavar="PATH...", nargs=-1, required=True)
    return paths(failure_options(command))


def _add(options: tuple[Callable[[_Command], _Command], ...], command: _Command) -> _Command:
    """Apply decorators so that `--help` lists them in the order given."""
    for option in reversed(options):
        command = option(command)
    return command
