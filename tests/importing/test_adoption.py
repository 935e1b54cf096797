"""What spec foreign arrays get, and from what it is known."""

from typing import Any

import numpy as np
import pytest

from alexnet_deploy.errors import IncompatibleFileError, UsageError
from alexnet_deploy.importing import known
from alexnet_deploy.importing.adoption import Adopted, Channels, ImportOptions, adopt
from alexnet_deploy.importing.known import KnownNetwork, arrays_digest
from alexnet_deploy.importing.source import Array, Source, StatedNetwork
from alexnet_deploy.model.labels import imagenet_labels
from alexnet_deploy.model.spec import PRESET_NAMES, PRESETS, LrnSpec
from tests.importing.test_matching import TORCHVISION, network, renamed
from tests.support.known_tables import use_few_outputs

PRESETS_BY_SHAPE = [name for name in PRESET_NAMES if name not in ("torchvision", "ungrouped")]


@pytest.fixture(autouse=True)
def _few_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    use_few_outputs(monkeypatch)


def source(arrays: dict[str, Array], **others: Any) -> Source:
    return Source(container="test", arrays=arrays, **others)


def adopted(
    arrays: dict[str, Array], *, stated: StatedNetwork | None = None, **said: Any
) -> Adopted:
    places = None if stated is None else {name: name for name in arrays}
    return adopt(source(arrays, stated=stated, places=places), "x", ImportOptions(**said))


def stated(preset: str, **changes: Any) -> StatedNetwork:
    spec = PRESETS[preset]
    fields = ("input_size", "conv1_padding", "pool_padding", "groups", "lrn")
    return StatedNetwork(**{name: getattr(spec, name) for name in fields} | changes)


def table(preset: str, arrays: dict[str, Array], monkeypatch: pytest.MonkeyPatch) -> KnownNetwork:
    """Put one network into the table of public ones."""
    entry = KnownNetwork(
        name="mine",
        title="the test's network",
        page="",
        preset=preset,  # type: ignore[arg-type]
        channels="BGR",
        licence="CC0",
        top1=50.0,
        top5=75.0,
        measured="not at all",
        arrays=arrays_digest(arrays),
        files=(),
    )
    monkeypatch.setattr(known, "known_networks", lambda: {"mine": entry})
    return entry


def test_torchvisions_network_is_known_by_its_names_and_gets_no_labels() -> None:
    found = adopted(renamed(network(num_classes=1000), TORCHVISION, "module.{}"))
    assert found.checkpoint.spec.preset == "torchvision"
    assert found.checkpoint.spec.labels == ()
    assert "torchvision's" in found.reason
    wrapped = {
        key.replace("features.", "features.module."): a
        for key, a in renamed(network(), TORCHVISION).items()
    }
    assert adopted(wrapped).checkpoint.spec.preset == "torchvision"


@pytest.mark.parametrize("preset", PRESETS_BY_SHAPE)
def test_arrays_alone_need_a_preset_and_nothing_can_check_it(preset: str) -> None:
    arrays = network(preset)
    with pytest.raises(
        UsageError, match=f"could be {' or |, '.join(PRESETS_BY_SHAPE[:1])}.*preset"
    ):
        adopted(arrays)
    found = adopted(arrays, preset=preset)
    assert found.checkpoint.spec.preset == preset
    assert (
        found.reason
        == f"it is taken as {preset}'s because you said so; nothing here can check that"
    )


def test_a_preset_of_other_shapes_is_refused() -> None:
    with pytest.raises(UsageError, match='does not have the architecture of preset="caffe"'):
        adopted(network("torchvision"), preset="caffe")
    with pytest.raises(UsageError, match="there is no preset 'alex'"):
        adopted(network("torchvision"), preset="alex")


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_a_graph_decides_by_itself(preset: str) -> None:
    found = adopted(network(preset), stated=stated(preset))
    assert found.checkpoint.spec.preset == preset
    assert found.reason == f"its graph is that of {preset}"
    other = PRESET_NAMES[PRESET_NAMES.index(preset) - 1]
    with pytest.raises(UsageError, match=f"but that of {preset}"):
        adopted(network(preset), stated=stated(preset), preset=other)


def test_a_graph_of_no_preset_keeps_its_own_constants_and_asks_for_the_preprocessing() -> None:
    lrn = LrnSpec(size=3, alpha=1e-3, beta=0.5, k=1.5, towers=1, position="after_pool")
    own = stated("caffe", lrn=lrn)
    with pytest.raises(UsageError, match="whose graph is none of"):
        adopted(network("caffe"), stated=own)
    spec = adopted(network("caffe"), stated=own, preset="torchvision").checkpoint.spec
    assert spec.lrn == lrn
    assert spec.preprocessing == PRESETS["torchvision"].preprocessing


