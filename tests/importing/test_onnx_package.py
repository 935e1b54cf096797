"""What the onnx package stores and computes itself: its bvlc_alexnet, and its cases of LRN."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import lrn as lrn_cases

from alexnet_deploy.importing.adoption import ImportOptions
from alexnet_deploy.importing.opening import import_weights
from alexnet_deploy.model.reference import Reference, local_response_norm
from alexnet_deploy.model.spec import LrnSpec
from alexnet_deploy.verification.foreign import compare_on_samples
from tests.support.golden_files import light_bvlc_alexnet
from tests.support.plain_session import plain_session

Array = NDArray[Any]
Case = tuple[onnx.NodeProto, Array, Array]


def test_the_stored_bvlc_alexnet_computes_what_is_stored_with_it() -> None:
    path = light_bvlc_alexnet()
    imported = import_weights(path, ImportOptions())
    checkpoint, adopted = imported.checkpoint, imported.adopted
    assert adopted is not None
    assert adopted.reason == "its graph is that of caffe-224"
    compare_on_samples(path, checkpoint, channels=adopted.channels).raise_if_failed("light")
    # As its runner makes the input, but with the channels in RGB and the mean not yet subtracted.
    count = 3 * 224 * 224
    given = (np.arange(count) / count).astype(np.float32).reshape(3, 224, 224)
    image: Any = (given[::-1] + checkpoint.mean()).transpose(1, 2, 0)
    actual = Reference(checkpoint).run(image[np.newaxis])["probabilities"]
    stored = path.with_name("light_bvlc_alexnet_output_0.pb").read_bytes()
    expected = numpy_helper.to_array(TensorProto.FromString(stored))
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-7)  # as its data.json allows


def cases() -> Iterator[Case]:
    """Yield the onnx package's own cases: a node, what it reads, and what it must give."""
    found: list[Case] = []

    def expect(node: onnx.NodeProto, inputs: list[Array], outputs: list[Array], name: str) -> None:
        found.append((node, inputs[0], outputs[0]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lrn_cases, "expect", expect)
        np.random.seed(0)  # they draw from the generator that all share
        lrn_cases.LRN.export()
        lrn_cases.LRN.export_default()
    yield from found


def by_reference(node: onnx.NodeProto, x: Array) -> Array:
    numbers = {"alpha": 1e-4, "beta": 0.75, "bias": 1.0}  # the operator's own
    numbers |= {each.name: helper.get_attribute_value(each) for each in node.attribute}
    spec = LrnSpec(k=numbers.pop("bias"), towers=1, position="before_pool", **numbers)  # type: ignore[arg-type]
    return np.stack([local_response_norm(image, spec) for image in x])


def by_onnxruntime(node: onnx.NodeProto, x: Array) -> Array:
    return np.asarray(plain_session(model_of(node, x)).run(None, {"x": x})[0])


def by_openvino(node: onnx.NodeProto, x: Array) -> Array:
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    return np.asarray(core.compile_model(core.read_model(model_of(node, x)), "CPU")([x])[0])


def model_of(node: onnx.NodeProto, x: Array) -> bytes:
    """Return a model of that node, which reads x and gives y."""
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, x.shape) for end in "xy"]
    graph = helper.make_graph([node], "lrn", ends[:1], ends[1:])
    opset = helper.make_opsetid("", 13)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("compute", [by_reference, by_onnxruntime, by_openvino])
def test_onnxs_cases_of_lrn(compute: Callable[[onnx.NodeProto, Array], Array]) -> None:
    found = list(cases())
    assert len(found) == 2
    for node, x, expected in found:
        np.testing.assert_allclose(compute(node, x), expected, rtol=1e-5)
        # Some hundreds, where the window decides; there its own case is blind.
        np.testing.assert_allclose(
            compute(node, 300 * x), by_reference(node, (300 * x).astype(np.float64)), rtol=1e-4
        )
