"""The `Runner` protocol, its options, and the base class that all runners share.

N images, 1 to the batch size; H/W the input size of the spec in px.
"""

import itertools
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy import arguments
from alexnet_deploy.choices import DEVICES, PRECISIONS, RUNTIMES, Device, Precision, Runtime
from alexnet_deploy.errors import ClosedError, UsageError
from alexnet_deploy.model.calibrated import ActivationRanges
from alexnet_deploy.model.spec import ModelSpec

FORKED = "the model was opened before this process was forked; open it in each process"
_MOST = 65_536
"""Images per call, and threads: beyond all use, and within the integers of every runtime."""
_MOST_AT_ONCE_ON_CPU = 32
"""Images, some 0.4 s on two cores. With more both runtimes take more memory and are no faster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerOptions:
    """How to run a model file; every field is binding: obeyed, or an error.

    Attributes:
        runtime: "auto" takes the fastest one installed, or the one that an engine was built with;
            "tensorrt" and "tensorrt-rtx" run only their own engines.
        device: "auto" is the GPU if the installed ONNX Runtime can use one, else the CPU.
        precision: arithmetic at run time; "auto" is the file's own. Results are always float32.
        batch_size: maximum images per call; fewer cost less, unless the runtime has a fixed batch.
            On a CPU the runtime itself gets 32 at a time at most.
        exact_batch: False lets an engine use the nearest size that it was built for.
        threads: CPU threads of the runtime; None for all cores.
        outputs: layers to return, as for `layers.layer_names`; none for `usual_outputs`, or all
            that an engine was built with.
        ranges: those that a checkpoint is run in int8 with; None for those of the samples. A file
            has its own.
    """

    runtime: Runtime = "auto"
    device: Device = "auto"
    precision: Precision = "auto"
    batch_size: int = 32
    exact_batch: bool = True
    threads: int | None = None
    outputs: tuple[str, ...] = ()
    ranges: ActivationRanges | None = None

    def __post_init__(self) -> None:
        """Reject values outside the choices.

        Raises:
            ArgumentError: naming the argument, the value given and the choices.
        """
        arguments.choice("runtime", self.runtime, RUNTIMES)
        arguments.choice("device", self.device, DEVICES)
        arguments.choice("precision", self.precision, PRECISIONS)
        arguments.count("batch_size", self.batch_size, _MOST)
        if self.threads is not None:
            arguments.count("threads", self.threads, _MOST)


class Runner(Protocol):
    """A model file, loaded and ready to run on one device.

    Attributes:
        spec: the file's spec; preprocess with this and nothing else.
        identity: of the checkpoint that the file was built from.
        options: the resolved options, without "auto", the layers under our own names.
        description: one line for people: runtime, version, device, precision, batch, threads.
    """

    spec: ModelSpec
    identity: str
    options: RunnerOptions
    description: str

    def run(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        """Compute the outputs of one batch; those of an image do not depend on the others.

        Args:
            images: (N, H, W, 3) uint8, RGB, resized and cropped.

        Returns:
            One float32 array per name in `options.outputs`, first axis N, owned by the caller;
            later calls do not change them.

        Raises:
            UsageError: images of the wrong shape or dtype.
            ClosedError: the runner is closed, or was opened in another process.
        """

    def close(self) -> None:
        """Free the runtime's memory; the runner cannot be used afterwards."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


class BaseRunner(ABC):
    """Base class of the runners: checks images, and lets calls from several threads take turns.

    Args:
        spec, identity, options, description: as in `Runner`.
        num_slots: calls that may be under way at once. Most runtimes keep one set of buffers for a
            network, and on a CPU one call already uses all cores.
    """

    def __init__(
        self,
        spec: ModelSpec,
        identity: str,
        options: RunnerOptions,
        description: str,
        *,
        num_slots: int = 1,
    ) -> None:
        self.spec = spec
        self.identity = identity
        self.options = options
        self.description = description
        self._slots = tuple(threading.Lock() for _ in range(num_slots))
        self._calls = itertools.count()
        self._process = os.getpid()
        self._is_closed = False

    def run(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        """Compute the outputs of one batch; see `Runner.run`."""
        check_images(images, self.spec, self.options.batch_size)
        # Before taking a lock, which a thread may have held at the fork; the runtime's own
        # threads do not survive a fork either.
        if self._process != os.getpid():
            raise ClosedError(FORKED)
        slot = next(self._calls) % len(self._slots)
        with self._slots[slot]:
            if self._is_closed:
                raise ClosedError("the model is closed; open it again")
            return self._compute_in_parts(images, slot)

    def close(self) -> None:
        """Free the runtime's memory after the calls under way; the runner is then unusable."""
        if self._process != os.getpid():
            return  # it belongs to the parent process
        with ExitStack() as stack:
            for lock in self._slots:
                stack.enter_context(lock)
            if not self._is_closed:
                self._is_closed = True
                self._free()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _compute_in_parts(
        self, images: NDArray[np.uint8], slot: int
    ) -> Mapping[str, NDArray[np.float32]]:
        """Compute a large batch on a CPU in parts: Ctrl-C waits for the part at hand."""
        step = _MOST_AT_ONCE_ON_CPU
        if self.options.device != "cpu" or len(images) <= step:
            return self._compute(images, slot)
        parts = [
            self._compute(images[start : start + step], slot)
            for start in range(0, len(images), step)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    @abstractmethod
    def _compute(self, images: NDArray[np.uint8], slot: int) -> Mapping[str, NDArray[np.float32]]:
        """Compute one batch; calls with the same slot, 0 to `num_slots` - 1, never overlap."""

    @abstractmethod
    def _free(self) -> None:
        """Release the runtime's resources; called once."""


def padded(images: NDArray[np.uint8], num_rows: int) -> NDArray[np.uint8]:
    """Return the images padded with black ones to `num_rows`, for runtimes with a fixed batch."""
    if len(images) == num_rows:
        return images
    full = np.zeros((num_rows, *images.shape[1:]), np.uint8)
    full[: len(images)] = images
    return full


def check_images(images: NDArray[np.uint8], spec: ModelSpec, batch_size: int) -> None:
    """Reject a batch that is empty, too large, or of the wrong shape or dtype.

    Raises:
        UsageError: with the shape given and the shape expected.
    """
    expected = (spec.input_size, spec.input_size, 3)
    is_one = images.shape[1:] == expected and 1 <= len(images) <= batch_size
    if not is_one or images.dtype != np.uint8:
        raise UsageError(
            f"images: got {images.shape} {images.dtype}, the runner takes "
            f"(1..{batch_size}, {', '.join(map(str, expected))}) uint8; "
            "crop with alexnet_deploy.photographs.preprocessing"
        )


def usual_outputs(spec: ModelSpec) -> tuple[str, ...]:
    """Return the layers that a file offers and a runner returns unless others are named."""
    return ("probabilities", "fc7") if spec.has_head else ("fc7",)
