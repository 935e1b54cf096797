"""A file is held to its spec: whatever else somebody put into it is refused before it runs."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from alexnet_deploy.choices import FILE_PRECISIONS, FilePrecision
from alexnet_deploy.errors import ArgumentError, IncompatibleFileError
from alexnet_deploy.graph.build import OPSETS, build_model
from alexnet_deploy.graph.casting import cast_model
from alexnet_deploy.graph.model_file import ModelFile, check_onnx, write_model
from alexnet_deploy.graph.quantization import quantize_model, quantized_tensors
from alexnet_deploy.graph.reading import RewrittenFileError, read_model
from alexnet_deploy.model.checkpoints import Checkpoint
from alexnet_deploy.model.spec import PRESET_NAMES
from tests.support.networks import random_checkpoint

OUTPUTS = ("probabilities", "fc7")


def in_precision(file: ModelFile, precision: FilePrecision, threshold: float = 9.0) -> ModelFile:
    if precision == "fp32":
        return file
    if precision == "int8":
        return quantize_model(file, dict.fromkeys(quantized_tensors(file), threshold))
    return cast_model(file, precision)


def written(file: ModelFile, path: Path) -> Path:
    write_model(file, path)
    return path


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of ours: one that normalizes in two towers."""
    file = build_model(random_checkpoint("paper"), OUTPUTS)
    return written(file, tmp_path_factory.mktemp("genuine") / "model.onnx")


@pytest.mark.parametrize("preset", PRESET_NAMES)
@pytest.mark.parametrize("precision", FILE_PRECISIONS)
@pytest.mark.parametrize("outputs", [OUTPUTS, ("conv1", "pool5", "logits")])
def test_what_this_version_writes_it_reads(
    preset: str, precision: FilePrecision, outputs: tuple[str, ...], tmp_path: Path
) -> None:
    checkpoint = random_checkpoint(preset)
    file = in_precision(build_model(checkpoint, outputs), precision)
    read = read_model(written(file, tmp_path / "model.onnx"))
    assert read.is_unchanged()
    assert (read.outputs(), read.precision, read.spec) == (outputs, precision, checkpoint.spec)
    assert (read.identity, read.checkpoint_identity) == (file.identity, checkpoint.identity)
    assert (read.identity == checkpoint.identity) == (precision == "fp32")


def test_a_dense_network_with_a_mean_image_is_read(tmp_path: Path) -> None:
    checkpoint = random_checkpoint("paper", factored=False)
    image = np.random.default_rng(0).uniform(0, 255, (3, 256, 256)).astype(np.float32)
    checkpoint = Checkpoint(spec=checkpoint.spec, arrays={**checkpoint.arrays, "mean_image": image})
    read = read_model(written(build_model(checkpoint, OUTPUTS), tmp_path / "model.onnx"))
    assert read.identity == checkpoint.identity == read.weights().identity


def test_an_identity_is_of_the_numbers_and_not_of_how_they_are_stored() -> None:
    checkpoint = random_checkpoint("paper")
    half = {name: array.astype(np.float16) for name, array in checkpoint.arrays.items()}
    stored = Checkpoint(spec=checkpoint.spec, arrays=half)
    wide = {name: array.astype(np.float32) for name, array in half.items()}
    assert stored.identity == Checkpoint(spec=checkpoint.spec, arrays=wide).identity
    assert stored.identity != checkpoint.identity
    renamed = dataclasses.replace(checkpoint.spec, labels=(), provenance={"by": "somebody"})
    assert Checkpoint(spec=renamed, arrays=checkpoint.arrays).identity == checkpoint.identity


def test_two_calibrations_are_two_identities() -> None:
    file = build_model(random_checkpoint("paper"), OUTPUTS)
    one, other = (in_precision(file, "int8", threshold) for threshold in (9.0, 8.0))
    assert len({file.identity, one.identity, other.identity}) == 3


def test_changed_biases_change_the_identity_whatever_the_file_says(
    genuine: Path, tmp_path: Path
) -> None:
    """A forger knows our hash: sealed again, the file is a good one, of another network."""
    file = read_model(genuine)
    biases = file.arrays["fc8.bias"] + np.arange(11, dtype=np.float32)
    forged = dataclasses.replace(file, arrays={**file.arrays, "fc8.bias": biases})
    read = read_model(written(forged, tmp_path / "forged.onnx"))
    assert read.is_unchanged()
    assert read.checkpoint_identity == file.identity != read.identity


def loop_forever(model: onnx.ModelProto) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["still"])],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("still", TensorProto.BOOL, [])],
    )
    for name, value in (("rounds", np.array(2**62)), ("going", np.array(True))):
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    model.graph.node.append(helper.make_node("Loop", ["rounds", "going"], [], body=body))


