"""Run a foreign `.onnx` file itself, and compare it with the checkpoint that was made of it.

A spec is read from the file's graph, or chosen; whether it is the right one only the file can say.
It cannot say how its input is normalized, unless it does that itself.

N images, S px, K classes.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import IncompatibleFileError, VerificationError
from alexnet_deploy.importing.adoption import as_matrix
from alexnet_deploy.importing.onnx_files import Interface, read_foreign_network
from alexnet_deploy.importing.onnx_versions import runnable_bytes
from alexnet_deploy.importing.source import Array, Source
from alexnet_deploy.model.checkpoints import Checkpoint
from alexnet_deploy.model.reference import Reference
from alexnet_deploy.model.reference import crop as crop_of
from alexnet_deploy.photographs.decoding import load_photograph
from alexnet_deploy.photographs.samples import varied_samples
from alexnet_deploy.verification.comparison import TOLERANCES, largest_difference, relative_error

_NUM_SAMPLES = 4
_SMALLEST_PROBABILITY = 1e-30  # float32 has none much below


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceComparison:
    """How far a checkpoint is from the file that it was made of.

    Attributes:
        layer: what was compared: logits, fc7 or fc7_pre.
        error: the largest ||checkpoint - file|| / ||file|| of an image; of logits without their
            mean, which no class depends on. A wrong constant shows in it even where all classes
            are about equally probable. Right ones differ by about 1e-6, in float16 by 1e-3.
        allowed: of the error.
        largest_difference: of a probability; None without classes.
        num_images: how many were run.
        ran: what computed the file.
    """

    layer: str
    error: float
    allowed: float
    largest_difference: float | None
    num_images: int
    ran: str

    def __str__(self) -> str:
        """Return it as one line for people."""
        return (
            f"{self.ran} runs the file itself: {self.layer} differ by {self.error:.1e} at most, "
            f"relative, on {self.num_images} photographs (allowed {self.allowed:.0e})"
        )

    def raise_if_failed(self, source: str) -> None:
        """Raise an error unless the checkpoint computes what the file does.

        Raises:
            VerificationError: it does not.
        """
        if not self.error <= self.allowed:  # nor if it is NaN
            raise VerificationError(
                f"{source}: computes something else than the network read from it: {self}; please "
                "report this, with where the file is from"
            )


def compare_on_samples(
    path: Path, checkpoint: Checkpoint, *, channels: Literal["RGB", "BGR"]
) -> SourceComparison:
    """Compare on a few of the package's photographs; see `compare_with_source`."""
    photographs = map(load_photograph, varied_samples()[:_NUM_SAMPLES])
    crops = np.stack([crop_of(photograph, checkpoint.spec) for photograph in photographs])
    return compare_with_source(path, checkpoint, crops, channels=channels)


def compare_with_source(
    path: Path,
    checkpoint: Checkpoint,
    crops: NDArray[np.uint8],
    *,
    channels: Literal["RGB", "BGR"],
) -> SourceComparison:
    """Compare the outputs of a foreign file, as ONNX Runtime computes them, with the reference.

    Args:
        path: of an `.onnx` file that `read_foreign_network` reads.
        checkpoint: made of it, for RGB pixels.
        crops: (N, S, S, 3) uint8, RGB, N >= 1.
        channels: the order that the file wants.

    Raises:
        IncompatibleFileError: the file cannot be read or run, or has other classes.
    """
    from alexnet_deploy.runtimes.onnxruntime_session import onnxruntime_version, open_session

    network = read_foreign_network(path)
    file = network.interface
    has_head = file.layer in ("logits", "probabilities")
    if has_head and not checkpoint.spec.has_head:
        checkpoint = _with_head(checkpoint, network.source)
    session = open_session(
        runnable_bytes(path, file.opset), str(path), remedy="give a file that it runs"
    )
    reference = Reference(checkpoint)
    errors, differences = [0.0], [0.0]
    for crop in crops:
        actual = _output_of(session, file, _input_of(file, checkpoint, crop, channels), path)
        expected = reference.run(crop[np.newaxis], file.layer)[file.layer][0]
        if actual.shape != expected.shape:
            raise IncompatibleFileError(
                f"{path}: gives {actual.size} numbers, its checkpoint {expected.size}"
            )
        if has_head:
            # What the file's type cannot hold counts as the smallest that it can.
            smallest = max(_SMALLEST_PROBABILITY, float(np.finfo(actual.dtype).tiny))
            actual, expected = (
                _scores(array, file.layer, smallest) for array in (actual, expected)
            )
            differences.append(largest_difference(np.exp(expected), np.exp(actual)))
            actual, expected = actual - actual.mean(), expected - expected.mean()
        errors.append(relative_error(expected, actual))
    return SourceComparison(
        layer="logits" if has_head else file.layer,
        error=float(np.max(errors)),  # keeps a NaN
        allowed=TOLERANCES["fp16" if file.is_narrow else "fp32"].relative,
        largest_difference=float(np.max(differences)) if has_head else None,
        num_images=len(crops),
        ran=f"ONNX Runtime {onnxruntime_version()} on the CPU",
    )


def _with_head(checkpoint: Checkpoint, source: Source) -> Checkpoint:
    """Return a checkpoint that was taken without fc8 with that of its file, to compare the two."""
    assert source.places is not None
    names = ("fc8.weight", "fc8.bias")
    head = {name: as_matrix(name, source.arrays[source.places[name]]) for name in names}
    spec = dataclasses.replace(checkpoint.spec, num_classes=len(head["fc8.bias"]))
    return Checkpoint(spec=spec, arrays={**checkpoint.arrays, **head})


def _output_of(session: Any, file: Interface, images: Array, path: Path) -> Array:
    """Return what the file gives for the first of `images`, flat."""
    from alexnet_deploy.runtimes.onnxruntime_session import is_runtime_error

    try:
        (output,) = session.run([file.output_name], {file.input_name: images})
    except Exception as error:
        if not is_runtime_error(error):
            raise
        raise IncompatibleFileError(
            f"{path}: ONNX Runtime cannot run it ({str(error).splitlines()[0]})"
        ) from error
    numbers: Array = output[0].ravel()
    return numbers


def _input_of(
    file: Interface,
    checkpoint: Checkpoint,
    crop: NDArray[np.uint8],
    channels: Literal["RGB", "BGR"],
) -> Array:
    """Return one crop as the file wants it, as often as its batch is long."""
    pixels: Array = crop.transpose(2, 0, 1).astype(np.float64)
    if file.pixels == "normalized":
        std = np.array(checkpoint.spec.preprocessing.std).reshape(3, 1, 1)
        pixels = (pixels - checkpoint.mean()) / std
    elif file.pixels == "0..1":
        pixels = pixels / 255
    if channels == "BGR":
        pixels = pixels[::-1]
    if file.channels_last:
        pixels = pixels.transpose(1, 2, 0)
    return np.repeat(pixels[np.newaxis].astype(file.dtype), file.batch or 1, axis=0)


def _scores(array: Array, layer: str, smallest: float) -> Array:
    """Return the logarithms of (K,) probabilities, or of those that logits stand for."""
    numbers = array.astype(np.float64)
    if layer == "logits":
        numbers = numbers - numbers.max()
        numbers = np.exp(numbers) / np.exp(numbers).sum()
    logarithms: Array = np.log(np.maximum(numbers, smallest))
    return logarithms
