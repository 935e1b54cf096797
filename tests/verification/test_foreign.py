"""A foreign file is run itself: it tells a right spec from one that is nearly right."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from onnx import TensorProto, helper

from alexnet_deploy.errors import IncompatibleFileError, VerificationError
from alexnet_deploy.importing import matching, onnx_layers
from alexnet_deploy.importing.onnx_files import read_foreign_network
from alexnet_deploy.model import spec
from alexnet_deploy.model.checkpoints import Checkpoint
from alexnet_deploy.model.spec import LrnSpec
from alexnet_deploy.verification.foreign import SourceComparison, compare_with_source
from tests.support.foreign_onnx import (
    ConvolutionalWriter,
    KerasWriter,
    NormalizingWriter,
    ZooWriter,
    node_that_makes,
    small_checkpoint,
    written,
)
from tests.support.networks import noise

Channels = Literal["RGB", "BGR"]
RIGHT, WRONG = 1e-5, 1e-3


@pytest.fixture(scope="module", autouse=True)
def _few_outputs() -> Iterator[None]:
    """Let fc6 and fc7 have 512 outputs: files have 1 MB in place of 70."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (spec, matching, onnx_layers):
            patch.setattr(module, "FC_WIDTH", 512)
        yield


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return small_checkpoint(is_light=False)


