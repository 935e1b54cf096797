"""The four presets against the published tables, and the spec's JSON."""

import dataclasses
import json
import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexnet_deploy.errors import IncompatibleFileError, UsageError
from alexnet_deploy.model.spec import PRESET_NAMES, PRESETS, ModelSpec, preset_spec

# Weights and biases of each layer of the two-tower network, counted from the paper's section 3.5.
PAPER_PARAMETERS = {
    "conv1": 34_944,
    "conv2": 307_456,
    "conv3": 885_120,
    "conv4": 663_936,
    "conv5": 442_624,
    "fc6": 37_752_832,
    "fc7": 16_781_312,
    "fc8": 4_097_000,
}
PAPER_MULTIPLICATIONS = {
    "conv1": 105_415_200,
    "conv2": 223_948_800,
    "conv3": 149_520_384,
    "conv4": 112_140_288,
    "conv5": 74_760_192,
    "fc6": 37_748_736,
    "fc7": 16_777_216,
    "fc8": 4_096_000,
}
# Outputs of each layer; their sum is the paper's "650,000 neurons" without its slip in conv1.
PAPER_NEURONS = {
    "conv1": 290_400,
    "conv2": 186_624,
    "conv3": 64_896,
    "conv4": 64_896,
    "conv5": 43_264,
    "fc6": 4_096,
    "fc7": 4_096,
    "logits": 1_000,
}
TOTALS = {
    "paper": 60_965_224,
    "caffe": 60_965_224,
    "caffenet": 60_965_224,
    "caffe-224": 60_965_224,
    "caffenet-224": 60_965_224,
    "torchvision": 61_100_840,
    "ungrouped": 62_378_344,
}


def parameters(spec: ModelSpec, layer: str) -> int:
    shapes = spec.array_shapes()
    return sum(math.prod(shapes[f"{layer}.{part}"]) for part in ("weight", "bias"))


@pytest.mark.parametrize("layer", PAPER_PARAMETERS)
def test_paper_preset_has_the_published_parameters_of_each_layer(layer: str) -> None:
    assert parameters(PRESETS["paper"], layer) == PAPER_PARAMETERS[layer]


@pytest.mark.parametrize("layer", PAPER_MULTIPLICATIONS)
def test_paper_preset_has_the_published_multiplications_of_each_layer(layer: str) -> None:
    spec = PRESETS["paper"]
    output = spec.layer_shapes()["logits" if layer == "fc8" else layer]
    positions = math.prod(output[1:])
    weights = math.prod(spec.array_shapes()[f"{layer}.weight"])
    assert weights * positions == PAPER_MULTIPLICATIONS[layer]


def test_paper_preset_has_the_published_neurons_of_each_layer() -> None:
    shapes = PRESETS["paper"].layer_shapes()
    assert {layer: math.prod(shapes[layer]) for layer in PAPER_NEURONS} == PAPER_NEURONS
    assert sum(PAPER_NEURONS.values()) == 659_272


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_presets_have_the_published_number_of_parameters(preset: str) -> None:
    shapes = PRESETS[preset].array_shapes().values()
    assert sum(math.prod(shape) for shape in shapes) == TOTALS[preset]


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_maps_are_55_27_13_6_px_and_at_the_zoos_224_54_26_12_6(preset: str) -> None:
    shapes = PRESETS[preset].layer_shapes()
    sizes = [shapes[name][1] for name in ("conv1", "pool1", "pool2", "conv5", "pool5")]
    expected = [54, 26, 12, 12, 6] if preset.endswith("-224") else [55, 27, 13, 13, 6]
    assert sizes == expected


def test_a_network_without_a_head_ends_with_fc7() -> None:
    spec = preset_spec("paper", num_classes=0)
    assert not spec.has_head
    assert list(spec.layer_shapes())[-1] == "fc7"
    assert list(spec.array_shapes())[-2:] == ["fc7.weight", "fc7.bias"]


def test_a_file_without_pool_padding_is_the_same_spec_in_every_version() -> None:
    assert "pool_padding" not in json.loads(PRESETS["paper"].to_json())
    assert json.loads(PRESETS["caffe-224"].to_json())["pool_padding"] == [0, 0, 1]


def test_caffenet_normalizes_after_pooling_and_torchvision_not_at_all() -> None:
    layers = list(PRESETS["caffenet"].layer_shapes())
    assert layers[:4] == ["conv1_pre", "conv1", "pool1", "norm1"]
    assert not any(name.startswith("norm") for name in PRESETS["torchvision"].layer_shapes())


@given(
    preset=st.sampled_from(PRESET_NAMES),
    labels=st.lists(st.text(min_size=1), min_size=1, max_size=5),
    note=st.text(),
)
def test_json_round_trip_gives_an_equal_spec(preset: str, labels: list[str], note: str) -> None:
    spec = preset_spec(preset, num_classes=len(labels), labels=tuple(labels))
    spec = dataclasses.replace(spec, provenance={"note": note, "measured": {"top1": 0.5}})
    assert ModelSpec.from_json(spec.to_json()) == spec


def test_identity_ignores_names_and_labels_and_sees_everything_that_changes_numbers() -> None:
    spec = PRESETS["paper"]
    named = dataclasses.replace(spec, labels=tuple(map(str, range(1000))), provenance={"a": 1})
    assert named.result_fields() == spec.result_fields()
    assert spec.lrn is not None
    changed = [
        dataclasses.replace(spec, lrn=dataclasses.replace(spec.lrn, towers=1)),
        dataclasses.replace(spec, conv1_padding=(3, 3, 0, 0)),
        dataclasses.replace(
            spec, preprocessing=dataclasses.replace(spec.preprocessing, filter="bilinear")
        ),
    ]
    assert all(other.result_fields() != spec.result_fields() for other in changed)


