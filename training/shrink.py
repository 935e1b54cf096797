"""`shrink`: a trained network with fc6 and fc7 as thin products, in float16: one small file."""

import dataclasses
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet_deploy.errors import Argument, ArgumentError, DatasetError, OutputError, UsageError
from alexnet_deploy.model.checkpoints import FACTORED, Checkpoint, load_checkpoint, save_checkpoint
from alexnet_deploy.photographs.class_folders import find_class_folders
from training.augmentation import Augmentation, ColourComponents
from training.beginning import dense_arrays, mean_image_of
from training.data import check_batch, read_what_fits
from training.devices import keep_freed_memory, parse_device, too_little_memory_reported
from training.factoring import Factoring, Ranks
from training.photographs import PhotographBatch, PhotographSource
from training.photographs import batches as batches_of
from training.prepared import read_prepared
from training.recipes import MODERN
from training.reporting import Reporter, counting
from training.towers import TwoTowers
from training.trainer import DivergedError
from training.weights import split


@dataclass(frozen=True, slots=True, kw_only=True)
class ShrinkOptions:
    """What to make small, from which photographs it learns, and how small.

    Attributes:
        checkpoint: the trained network.
        data: photographs that it was trained on, in class folders; classes are not looked at.
        output: `.safetensors` file to write.
        ranks: of the products.
        num_epochs: passes over `data` in which the factors learn; 0 for the decomposition alone.
        batch_size: photographs a step.
        device: of everything; one.
        seed: of everything random.
        num_workers, memory_bytes: as for training.
    """

    checkpoint: Path
    data: Path
    output: Path
    ranks: Ranks
    num_epochs: int
    batch_size: int
    device: str
    seed: int
    num_workers: int
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShrinkReport:
    """What came of it.

    Attributes:
        output: the file.
        size_bytes: of the file.
        loss: mean divergence from the whole network over the last half of the steps, in nats at
            the temperature of `factoring`; None where nothing was learned.
    """

    output: Path
    size_bytes: int
    loss: float | None


def shrink(options: ShrinkOptions, reporter: Reporter) -> ShrinkReport:
    """Factor a network's fc6 and fc7, let the factors learn, and write them as float16.

    Raises:
        UsageError: an output that is no `.safetensors`, a rank below 1 or above what fits, a
            network that is factored already or has not the paper's towers.
        DatasetError: no photographs that can be read, or fewer than a batch.
        IncompatibleFileError: a checkpoint that is damaged, or a folder that `prepare` has not
            finished.
        OutputError: the file cannot be written.
        DivergedError: the factors came to numbers that are none.
        DeviceError: a device that is not there, or has too little memory.
    """
    device = parse_device(options.device)
    _check_output(options)
    checkpoint = load_checkpoint(options.checkpoint)
    _check_ranks(options, checkpoint)
    keep_freed_memory()
    with too_little_memory_reported(Argument("device", options.device)):
        return _shrink(options, checkpoint, device, reporter)


def _shrink(
    options: ShrinkOptions, checkpoint: Checkpoint, device: torch.device, reporter: Reporter
) -> ShrinkReport:
    """Do it, on a device that is there."""
    arrays = dense_arrays(checkpoint)
    network = TwoTowers(checkpoint.spec, (device, device))
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    network.load_state_dict(split(tensors))
    source = _open(options, checkpoint, reporter)
    factoring = Factoring(network, arrays, _augmentation(checkpoint, device), options.seed)
    reporter.say(f"decomposing fc6 to rank {options.ranks.fc6}, fc7 to {options.ranks.fc7}")
    epochs = _Epochs(source, options, reporter)
    with closing(epochs.batches("looking", 1)) as batches:
        classifier = factoring.decompose(batches, options.ranks)
    loss = None
    if options.num_epochs:
        with closing(epochs.batches("learning", options.num_epochs)) as batches:
            loss = factoring.learn(classifier, batches, options.num_epochs * epochs.steps)
    small = arrays | classifier.arrays()
    for layer in FACTORED:
        del small[f"{layer}.weight"]
    _save(options, checkpoint, small)
    return ShrinkReport(output=options.output, size_bytes=options.output.stat().st_size, loss=loss)


