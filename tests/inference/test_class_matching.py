"""Which class is which output, and what is refused rather than guessed."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from alexnet_deploy.errors import DatasetError, IncompatibleFileError
from alexnet_deploy.inference.class_matching import check_same_classes, match_classes
from alexnet_deploy.model.labels import imagenet_labels, imagenet_names
from alexnet_deploy.model.spec import ModelSpec, preset_spec
from alexnet_deploy.photographs.class_folders import ClassFolders, find_class_folders
from alexnet_deploy.photographs.truth_files import Labelled, LabelledFiles
from tests.support.fake_runner import SPEC, save_photograph

UNNAMED = preset_spec("paper", num_classes=2)
# The sea snake and the alp.
WNIDS, OUTPUTS = ("n01751748", "n09193705"), [65, 970]


def folders_called(root: Path, *names: str) -> ClassFolders:
    for name in names:
        save_photograph(root / name / "1.png", (1, 2, 3))
    return find_class_folders(root)


def file_with(*classes: str) -> LabelledFiles:
    labels = np.arange(len(classes), dtype=np.int32)
    paths = tuple(Path(f"{name}.jpg") for name in classes)
    return LabelledFiles(
        file=Path("val.txt"), classes=classes, labels=labels, paths=paths, num_unlabelled=0
    )


def matched(photographs: Labelled, spec: ModelSpec) -> tuple[list[int], str]:
    match = match_classes(photographs, spec, "m.onnx")
    assert match.indices.dtype == np.int64
    return match.indices.tolist(), match.by


def test_classes_are_the_labels_of_their_names_and_may_be_fewer(tmp_path: Path) -> None:
    folders = folders_called(tmp_path, "red", "great_auk", "blue")
    assert folders.classes == ("blue", "great_auk", "red")
    assert matched(folders, SPEC) == ([2, 3, 0], "label")
    assert matched(file_with("great_auk"), SPEC) == ([3], "label")


def synset_words() -> tuple[str, ...]:
    """Return ImageNet's labels as in Caffe's file."""
    return tuple(f"{wnid} {name}" for wnid, name in imagenet_names().items())


@pytest.mark.parametrize("labels", [(), imagenet_labels(), synset_words()])
def test_wordnet_ids_are_the_outputs_of_imagenets_networks(
    tmp_path: Path, labels: tuple[str, ...]
) -> None:
    spec = preset_spec("caffe", labels=labels)
    assert matched(folders_called(tmp_path, *WNIDS), spec) == (OUTPUTS, "wnid")
    assert matched(file_with(*WNIDS), spec) == (OUTPUTS, "wnid")


def test_wordnet_ids_follow_the_labels_where_they_are_the_labels() -> None:
    words = synset_words()
    turned = preset_spec("caffe", labels=(words[970], *words[:970], *words[971:]))
    assert matched(file_with(*WNIDS), turned) == ([66, 0], "wnid")
    few = preset_spec("paper", num_classes=3, labels=(WNIDS[1], "other", WNIDS[0]))
    assert matched(file_with(*WNIDS), few) == ([2, 0], "label")
    with pytest.raises(DatasetError, match=r"val\.txt: 2 of 2 classes are not labels of m\.onnx: "):
        match_classes(file_with(*WNIDS), SPEC, "m.onnx")


def test_numbers_in_a_file_are_outputs_unless_they_are_labels() -> None:
    assert matched(file_with("0", "3"), SPEC) == ([0, 3], "number")
    assert matched(file_with("0", "1"), UNNAMED) == ([0, 1], "number")
    digits = preset_spec("paper", num_classes=3, labels=("2", "1", "0"))
    assert matched(file_with("0", "1"), digits) == ([2, 1], "label")
    with pytest.raises(DatasetError, match=r"val\.txt: has a class 4, the outputs .* are 0 to 3"):
        match_classes(file_with("0", "4"), SPEC, "m.onnx")


def test_an_unknown_class_is_named_with_labels_that_are_near(tmp_path: Path) -> None:
    folders = folders_called(tmp_path, "red", "Great-Auk", "zzz")
    with pytest.raises(DatasetError) as raised:
        match_classes(folders, SPEC, "m.onnx")
    message = str(raised.value)
    assert message.startswith(f"{tmp_path}: 2 of 3 classes are not labels of m.onnx: ")
    assert "'Great-Auk' (near: 'great_auk'); 'zzz' (no label is near); its 4 labels" in message
    assert "'red', 'green', 'blue'; rename" in message


def test_many_unknown_classes_make_a_short_message(tmp_path: Path) -> None:
    folders = folders_called(tmp_path, *(f"q{number}" for number in range(9)))
    with pytest.raises(DatasetError, match=r"9 of 9 .* and 6 more; its"):
        match_classes(folders, SPEC, "m.onnx")


def test_without_labels_the_folders_in_sorted_order_are_the_classes(tmp_path: Path) -> None:
    folders = folders_called(tmp_path, "b", "a")
    assert matched(folders, UNNAMED) == ([0, 1], "order")
    three = preset_spec("paper", num_classes=3)
    with pytest.raises(DatasetError, match=r"2 classes, m\.onnx has 3 and no labels to match them"):
        match_classes(folders, three, "m.onnx")
    with pytest.raises(DatasetError, match=r"val\.txt: has 2 classes, m\.onnx has 2 and no labels"):
        match_classes(file_with("a", "b"), UNNAMED, "m.onnx")


def test_a_label_that_two_outputs_have_is_refused_where_a_class_has_it(tmp_path: Path) -> None:
    cranes = preset_spec("paper", num_classes=3, labels=("crane", "dog", "crane"))
    assert matched(folders_called(tmp_path / "a", "dog"), cranes) == ([1], "label")
    with pytest.raises(IncompatibleFileError, match="2 of its outputs are called 'crane'"):
        match_classes(folders_called(tmp_path / "b", "dog", "crane"), cranes, "m")


def test_models_of_other_classes_are_refused_by_name() -> None:
    check_same_classes(SPEC, dataclasses.replace(SPEC, preset="caffe"), "a", "b")
    swapped = dataclasses.replace(SPEC, labels=("red", "blue", "green", "great_auk"))
    with pytest.raises(IncompatibleFileError, match=r"a\.pt and b\.onnx: .*output 1 is 'green' an"):
        check_same_classes(SPEC, swapped, "a.pt", "b.onnx")
    with pytest.raises(IncompatibleFileError, match="4 and 2 classes"):
        check_same_classes(SPEC, UNNAMED, "a.pt", "b.onnx")
    with pytest.raises(IncompatibleFileError, match="output 0 is 'class 0' and 'x'"):
        check_same_classes(UNNAMED, dataclasses.replace(UNNAMED, labels=("x", "y")), "a", "b")