def store_outside(model: onnx.ModelProto) -> None:
    (tensor,) = (each for each in model.graph.initializer if each.name == "fc8.bias")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def bomb(model: onnx.ModelProto) -> None:
    shape = numpy_helper.from_array(np.array([2**20] * 3), "shape")
    model.graph.initializer.append(shape)
    model.graph.node.append(helper.make_node("ConstantOfShape", ["shape"], ["huge"]))


def array(model: onnx.ModelProto, name: str) -> TensorProto:
    found: TensorProto = next(each for each in model.graph.initializer if each.name == name)
    return found


def attribute(model: onnx.ModelProto, op: str, name: str) -> onnx.AttributeProto:
    node = next(node for node in model.graph.node if node.op_type == op)
    found: onnx.AttributeProto = next(each for each in node.attribute if each.name == name)
    return found


def set_shape(model: onnx.ModelProto, *values: int) -> None:
    array(model, "norm1_towers_shape").raw_data = np.array(values, np.int64).tobytes()


def without_rank(model: onnx.ModelProto) -> None:
    for name, axis in (("fc6.weight.left", 1), ("fc6.weight.right", 0)):
        array(model, name).raw_data = b""
        array(model, name).dims[axis] = 0


FORGERIES: dict[str, Callable[[onnx.ModelProto], object]] = {
    "loop": loop_forever,
    "external data": store_outside,
    "bomb": bomb,
    "another constant": lambda m: setattr(attribute(m, "LRN", "alpha"), "f", 0.5),
    "another stride": lambda m: attribute(m, "Conv", "strides").ints.__setitem__(0, 3),
    "another opset": lambda m: setattr(m.opset_import[0], "version", 13),
    "another domain": lambda m: m.opset_import.append(helper.make_opsetid("com.example", 1)),
    "a function": lambda m: m.functions.append(
        helper.make_function("com.example", "F", ["x"], ["y"], [], [])
    ),
    "a node more": lambda m: m.graph.node.append(helper.make_node("Relu", ["fc7"], ["more"])),
    "a node less": lambda m: m.graph.node.pop(),
    "another operator": lambda m: setattr(m.graph.node[5], "op_type", "Sigmoid"),
    "a foreign operator": lambda m: setattr(m.graph.node[5], "domain", "com.example"),
    "another order": lambda m: m.graph.node.insert(0, m.graph.node.pop()),
    "an unknown output": lambda m: setattr(m.graph.output[0], "name", "x"),
    "no output": lambda m: m.graph.ClearField("output"),
    "one output twice": lambda m: m.graph.output.append(m.graph.output[0]),
    "another input": lambda m: setattr(m.graph.input[0], "name", "x"),
    "an array more": lambda m: m.graph.initializer.append(
        numpy_helper.from_array(np.zeros(3), "more")
    ),
    "an array less": lambda m: m.graph.initializer.pop(),
    "an array twice": lambda m: m.graph.initializer.append(m.graph.initializer[0]),
    "a sparse array": lambda m: m.graph.sparse_initializer.add(),
    "wrong dims": lambda m: array(m, "fc8.bias").dims.__setitem__(0, 12),
    "negative dims": lambda m: array(m, "fc8.bias").dims.__setitem__(0, -11),
    "huge dims": lambda m: array(m, "fc8.bias").dims.extend([2**40, 2**40]),
    "another type": lambda m: setattr(array(m, "fc8.bias"), "data_type", TensorProto.INT32),
    "an unknown type": lambda m: setattr(array(m, "fc8.bias"), "data_type", 99),
    "NaN": lambda m: setattr(
        array(m, "fc8.bias"), "raw_data", np.full(11, np.nan, np.float32).tobytes()
    ),
    "another mean": lambda m: setattr(
        array(m, "mean"), "raw_data", np.array([1, 2, 3], np.float32).tobytes()
    ),
    "another shape": lambda m: set_shape(m, -1, 96, 55, 55),
    "a training step": lambda m: m.training_info.add(),
    "factors of no rank": without_rank,
}


@pytest.mark.parametrize("kind", FORGERIES)
def test_a_forged_graph_is_refused_before_it_runs(kind: str, genuine: Path, tmp_path: Path) -> None:
    model = onnx.load_model_from_string(genuine.read_bytes())
    FORGERIES[kind](model)
    forged = tmp_path / "forged.onnx"
    forged.write_bytes(model.SerializeToString())
    with pytest.raises(IncompatibleFileError, match=r"forged\.onnx: .*export it again"):
        read_model(forged)


