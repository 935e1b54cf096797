"""`train`: set up a run from its options, and start it."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from alexnet_deploy.errors import Argument, IncompatibleFileError, Message, UsageError
from alexnet_deploy.model.checkpoints import Checkpoint
from alexnet_deploy.model.spec import preset_spec
from alexnet_deploy.weights.names import open_checkpoint
from training.augmentation import Augmentation
from training.beginning import Beginning, from_checkpoint, from_state, new_network
from training.checkpointing import (
    BEST_NAME,
    Progress,
    RunState,
    last_checkpoint,
    load_state,
    own_folder,
)
from training.data import Data, find_data, open_data
from training.devices import (
    keep_freed_memory,
    parse_devices,
    too_little_memory_reported,
    use_precision,
)
from training.epoch_log import LOG_NAME, cut_back
from training.networks import network_of, set_trained
from training.optimizers import optimizer_of, set_memory
from training.options import TrainOptions, check_options, check_photographs, write_run
from training.pictures import form_of
from training.reporting import Reporter
from training.run import Run, RunReport
from training.stopping import stop_after_step
from training.towers import Devices
from training.trainer import Trainer


def train(options: TrainOptions, reporter: Reporter) -> RunReport:
    """Train a network, or resume a run.

    Args:
        options: what to train on, how, and where to write.
        reporter: told of progress.

    Raises:
        UsageError: impossible options, or other ones than the run began with; the folder holds a
            run without `resume`, or none with `resume`.
        DatasetError: the data cannot be trained on.
        DeviceError: a device does not exist or has too little memory.
        IncompatibleFileError: a file is damaged, or of another network.
        DivergedError, OutputError, WorkerError: see `run.Run.train`.
    """
    devices = parse_devices(options.devices)
    use_precision(options.precision, devices)
    checkpoint = _checkpoint_to_resume(options)
    # Quick checks come first: reading the photographs may take minutes.
    if checkpoint is not None:
        check_options(options)
    found = find_data(options)
    init = None if options.init is None or checkpoint else open_checkpoint(options.init)
    keep_freed_memory()
    with own_folder(options.output):
        state = None if checkpoint is None else _load(checkpoint)
        network = state or init
        spec = preset_spec("paper") if network is None else network.spec
        data = open_data(found, options, reporter, form_of(spec.preprocessing))
        if checkpoint is None or state is None:
            beginning = _begin(options, data, init, reporter)
        else:
            beginning = _resume(checkpoint, state, options, data)
        write_run(options, *data.folders)
        with too_little_memory_reported(Argument("devices", options.devices)):
            run = _put_together(options, data, beginning, state, devices, reporter)
            del beginning, state, init, network  # free what network and optimizer have copied
            with stop_after_step() as stop:
                return run.train(stop)


def _checkpoint_to_resume(options: TrainOptions) -> Path | None:
    """Return the last checkpoint with `resume`, None without; refuse a folder that does not fit."""
    found = last_checkpoint(options.output)
    resume, output = Argument("resume", True), Argument("output")
    if options.resume and found is None:
        raise UsageError(
            resume,
            f": {options.output} holds no checkpoint of a run; leave it out to begin one there",
        )
    if options.resume:
        return found
    if found is not None:
        raise UsageError(
            f"{options.output} holds a run already, up to {found.name}; give ",
            resume,
            " to continue it, or another ",
            output,
        )
    if (options.output / BEST_NAME).exists():
        raise UsageError(
            f"{options.output} holds the {BEST_NAME} of an earlier run; give another ", output
        )
    return None


def _begin(
    options: TrainOptions, data: Data, init: Checkpoint | None, reporter: Reporter
) -> Beginning:
    colour = data.colour_statistics(reporter, options.seed)
    if init is None:
        return new_network(data.classes, colour, options.recipe, options.seed)
    beginning = from_checkpoint(init, data.classes, colour, options.recipe, options.seed)
    reporter.say(
        Message(Argument("init", str(options.init)), f": {_what_is_new(options, beginning)}")
    )
    return beginning


def _what_is_new(options: TrainOptions, beginning: Beginning) -> str:
    """Say what fine-tuning keeps of a network, and what of it learns how fast."""
    num_new, num_classes = beginning.num_new_classes, len(beginning.spec.labels)
    if num_new:
        fc8 = f"{num_new:,} of {num_classes:,} classes are new to fc8"
    else:
        fc8 = "fc8 knows all classes"
    if options.train == "head":
        others = "no other layer learns"
    elif beginning.old_layers:
        others = f"the other layers learn at {options.old_rate_factor:g} of the rate"
    else:
        others = "all layers learn at the same rate"
    return f"{fc8}, {others}; mean and std of its inputs stay as they were"


@contextmanager
def _remedy_named() -> Iterator[None]:
    """Say what to do about a checkpoint that a run cannot resume from.

    Raises:
        IncompatibleFileError: with the remedy.
    """
    try:
        yield
    except IncompatibleFileError as error:
        raise IncompatibleFileError(
            error.message,
            "; or move it away: ",
            Argument("resume", True),
            " then continues from the checkpoint before it, if there is one",
        ) from error


def _load(checkpoint: Path) -> RunState:
    with _remedy_named():
        return load_state(checkpoint)


def _resume(checkpoint: Path, state: RunState, options: TrainOptions, data: Data) -> Beginning:
    """Go on with the same photographs and classes."""
    check_photographs(options, *data.folders)
    with _remedy_named():
        if state.spec.labels != data.classes:
            raise IncompatibleFileError(f"{checkpoint}: is a network with other classes")
    return from_state(state, options.recipe)


def _put_together(
    options: TrainOptions,
    data: Data,
    beginning: Beginning,
    state: RunState | None,
    devices: Devices,
    reporter: Reporter,
) -> Run:
    """Return a run ready to start, its log truncated to where it continues."""
    network = network_of(beginning.spec, devices)
    network.load_state_dict(network.parts(beginning.weights))
    set_trained(network, options.train)
    optimizer = optimizer_of(network, options.recipe, beginning.old_layers, options.old_rate_factor)
    progress = Progress()
    if state is not None:
        progress = state.progress
        set_memory(network, optimizer, state.memory)
        reporter.say(f"resuming after epoch {progress.epoch:,}, step {progress.step:,}")
        if progress.best_top1 >= 0 and not (options.output / BEST_NAME).exists():
            reporter.say(
                f"{BEST_NAME} is gone; the next epoch with a top-1 accuracy above "
                f"{progress.best_top1:.1%} writes another"
            )
    # Lines without a checkpoint come from a run killed before it wrote its first.
    records = cut_back(options.output / LOG_NAME, -1 if state is None else progress.epoch)
    image = beginning.mean_image
    augmentation = Augmentation(
        beginning.spec,
        options.recipe,
        beginning.components,
        None if image is None else torch.from_numpy(image),
        devices[0],
    )
    trainer = Trainer(
        network,
        options.recipe,
        optimizer,
        augmentation,
        precision=options.precision,
        seed=options.seed,
    )
    kept = dataclasses.replace(beginning, weights={})
    return Run(options, data, kept, trainer, progress, records, reporter)