@pytest.fixture(scope="module")
def zoo(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of the Model Zoo's kind, whose batch is 1."""
    return written(ZooWriter(checkpoint).model(), tmp_path_factory.mktemp("zoo"))


def compared(path: Path, checkpoint: Checkpoint, channels: Channels = "RGB") -> SourceComparison:
    return compare_with_source(path, checkpoint, noise(checkpoint.spec, 3), channels=channels)


def changed(checkpoint: Checkpoint, **changes: Any) -> Checkpoint:
    return dataclasses.replace(checkpoint, spec=dataclasses.replace(checkpoint.spec, **changes))


def in_rgb(checkpoint: Checkpoint) -> Checkpoint:
    """Return the network of a BGR file with its channels turned."""
    weight = np.ascontiguousarray(checkpoint.arrays["conv1.weight"][:, ::-1])
    return dataclasses.replace(checkpoint, arrays={**checkpoint.arrays, "conv1.weight": weight})


def test_the_right_spec_agrees(zoo: Path, checkpoint: Checkpoint) -> None:
    result = compared(zoo, checkpoint)
    assert result.error < RIGHT
    assert result.largest_difference is not None
    assert result.largest_difference < RIGHT
    assert (result.layer, result.num_images) == ("logits", 3)
    assert result.ran.startswith("ONNX Runtime 1.")


def with_lrn(checkpoint: Checkpoint, **changes: Any) -> Checkpoint:
    lrn = checkpoint.spec.lrn
    assert isinstance(lrn, LrnSpec)
    return changed(checkpoint, lrn=dataclasses.replace(lrn, **changes))


WRONG_SPECS = {
    "k": lambda checkpoint: with_lrn(checkpoint, k=2.0),
    "alpha": lambda checkpoint: with_lrn(checkpoint, alpha=5e-4),
    "towers": lambda checkpoint: with_lrn(checkpoint, towers=2),
    "position": lambda checkpoint: with_lrn(checkpoint, position="after_pool"),
}


@pytest.mark.parametrize("name", WRONG_SPECS)
def test_a_spec_that_is_nearly_right_does_not(name: str, zoo: Path, checkpoint: Checkpoint) -> None:
    assert compared(zoo, WRONG_SPECS[name](checkpoint)).error > WRONG


def test_the_order_of_the_channels_is_told(zoo: Path, checkpoint: Checkpoint) -> None:
    assert compared(zoo, in_rgb(checkpoint), "BGR").error < RIGHT
    assert compared(zoo, in_rgb(checkpoint), "RGB").error > WRONG
    assert compared(zoo, checkpoint, "BGR").error > WRONG


def test_a_mean_image_is_subtracted_in_the_files_order(zoo: Path, checkpoint: Checkpoint) -> None:
    side = checkpoint.spec.preprocessing.resize_to
    image = np.random.default_rng(1).uniform(0, 255, (3, side, side)).astype(np.float32)
    arrays = {**in_rgb(checkpoint).arrays, "mean_image": image}
    assert compared(zoo, dataclasses.replace(checkpoint, arrays=arrays), "BGR").error < RIGHT


@pytest.mark.parametrize(("last", "layer"), [("fc8_1", "logits"), ("fc7_2", "fc7")])
def test_a_file_may_end_before_the_probabilities(
    last: str, layer: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    model = ZooWriter(checkpoint).model()
    place = list(model.graph.node).index(node_that_makes(model, last)) + 1
    del model.graph.node[place:]
    model.graph.output[0].name = last
    path = written(model, tmp_path)
    result = compared(path, checkpoint)
    assert result.layer == layer
    assert result.error < RIGHT
    assert (result.largest_difference is None) == (layer == "fc7")
    assert compared(path, with_lrn(checkpoint, k=2.0)).error > WRONG


@pytest.mark.parametrize("batch", ["N", 4])
def test_channels_may_be_last_and_the_batch_of_any_length(
    batch: int | str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    writer = KerasWriter(checkpoint, 13)
    path = written(writer.model(writer.image(batch)), tmp_path)
    assert compared(path, checkpoint).error < RIGHT


def test_a_convolutional_file_gives_the_same(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = written(ConvolutionalWriter(checkpoint).model(), tmp_path)
    assert compared(path, checkpoint).error < RIGHT


@pytest.mark.parametrize("pixels", ["grey levels", "0..1"])
def test_a_file_that_normalizes_is_given_pixels(
    pixels: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    writer = NormalizingWriter(checkpoint, 13)
    mean, std = np.array([120.0, 110.0, 100.0]), np.array([60.0, 55.0, 50.0])
    side = checkpoint.spec.input_size
    if pixels == "grey levels":
        writer.operations = (("Cast", None), ("Sub", mean), ("Div", std), ("Transpose", None))
        image = helper.make_tensor_value_info("data_0", TensorProto.UINT8, ["N", side, side, 3])
    else:
        planes = [(numbers / 255).reshape(3, 1, 1) for numbers in (mean, std)]
        writer.operations = (("Sub", planes[0]), ("Div", planes[1]))
        image = helper.make_tensor_value_info("data_0", TensorProto.FLOAT, ["N", 3, side, side])
    path = written(writer.model(image), tmp_path)
    assert read_foreign_network(path).interface.pixels == pixels
    preprocessing = dataclasses.replace(
        checkpoint.spec.preprocessing, mean=tuple(mean), std=tuple(std)
    )
    assert compared(path, changed(checkpoint, preprocessing=preprocessing)).error < RIGHT
    assert compared(path, checkpoint).error > WRONG


def test_a_file_of_float16_may_differ_as_much_as_float16_does(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    narrow = {name: array.astype(np.float16) for name, array in checkpoint.arrays.items()}
    checkpoint = dataclasses.replace(checkpoint, arrays=narrow)
    side = checkpoint.spec.input_size
    image = helper.make_tensor_value_info("data_0", TensorProto.FLOAT16, ["N", 3, side, side])
    model = ZooWriter(checkpoint, 13).model(image)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    path = written(model, tmp_path)
    right, wrong = compared(path, checkpoint), compared(path, with_lrn(checkpoint, k=2.0))
    assert RIGHT < right.error < right.allowed < wrong.error
    right.raise_if_failed("model.onnx")
    with pytest.raises(VerificationError, match=r"model.onnx: computes something else"):
        wrong.raise_if_failed("model.onnx")


def test_other_classes_than_the_files_are_an_error(zoo: Path, checkpoint: Checkpoint) -> None:
    fewer = {
        name: array[:5] if name.startswith("fc8") else array
        for name, array in checkpoint.arrays.items()
    }
    other = changed(dataclasses.replace(checkpoint, arrays=fewer), num_classes=5)
    with pytest.raises(IncompatibleFileError, match="gives 7 numbers, its checkpoint 5"):
        compared(zoo, other)


@pytest.mark.parametrize("opset", [3, 6])
def test_a_file_older_than_the_runtime_is_run(
    opset: int, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path = written(ZooWriter(checkpoint, opset).model(), tmp_path)
    assert compared(path, checkpoint).error < RIGHT
    assert compared(path, with_lrn(checkpoint, k=2.0)).error > WRONG


def test_a_wrong_constant_shows_where_all_classes_are_as_probable(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Probabilities alone would not tell: they differ by less than is allowed to rounding."""
    arrays = dict(checkpoint.arrays)
    arrays |= {name: 1e-6 * arrays[name] for name in ("fc8.weight", "fc8.bias")}
    weak = dataclasses.replace(checkpoint, arrays=arrays)
    path = written(ZooWriter(weak).model(), tmp_path)
    wrong = compared(path, with_lrn(weak, k=2.0))
    assert wrong.largest_difference is not None
    assert wrong.largest_difference < RIGHT
    assert wrong.error > WRONG


def test_a_checkpoint_without_the_files_head_is_compared_with_it(
    zoo: Path, checkpoint: Checkpoint
) -> None:
    arrays = {name: array for name, array in checkpoint.arrays.items() if "fc8" not in name}
    spec = dataclasses.replace(checkpoint.spec, num_classes=0, labels=())
    found = compared(zoo, Checkpoint(spec=spec, arrays=arrays))
    assert found.layer == "logits"
    assert found.error < RIGHT
    arrays["conv5.bias"] = arrays["conv5.bias"] + np.float32(1)
    assert compared(zoo, Checkpoint(spec=spec, arrays=arrays)).error > WRONG
