"""`shrink`: write a trained network in float16, with fc6 and fc7 as products of thin matrices."""

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
from training.data import check_batch, check_form, read_what_fits
from training.devices import keep_freed_memory, parse_device, too_little_memory_reported
from training.factoring import Factoring, Ranks
from training.networks import network_of
from training.photographs import PhotographBatch, PhotographSource
from training.photographs import batches as batches_of
from training.pictures import form_of
from training.prepared import read_prepared
from training.recipes import MODERN
from training.reporting import Reporter, counting
from training.trainer import DivergedError


@dataclass(frozen=True, slots=True, kw_only=True)
class ShrinkOptions:
    """What to shrink, with which photographs, and how far.

    Attributes:
        checkpoint: the trained network.
        data: photographs that it was trained on, in class folders; the classes are ignored.
        output: `.safetensors` file to write.
        ranks: of the products.
        num_epochs: passes over `data` to train the factors; 0 for the decomposition alone.
        batch_size: photographs per step.
        device: the one device to run on.
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
    """The result of `shrink`.

    Attributes:
        output: the file.
        size_bytes: of the file.
        loss: mean KL divergence from the full network over the last half of the steps, in nats at
            the temperature of `factoring`; None without training.
    """

    output: Path
    size_bytes: int
    loss: float | None


def shrink(options: ShrinkOptions, reporter: Reporter) -> ShrinkReport:
    """Factor a network's fc6 and fc7, train the factors, and write the network as float16.

    Raises:
        UsageError: the output is not a `.safetensors` file, a rank is out of range, or the network
            is factored already or has no fc8.
        DatasetError: no photographs can be read, or there are fewer than a batch.
        IncompatibleFileError: the checkpoint is damaged, or `prepare` has not finished the folder.
        OutputError: the file cannot be written.
        DivergedError: a weight is not finite as float16.
        DeviceError: the device does not exist or has too little memory.
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
    arrays = dense_arrays(checkpoint)
    network = network_of(checkpoint.spec, (device, device))
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    network.load_state_dict(network.parts(tensors))
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
    """Epochs of the photographs, each in a new random order."""

    def __init__(
        self, source: PhotographSource, options: ShrinkOptions, reporter: Reporter
    ) -> None:
        self._source = source
        self._options = options
        self._reporter = reporter
        self.steps = len(source) // options.batch_size
        self._rng = np.random.default_rng(options.seed)

    def batches(self, title: str, count: int) -> Generator[PhotographBatch]:
        """Yield the full batches of `count` epochs.

        Raises:
            DatasetError: no photograph of an epoch can be read.
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
                    f"{self._options.data}: none of its photographs can be read; check the files"
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
    """Refuse an output that could not be written later, or that is the full network's file."""
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
    if not checkpoint.spec.has_head:
        raise UsageError(
            f"{options.checkpoint}: has no fc8, by which the factors are judged; give a network "
            "that classifies"
        )
    shapes = checkpoint.spec.array_shapes()
    for layer in FACTORED:
        name, rank = f"{layer}.weight", getattr(options.ranks, layer)
        if name not in checkpoint.arrays:
            raise UsageError(
                f"{options.checkpoint}: {layer} is factored already; give the original"
            )
        rows, columns = shapes[name]
        largest = rows * columns // (rows + columns)
        if not 1 <= rank <= largest:
            expected = f"1 to {largest}: above it the product is larger than the matrix"
            raise ArgumentError(f"ranks.{layer}", rank, expected)


def _open(options: ShrinkOptions, checkpoint: Checkpoint, reporter: Reporter) -> PhotographSource:
    folders = find_class_folders(options.data)
    form = form_of(checkpoint.spec.preprocessing)
    check_form(folders, read_prepared(folders), form)
    source = read_what_fits(folders, form, options.memory_bytes, reporter)
    check_batch(source.folders, options.batch_size, Argument("batch_size"))
    return source


def _augmentation(checkpoint: Checkpoint, device: torch.device) -> Augmentation:
    """Return the modern recipe's augmentation without its colour shifts."""
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
    """Write everything as float16, except that a mean image is kept as it is.

    Raises:
        DivergedError: a number is not finite as float16.
    """
    provenance = dict(checkpoint.spec.provenance) | {
        "shrunk": {
            "from": checkpoint.identity,
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
