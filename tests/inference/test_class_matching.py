"""Which folder is which output, and what is refused rather than guessed."""

import dataclasses
from pathlib import Path

import pytest

from alexnet_deploy.errors import DatasetError, IncompatibleFileError
from alexnet_deploy.inference.class_matching import check_same_classes, class_indices
from alexnet_deploy.model.spec import preset_spec
from alexnet_deploy.photographs.class_folders import ClassFolders, find_class_folders
from tests.support.fake_runner import SPEC, save_photograph

UNNAMED = preset_spec("paper", num_classes=2)


def folders_called(root: Path, *names: str) -> ClassFolders:
    for name in names:
        save_photograph(root / name / "1.png", (1, 2, 3))
    return find_class_folders(root)


def test_folders_are_the_labels_of_their_names_and_may_be_fewer(tmp_path: Path) -> None:
    folders = folders_called(tmp_path, "red", "great_auk", "blue")
    assert folders.classes == ("blue", "great_auk", "red")
    assert class_indices(folders, SPEC, "m.onnx").tolist() == [2, 3, 0]


def test_an_unknown_folder_is_named_with_labels_that_are_near(tmp_path: Path) -> None:
    folders = folders_called(tmp_path, "red", "Great-Auk", "zzz")
    with pytest.raises(DatasetError) as raised:
        class_indices(folders, SPEC, "m.onnx")
    message = str(raised.value)
    assert message.startswith(f"{tmp_path}: 2 of 3 class folders are not labels of m.onnx: ")
    assert "'Great-Auk' (near: 'great_auk'); 'zzz' (no label is near); its 4 labels" in message
    assert "'red', 'green', 'blue'; rename" in message


def test_many_unknown_folders_make_a_short_message(tmp_path: Path) -> None:
    folders = folders_called(tmp_path, *(f"q{number}" for number in range(9)))
    with pytest.raises(DatasetError, match=r"9 of 9 .* and 6 more; its"):
        class_indices(folders, SPEC, "m.onnx")


def test_without_labels_the_folders_in_sorted_order_are_the_classes(tmp_path: Path) -> None:
    folders = folders_called(tmp_path, "b", "a")
    assert class_indices(folders, UNNAMED, "m.onnx").tolist() == [0, 1]
    three = preset_spec("paper", num_classes=3)
    with pytest.raises(DatasetError, match=r"2 class folders, m\.onnx has 3 classes and no label"):
        class_indices(folders, three, "m.onnx")


def test_a_label_that_two_classes_have_is_refused_where_a_folder_has_it(tmp_path: Path) -> None:
    cranes = preset_spec("paper", num_classes=3, labels=("crane", "dog", "crane"))
    assert class_indices(folders_called(tmp_path / "a", "dog"), cranes, "m").tolist() == [1]
    with pytest.raises(IncompatibleFileError, match="2 of its classes are called 'crane'"):
        class_indices(folders_called(tmp_path / "b", "dog", "crane"), cranes, "m")


def test_models_of_other_classes_are_refused_by_name() -> None:
    check_same_classes(SPEC, dataclasses.replace(SPEC, preset="caffe"), "a", "b")
    swapped = dataclasses.replace(SPEC, labels=("red", "blue", "green", "great_auk"))
    with pytest.raises(IncompatibleFileError, match=r"a\.pt and b\.onnx: .*output 1 is 'green' an"):
        check_same_classes(SPEC, swapped, "a.pt", "b.onnx")
    with pytest.raises(IncompatibleFileError, match="4 and 2 classes"):
        check_same_classes(SPEC, UNNAMED, "a.pt", "b.onnx")
    with pytest.raises(IncompatibleFileError, match="output 0 is 'class 0' and 'x'"):
        check_same_classes(UNNAMED, dataclasses.replace(UNNAMED, labels=("x", "y")), "a", "b")
