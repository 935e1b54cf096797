"""The cast before the transposition: the same numbers, and nothing else is touched."""

import dataclasses

import numpy as np
import onnx
import pytest

from alexnet_deploy.graph.build import build_model
from alexnet_deploy.graph.model_file import ModelFile
from alexnet_deploy.model.spec import PRESET_NAMES
from alexnet_deploy.trt.uint8_input import cast_first
from tests.support.networks import noise, random_checkpoint
from tests.support.plain_session import plain_session


def logits(file: ModelFile) -> np.ndarray:
    onnx.checker.check_model(file.to_bytes(), full_check=True)
    session = plain_session(file.to_bytes())
    return np.asarray(session.run(["logits"], {"images": noise(file.spec, 2)})[0])


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_the_cast_moves_to_the_front_and_no_number_changes(preset: str) -> None:
    file = build_model(random_checkpoint(preset), ("logits",))
    before = file.graph.SerializeToString()
    changed = cast_first(file)
    kinds = [node.op_type for node in changed.graph.graph.node]
    assert kinds[:2] == ["Cast", "Transpose"]
    assert list(changed.graph.graph.node)[2:] == list(file.graph.graph.node)[2:]
    np.testing.assert_array_equal(logits(changed), logits(file))  # a cast is exact
    assert file.graph.SerializeToString() == before


def test_a_graph_that_begins_otherwise_is_left_alone() -> None:
    file = build_model(random_checkpoint("paper"), ("logits",))
    assert cast_first(cast_first(file)).graph == cast_first(file).graph
    graph = onnx.ModelProto()
    graph.CopyFrom(file.graph)
    graph.graph.node.append(onnx.helper.make_node("Identity", ["images_nchw"], ["also"]))
    read_twice = dataclasses.replace(file, graph=graph)
    assert cast_first(read_twice) is read_twice