class _Epochs:
    """The photographs again and again, each time in another order."""

    def __init__(
        self, source: PhotographSource, options: ShrinkOptions, reporter: Reporter
    ) -> None:
        self._source = source
        self._options = options
        self._reporter = reporter
        self.steps = len(source) // options.batch_size
        self._rng = np.random.default_rng(options.seed)

    def batches(self, title: str, count: int) -> Generator[PhotographBatch]:
        """Yield the whole batches of `count` epochs.

        Raises:
            DatasetError: in a whole epoch not one photograph can be read.
        """
        for number in range(count):
            num_read = 0
            numbered = f"{title}, {number + 1} of {count}"
            with counting(self._reporter, numbered, self.steps * self._options.batch_size):
                for batch in self._epoch():
                    num_read += len(batch.labels)
                    if len(batch.labels):
                        yield batch
            if not num_read:
                raise DatasetError(
                    f"{self._options.data}: not one of its photographs can be read; look at the "
                    "files themselves"
                )

    def _epoch(self) -> Generator[PhotographBatch]:
        size, workers = self._options.batch_size, self._options.num_workers
        order = self._rng.permutation(len(self._source))[: self.steps * size]
        with closing(
            batches_of(self._source, order, batch_size=size, num_workers=workers)
        ) as batches:
            for batch in batches:
                for failure in batch.failures:
                    self._reporter.failed(failure.path, failure.reason)
                yield batch
                self._reporter.advance(size)


def _check_output(options: ShrinkOptions) -> None:
    """Refuse now what could not be written after all epochs, and the whole network's own file."""
    output = options.output
    argument = Argument("output", str(output))
    if output.suffix != ".safetensors":
        raise UsageError(argument, ": expected a name that ends in .safetensors")
    if output.is_dir():
        raise UsageError(argument, ": is a folder, expected the name of a file")
    if not output.parent.is_dir():
        raise OutputError(f"{output}: cannot be written, there is no folder {output.parent}")
    if output.exists() and options.checkpoint.exists() and output.samefile(options.checkpoint):
        raise UsageError(argument, ": is the network to shrink; give another name")


def _check_ranks(options: ShrinkOptions, checkpoint: Checkpoint) -> None:
    shapes = checkpoint.spec.array_shapes()
    for layer in FACTORED:
        name, rank = f"{layer}.weight", getattr(options.ranks, layer)
        if name not in checkpoint.arrays:
            raise UsageError(f"{options.checkpoint}: {layer} is factored already; give the whole")
        rows, columns = shapes[name]
        largest = rows * columns // (rows + columns)
        if not 1 <= rank <= largest:
            expected = f"1 to {largest}: above it the product is larger than the matrix"
            raise ArgumentError(f"ranks.{layer}", rank, expected)


def _open(options: ShrinkOptions, checkpoint: Checkpoint, reporter: Reporter) -> PhotographSource:
    folders = find_class_folders(options.data)
    read_prepared(folders)  # whether it is whole
    size = checkpoint.spec.preprocessing.resize_to
    source = read_what_fits(folders, size, options.memory_bytes, reporter)
    check_batch(source.folders, options.batch_size, Argument("batch_size"))
    return source


def _augmentation(checkpoint: Checkpoint, device: torch.device) -> Augmentation:
    """Return the modern recipe's crops, without its shifts of colour."""
    image = mean_image_of(checkpoint.arrays)
    return Augmentation(
        checkpoint.spec,
        MODERN.with_options({"colour_std": 0.0}),
        ColourComponents(vectors=torch.eye(3), stds=torch.zeros(3)),
        None if image is None else torch.from_numpy(image),
        device,
    )


def _save(
    options: ShrinkOptions, checkpoint: Checkpoint, small: dict[str, NDArray[np.float32]]
) -> None:
    """Write everything as float16; the mean image, if there is one, stays as it was.

    Raises:
        DivergedError: a number is infinite, none, or too large for float16.
    """
    provenance = dict(checkpoint.spec.provenance) | {
        "shrunk": {
            "from": checkpoint.fingerprint,
            "ranks": dataclasses.asdict(options.ranks),
            "epochs": options.num_epochs,
            "batch_size": options.batch_size,
            "seed": options.seed,
        }
    }
    arrays: dict[str, NDArray[np.generic]] = {
        name: array.astype(np.float16) for name, array in small.items()
    }
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise DivergedError(
                f"{name} is not finite as float16, after {options.num_epochs} epochs; nothing was "
                "written: give fewer ",
                Argument("num_epochs"),
                ", or larger ranks",
            )
    if "mean_image" in checkpoint.arrays:
        arrays["mean_image"] = checkpoint.arrays["mean_image"]
    spec = dataclasses.replace(checkpoint.spec, provenance=provenance)
    save_checkpoint(Checkpoint(spec=spec, arrays=arrays), options.output)