def test_the_mean_of_a_graph_is_taken_and_shows_the_order_of_the_channels() -> None:
    own = stated("caffe", mean=(104.0, 117.0, 123.0), std=(1.0, 1.0, 2.0))
    found = adopted(network("caffe"), stated=own)
    assert found.channels == "BGR"
    assert found.checkpoint.spec.preprocessing.mean == (123.0, 117.0, 104.0)
    assert found.checkpoint.spec.preprocessing.std == (2.0, 1.0, 1.0)
    red_first = stated("torchvision", mean=(123.0, 117.0, 104.0), std=(58.0, 57.0, 57.0))
    assert adopted(network("torchvision"), stated=red_first).channels == "RGB"


@pytest.mark.parametrize(("said", "turned"), [(None, True), ("RGB", False)])
def test_caffes_kernels_and_mean_are_turned_from_bgr_to_rgb(
    said: Channels | None, turned: bool
) -> None:
    arrays = network("caffe")
    kernel = arrays["conv1.weight"] = np.random.default_rng(0).random((96, 3, 11, 11), np.float32)
    mean = np.random.default_rng(1).random((3, 256, 256), np.float32)
    found = adopt(
        source(arrays, mean_image=mean), "x", ImportOptions(preset="caffe", channels=said)
    )
    step = -1 if turned else 1
    read = found.checkpoint.arrays
    np.testing.assert_array_equal(read["conv1.weight"], kernel[:, ::step])
    np.testing.assert_array_equal(read["mean_image"], mean[::step])


def test_a_public_network_is_known_by_its_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = network("caffe", num_classes=1000)
    entry = table("caffe", arrays, monkeypatch)
    wide = {name: array.astype(np.float64) for name, array in renamed(arrays, TORCHVISION).items()}
    found = adopted(wide)
    assert (found.network, found.channels) == (entry, "BGR")
    assert found.checkpoint.spec.labels == imagenet_labels()
    with pytest.raises(UsageError, match='is the test\'s network, so preset="caffenet" is wrong'):
        adopted(arrays, preset="caffenet")
    arrays["fc8.bias"] = arrays["fc8.bias"] + np.float32(1)
    with pytest.raises(UsageError, match="could be"):
        adopted(arrays)


def test_a_network_without_a_head_must_be_meant() -> None:
    headless = {name: array for name, array in network("caffe").items() if "fc8" not in name}
    with pytest.raises(IncompatibleFileError, match='add head="none"'):
        adopted(headless, stated=stated("caffe"))
    for arrays in (headless, network("caffe")):
        spec = adopted(arrays, stated=stated("caffe"), head="none").checkpoint.spec
        assert not spec.has_head


def test_unusual_widths_are_taken_with_a_preset() -> None:
    arrays = network("caffe")
    arrays |= {
        "conv4.weight": np.broadcast_to(np.float32(0), (128, 192, 3, 3)),
        "conv4.bias": np.zeros(128, np.float32),
        "conv5.weight": np.broadcast_to(np.float32(0), (256, 64, 3, 3)),
    }
    spec = adopted(arrays, preset="caffe").checkpoint.spec
    assert (spec.widths, spec.groups) == ((96, 256, 384, 128, 256), (1, 2, 1, 2, 2))


def test_kernels_of_other_groups_than_the_description_says_are_refused() -> None:
    one = stated("caffe", groups=(1, 1, 1, 1, 1))
    with pytest.raises(IncompatibleFileError, match=r"x: its kernels \[96, 3, 11, 11\], .* says"):
        adopted(network("caffe"), stated=one)


def test_labels_must_be_one_for_each_class() -> None:
    arrays = network("caffe", num_classes=2)
    assert adopted(arrays, preset="caffe", labels=("a", "b")).checkpoint.spec.labels == ("a", "b")
    with pytest.raises(IncompatibleFileError, match="1 labels for 2 classes"):
        adopted(arrays, preset="caffe", labels=("a",))


def test_a_number_that_is_none_is_refused() -> None:
    arrays = network("caffe") | {"conv1.bias": np.full(96, np.nan, np.float32)}
    with pytest.raises(IncompatibleFileError, match=r"conv1\.bias holds 96 values that are NaN"):
        adopted(arrays, preset="caffe")
