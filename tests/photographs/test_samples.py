"""The data inside the package: the photographs, their attribution, the bundled checkpoint."""

import math
import struct
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from alexnet_deploy.model.checkpoints import load_checkpoint
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.model.labels import imagenet_devkit, imagenet_labels, imagenet_names
from alexnet_deploy.photographs.samples import sample_paths, varied_samples

DATA = bundled_checkpoint().parent
CALTECH_DOI = "10.22002/D1.20086"


def test_twelve_classes_have_six_photographs_and_28_have_one_in_order() -> None:
    paths = sample_paths()
    sizes = Counter(path.parent.name for path in paths)
    assert Counter(sizes.values()) == {6: 12, 1: 28}
    assert list(paths) == sorted(paths)


def test_the_varied_ones_are_one_of_each_class_in_order() -> None:
    paths = varied_samples()
    assert [path.parent for path in paths] == sorted({path.parent for path in sample_paths()})
    assert set(paths) <= set(sample_paths())


def test_every_sample_is_of_a_class_that_the_bundled_checkpoint_knows() -> None:
    labels = load_checkpoint(bundled_checkpoint()).spec.labels
    assert {path.parent.name for path in sample_paths()} <= set(labels)


def test_samples_stay_small() -> None:
    assert sum(path.stat().st_size for path in sample_paths()) < 2_000_000


def test_the_varied_ones_are_grey_and_in_colour_upright_and_wide() -> None:
    modes, ratios = set(), []
    for path in varied_samples():
        with Image.open(path) as photograph:
            photograph.load()
            modes.add(photograph.mode)
            ratios.append(photograph.width / photograph.height)
    assert modes == {"L", "RGB"}
    assert min(ratios) < 0.5
    assert max(ratios) > 2


def test_samples_are_the_published_bytes_of_test_photographs(caltech_test: Path) -> None:
    for path in sample_paths():
        assert path.read_bytes() == (caltech_test / path.parent.name / path.name).read_bytes()


@pytest.mark.parametrize("page", ["samples/README.md", "caltech101.md"])
def test_data_under_cc_by_is_attributed(page: str) -> None:
    text = (DATA / page).read_text("utf-8")
    assert CALTECH_DOI in text
    assert "CC BY 4.0" in text
    assert "Andreeto" in text


def test_the_data_page_names_every_file() -> None:
    page = (DATA / "README.md").read_text("utf-8")
    for path in DATA.iterdir():
        assert path.name == "README.md" or path.name in page


def test_the_model_card_says_what_the_header_says() -> None:
    checkpoint = load_checkpoint(bundled_checkpoint())
    card = (DATA / "caltech101.md").read_text("utf-8")
    measured = checkpoint.spec.provenance["measured"]
    for figures in (measured, measured["dense_before_factoring"]):
        for name in ("top1", "top5", "mean_class_top1"):
            assert f"{100 * figures[name]:.2f} %" in card
    num_parameters = sum(math.prod(shape) for shape in checkpoint.spec.array_shapes().values())
    assert f"{num_parameters:,} parameters" in card
    assert checkpoint.spec.provenance["licence"] == "CC BY 4.0"


def test_the_bundled_checkpoint_is_aligned_for_reading_without_a_copy() -> None:
    with bundled_checkpoint().open("rb") as file:
        (header_bytes,) = struct.unpack("<Q", file.read(8))
    assert (8 + header_bytes) % 8 == 0


def test_the_imagenet_table_is_in_the_order_of_wordnet_ids() -> None:
    rows = (DATA / "imagenet_classes.tsv").read_text("utf-8").splitlines()
    assert rows[0].split("\t") == ["index", "wnid", "devkit", "names"]
    indices, wnids, devkit, _ = zip(*(row.split("\t") for row in rows[1:]), strict=True)
    assert [int(index) for index in indices] == list(range(1000))
    assert list(wnids) == sorted(set(wnids))
    assert imagenet_labels()[207].startswith("golden retriever")
    assert sorted(map(int, devkit)) == list(range(1, 1001))


def test_the_numbers_of_the_devkit_are_those_of_its_ground_truth() -> None:
    # The first ten validation photographs, in the devkit's file and in Caffe's val.txt.
    numbers = [490, 361, 171, 822, 297, 482, 13, 704, 599, 164]
    indices = [65, 970, 230, 809, 516, 57, 334, 415, 674, 332]
    wnids = list(imagenet_names())
    assert [imagenet_devkit()[number - 1] for number in numbers] == [wnids[i] for i in indices]