def test_a_newer_format_is_refused_with_the_remedy() -> None:
    fields = json.loads(PRESETS["paper"].to_json()) | {"format": 99}
    with pytest.raises(IncompatibleFileError, match=r"format is 99.*update alexnet-deploy"):
        ModelSpec.from_json(json.dumps(fields))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 2}', "nonsense", '{"format": 2, "a": 2}']
)
def test_damaged_json_is_refused(text: str) -> None:
    with pytest.raises(IncompatibleFileError):
        ModelSpec.from_json(text)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("preset", "vgg"),
        ("labels", ["one"]),
        ("labels", [1] * 1000),
        ("labels", "x" * 1000),
        ("provenance", ["trained at home"]),
        ("input_size", 12),
        ("input_size", 63),  # the paper's padding makes it 66 px, and pool5 vanishes
        ("input_size", 224.5),
        ("input_size", 4097),
        ("input_size", "224"),
        ("conv1_padding", [0, 0, 3]),
        ("conv1_padding", [0, 0, 0, -3]),
        ("conv1_padding", [0, 0, 3, 0]),
        ("widths", [96, 256, 384, 384]),
        ("widths", [0, 256, 384, 384, 256]),
        ("widths", 96),
        ("groups", [1, 5, 1, 2, 2]),
        ("groups", [1, 0, 1, 2, 2]),
        ("num_classes", -1),
        ("num_classes", 1_000_001),
        ("num_classes", True),
        ("lrn.size", 4),
        ("lrn.size", -1),
        ("lrn.size", 1001),
        ("lrn.alpha", -1e-4),
        ("lrn.beta", None),
        ("lrn.k", 0),
        ("lrn.towers", 0),
        ("lrn.towers", 3),  # a third of 96, but not of 256
        ("lrn.position", "between"),
        ("preprocessing.resize", "stretch"),
        ("preprocessing.resize_to", 223),
        ("preprocessing.resize_to", 4097),
        ("preprocessing.filter", ["bicubic"]),
        ("preprocessing.mean", [1.0, 2.0]),
        ("preprocessing.mean", [1.0, 2.0, "3"]),
        ("preprocessing.std", [1, 0, 1]),
    ],
)
def test_impossible_values_are_refused_by_file_and_name(field: str, value: object) -> None:
    start = rf"^weights\.pt: damaged \({re.escape(field)}(\[\d+\])? is "
    with pytest.raises(IncompatibleFileError, match=start) as raised:
        ModelSpec.from_json(paper_json(field, value), "weights.pt")
    assert len(str(raised.value)) < 300


def test_a_number_beyond_every_float_is_refused() -> None:
    with pytest.raises(IncompatibleFileError, match=r"lrn\.k is 1000.*expected a finite number"):
        ModelSpec.from_json(paper_json("lrn.k", 10**400))


def paper_json(field: str, value: object) -> str:
    """Return the paper preset's JSON with one field changed; "lrn.k" lies within "lrn"."""
    fields = json.loads(PRESETS["paper"].to_json())
    *parents, name = field.split(".")
    inner = fields[parents[0]] if parents else fields
    assert name in inner
    inner[name] = value
    return json.dumps(fields)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lrn.k", 2),
        ("lrn.size", 5.0),
        ("input_size", 224.0),
        ("groups", [1.0, 2, 1, 2.0, 2]),
        ("preprocessing.std", [1, 1, 1]),
    ],
)
def test_a_number_is_the_same_with_and_without_a_point(field: str, value: object) -> None:
    spec = ModelSpec.from_json(paper_json(field, value))
    assert spec.to_json() == PRESETS["paper"].to_json()
    assert json.dumps(spec.result_fields()) == json.dumps(PRESETS["paper"].result_fields())


def test_values_from_numpy_can_be_written() -> None:
    mean: Any = tuple(np.array([1.5, 2.5, 3.5], np.float32))
    resize_to: Any = np.int64(256)
    preprocessing = dataclasses.replace(
        PRESETS["paper"].preprocessing, mean=mean, resize_to=resize_to
    )
    spec = dataclasses.replace(PRESETS["paper"], preprocessing=preprocessing)
    assert ModelSpec.from_json(spec.to_json()) == spec


def test_what_json_cannot_hold_is_refused_before_it_has_to_be_written() -> None:
    text = paper_json("provenance", {"loss": math.nan})
    with pytest.raises(IncompatibleFileError, match="'NaN' is not a finite number"):
        ModelSpec.from_json(text)


@pytest.mark.parametrize(("padding", "smallest"), [((0, 0, 0, 0), 67), ((2, 2, 2, 2), 63)])
def test_the_smallest_input_leaves_one_pixel(padding: Any, smallest: int) -> None:
    spec = dataclasses.replace(PRESETS["paper"], conv1_padding=padding, input_size=smallest)
    assert spec.layer_shapes()["pool5"] == (256, 1, 1)
    with pytest.raises(IncompatibleFileError, match="maps vanish"):
        dataclasses.replace(spec, input_size=smallest - 1)


def test_an_unknown_preset_lists_those_that_exist() -> None:
    with pytest.raises(UsageError, match="paper, torchvision, caffe, caffenet"):
        preset_spec("vgg")
