"""Each lowered form is the same function as the file, edges of the towers included."""

import dataclasses
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from alexnet_deploy.graph.build import build_model
from alexnet_deploy.graph.lowering import banded_convolution, split_towers
from alexnet_deploy.graph.model_file import ModelFile
from alexnet_deploy.model.checkpoints import Checkpoint
from alexnet_deploy.model.reference import Reference
from alexnet_deploy.model.spec import LrnSpec
from tests.support.networks import noise, random_checkpoint, relative_error
from tests.support.plain_session import plain_session

FORMS = {"folded": lambda file: file, "banded": banded_convolution, "split": split_towers}
PRESETS_WITH_LRN = ("paper", "caffe", "caffenet")


def run(file: ModelFile, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    onnx.checker.check_model(file.to_bytes(), full_check=True)
    session = plain_session(file.to_bytes())
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


@pytest.mark.parametrize("preset", PRESETS_WITH_LRN)
@pytest.mark.parametrize("form", FORMS)
def test_every_layer_of_every_form_equals_the_reference(preset: str, form: str) -> None:
    checkpoint = random_checkpoint(preset)
    names = tuple(checkpoint.spec.layer_shapes())
    file = build_model(checkpoint, ("probabilities",)).with_outputs(names)
    images = noise(checkpoint.spec, 2)
    actual = run(FORMS[form](file), images)
    expected = Reference(checkpoint, np.float64).run(images)
    assert expected["conv1"].max() > 80
    for name in names:
        assert relative_error(actual[name], expected[name]) < 1e-5, name  # float32: 1e-6


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layer", ["norm1", "norm2"])
def test_channels_beside_the_tower_edge_are_right_one_by_one(form: str, layer: str) -> None:
    checkpoint = random_checkpoint("paper")
    images = noise(checkpoint.spec, 1)
    file = build_model(checkpoint, ("probabilities",)).with_outputs((layer,))
    actual = run(FORMS[form](file), images)[layer][0]
    expected = Reference(checkpoint, np.float64).run(images)[layer][0]
    middle = len(expected) // 2
    for channel in (0, 1, *range(middle - 2, middle + 2), len(expected) - 2, len(expected) - 1):
        assert relative_error(actual[channel], expected[channel]) < 1e-5, channel


@pytest.mark.parametrize("form", ["banded", "split"])
@pytest.mark.parametrize(
    "lrn",
    [
        LrnSpec(size=3, alpha=5e-3, beta=0.6, k=1.5, towers=2, position="before_pool"),
        LrnSpec(size=9, alpha=1e-3, beta=0.75, k=1.0, towers=4, position="before_pool"),
        LrnSpec(size=5, alpha=1e-3, beta=1.0, k=2.0, towers=2, position="after_pool"),
    ],
)
def test_other_windows_powers_and_towers_are_lowered_as_they_are(form: str, lrn: LrnSpec) -> None:
    base = random_checkpoint("paper")
    checkpoint = Checkpoint(spec=dataclasses.replace(base.spec, lrn=lrn), arrays=base.arrays)
    images = noise(checkpoint.spec, 1)
    actual = run(FORMS[form](build_model(checkpoint, ("logits", "norm2"))), images)
    expected = Reference(checkpoint, np.float64).run(images)
    for name in ("logits", "norm2"):
        assert relative_error(actual[name], expected[name]) < 1e-5, name


@settings(max_examples=15)
@given(data=st.data(), form=st.sampled_from(["banded", "split"]))
def test_any_choice_of_outputs_survives_lowering(data: st.DataObject, form: str) -> None:
    checkpoint = random_checkpoint("paper")
    layers = list(checkpoint.spec.layer_shapes())
    names = tuple(data.draw(st.lists(st.sampled_from(layers), min_size=1, max_size=3, unique=True)))
    file = build_model(checkpoint, ("probabilities",)).with_outputs(names)
    images = noise(checkpoint.spec, 1)
    folded, lowered = run(file, images), run(FORMS[form](file), images)
    assert list(lowered) == list(names)
    for name in names:
        assert relative_error(lowered[name], folded[name]) < 1e-5


def test_the_split_form_has_no_reshape_and_one_join() -> None:
    file = split_towers(build_model(random_checkpoint("paper"), ("probabilities", "fc7")))
    kinds = [node.op_type for node in file.graph.graph.node]
    assert kinds.count("Reshape") == 0
    assert kinds.count("Concat") == 1
    assert kinds.count("LRN") == 4
    assert kinds.count("Conv") == 7


def test_the_banded_form_has_no_lrn_left() -> None:
    for preset in PRESETS_WITH_LRN:
        file = banded_convolution(build_model(random_checkpoint(preset), ("probabilities",)))
        kinds = {node.op_type for node in file.graph.graph.node}
        assert not kinds & {"LRN", "Reshape"}


def test_a_network_without_lrn_passes_unchanged() -> None:
    file = build_model(random_checkpoint("torchvision"), ("probabilities",))
    for lower in (banded_convolution, split_towers):
        assert lower(file).graph.graph == file.graph.graph


def test_a_fault_in_the_files_own_normalization_is_lowered_too() -> None:
    """Lowering must not repair a file: verification would pass on a wrong one."""
    file = build_model(random_checkpoint("paper"), ("norm1",))
    for node in file.graph.graph.node:
        for attribute in node.attribute:
            if node.op_type == "LRN" and attribute.name == "alpha":
                attribute.f *= 5
    images = noise(file.spec, 1)
    expected = run(file, images)["norm1"]
    for lower in (banded_convolution, split_towers):
        assert relative_error(run(lower(file), images)["norm1"], expected) < 1e-5


@pytest.mark.parametrize("lower", [banded_convolution, split_towers])
@pytest.mark.parametrize(
    "inner",
    [[-1, 48, 55, 110], [-1, 24, 55, 55], [-1, 48, 110, 55], [-1, 96, 55, 55]],
)
def test_only_the_exact_fold_is_rewritten(
    lower: Callable[[ModelFile], ModelFile], inner: list[int]
) -> None:
    """Whatever else the Reshapes do, the lowered graph must go on doing it."""
    file = build_model(random_checkpoint("paper"), ("norm1",))
    changed = dict(file.arrays) | {"norm1_towers_shape": np.array(inner, np.int64)}
    file = dataclasses.replace(file, arrays=changed)
    images = noise(file.spec, 2)
    expected = run(file, images)["norm1"]
    assert relative_error(run(lower(file), images)["norm1"], expected) < 1e-5