@pytest.mark.parametrize("name", ["pool1_scale", "conv2.weight_scale"])
@pytest.mark.parametrize("scale", [0.0, -0.5, 3e38])
def test_a_scale_that_is_none_is_refused(name: str, scale: float, tmp_path: Path) -> None:
    """Each runtime makes something else of it."""
    file = in_precision(build_model(random_checkpoint("caffe"), OUTPUTS), "int8")
    arrays = {**file.arrays, name: np.full_like(file.arrays[name], scale)}
    path = written(dataclasses.replace(file, arrays=arrays), tmp_path / "a.onnx")
    with pytest.raises(IncompatibleFileError, match=f"array {name} holds scales"):
        read_model(path)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_weights_with_which_the_network_could_overflow_are_refused(
    precision: FilePrecision, tmp_path: Path
) -> None:
    """OpenVINO would compute results from the overflow that look like any others."""
    file = in_precision(build_model(random_checkpoint("caffe"), OUTPUTS), precision)
    name = "conv2.weight_scale" if precision == "int8" else "conv2.weight"
    huge = (1e20 * file.arrays[name].astype(np.float32)).astype(file.arrays[name].dtype)
    path = written(
        dataclasses.replace(file, arrays={**file.arrays, name: huge}), tmp_path / "a.onnx"
    )
    with pytest.raises(IncompatibleFileError, match=r"a\.onnx: the numbers of conv2 could reach"):
        read_model(path)


def test_kernels_that_are_all_zero_do_not_count_for_an_int8_file(tmp_path: Path) -> None:
    """Their scale is 1, some thousand times the others'."""
    checkpoint = random_checkpoint("torchvision")
    arrays = dict(checkpoint.arrays)
    for name, array in arrays.items():
        if not name.endswith("bias"):
            arrays[name] = array.copy()
            arrays[name][0] = 0
    dead = dataclasses.replace(checkpoint, arrays=arrays)
    file = in_precision(build_model(dead, OUTPUTS), "int8")
    assert read_model(written(file, tmp_path / "a.onnx")).identity == file.identity


def test_a_rewritten_but_equal_file_is_read(genuine: Path, tmp_path: Path) -> None:
    """Guard the test above: writing by protobuf alone is no forgery."""
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(onnx.load_model_from_string(genuine.read_bytes()).SerializeToString())
    assert read_model(copy).is_unchanged()


def test_a_file_of_another_graph_version_is_told_apart(genuine: Path, tmp_path: Path) -> None:
    model = onnx.load_model_from_string(genuine.read_bytes())
    for entry in model.metadata_props:
        if entry.key == "alexnet_deploy.graph_version":
            entry.value = "1"
    old = tmp_path / "old.onnx"
    old.write_bytes(model.SerializeToString())
    with pytest.raises(IncompatibleFileError, match=r"version 1, .* reads version 2; exp"):
        read_model(old)


def test_a_huge_file_is_not_read_into_memory(tmp_path: Path) -> None:
    with open(tmp_path / "model.onnx", "wb") as file:
        file.truncate(200 * 10**9)
    with pytest.raises(IncompatibleFileError, match="200,000,000,000 bytes"):
        read_model(tmp_path / "model.onnx")


def test_the_producer_of_a_foreign_file_is_named_on_one_line(tmp_path: Path) -> None:
    producer = "pytorch\n" + "x" * 10**6
    onnx.save(onnx.ModelProto(producer_name=producer), tmp_path / "a.onnx")
    with pytest.raises(IncompatibleFileError, match=r"its producer is pytorch\\nx{92}\)") as raised:
        read_model(tmp_path / "a.onnx")
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("opset", OPSETS)
def test_every_version_of_the_operators_is_valid_and_read(opset: int, tmp_path: Path) -> None:
    checkpoint = random_checkpoint("paper")
    for precision in FILE_PRECISIONS:
        file = in_precision(build_model(checkpoint, OUTPUTS, opset), precision)
        assert check_onnx(file) == "valid"
        read = read_model(written(file, tmp_path / "model.onnx"))
        assert read.checkpoint_identity == checkpoint.identity
        expected = 22 if precision == "bf16" else opset
        assert [entry.version for entry in read.graph.opset_import] == [expected]


def test_operators_of_another_version_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="opset is 16, expected 17 to 22"):
        build_model(random_checkpoint("paper"), OUTPUTS, 16)
    file = build_model(random_checkpoint("paper"), OUTPUTS)
    file.graph.opset_import[0].version = 16
    with pytest.raises(RewrittenFileError, match="operators are of version 16"):
        read_model(written(file, tmp_path / "model.onnx"))
