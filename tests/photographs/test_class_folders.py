"""Photographs and their classes, found as a plain walk finds them; bad layouts are refused."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alexnet_deploy.errors import DatasetError, UsageError
from alexnet_deploy.photographs import class_folders
from alexnet_deploy.photographs.class_folders import find_class_folders

NAMES = st.binary(min_size=1, max_size=6).filter(
    lambda name: not set(name) & {0, ord("/")} and not name.startswith(b".")
)


def fill(root: Path, *names: str) -> Path:
    """Make empty files; finding does not open them."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_photographs_come_by_class_and_then_by_path_with_the_number_of_their_class(
    tmp_path: Path,
) -> None:
    fill(tmp_path, "tulip/2.jpg", "tulip/10.JPEG", "daisy/b/1.png", "daisy/a.png", "Aster/x.webp")
    folders = find_class_folders(tmp_path)
    assert folders.classes == ("Aster", "daisy", "tulip")
    assert len(folders) == 5
    assert folders.labels.dtype == np.int32
    found = [(int(folders.labels[i]), folders.path(i)) for i in range(len(folders))]
    assert found == [
        (0, tmp_path / "Aster/x.webp"),
        (1, tmp_path / "daisy/a.png"),
        (1, tmp_path / "daisy/b/1.png"),
        (2, tmp_path / "tulip/10.JPEG"),
        (2, tmp_path / "tulip/2.jpg"),
    ]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tree=st.dictionaries(NAMES, st.sets(NAMES, min_size=1, max_size=4), min_size=1, max_size=4),
    data=st.data(),
)
def test_every_name_comes_back_in_its_class_also_after_pickling_and_selection(
    tree: dict[bytes, set[bytes]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("tree")
    for folder, names in tree.items():
        fill(root, *(os.fsdecode(folder + b"/" + name + b".jpg") for name in names))
    folders = find_class_folders(root)
    # Sorting strings, in which bytes that are not UTF-8 are surrogates, orders the classes.
    classes = sorted(map(os.fsdecode, tree))
    expected = [
        (number, root / name / os.fsdecode(photograph))
        for number, name in enumerate(classes)
        for photograph in sorted(one + b".jpg" for one in tree[os.fsencode(name)])
    ]
    order = data.draw(st.lists(st.integers(0, len(expected) - 1)))
    copied = pickle.loads(pickle.dumps(folders))
    selected = copied.select(np.array(order, np.int64))
    assert [(int(folders.labels[i]), folders.path(i)) for i in range(len(folders))] == expected
    assert selected.classes == folders.classes == tuple(classes)
    assert len(selected) == len(order)
    assert [(int(selected.labels[i]), selected.path(i)) for i in range(len(order))] == [
        expected[index] for index in order
    ]


def test_hidden_files_and_other_files_are_left_out_and_links_are_followed(tmp_path: Path) -> None:
    root = fill(
        tmp_path / "root", "a/1.jpg", "a/.2.jpg", "a/notes.txt", ".git/3.jpg", "a/@eaDir/4.jpg"
    )
    fill(root, "mean_image.npy", "prepared.json", ".5.jpg")
    fill(tmp_path / "elsewhere", "6.jpg")
    (root / "b").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "gone.jpg").symlink_to(tmp_path / "nothing")
    folders = find_class_folders(root)
    assert folders.classes == ("a", "b")
    paths = [folders.path(i) for i in range(len(folders))]
    # A broken link is found, so that loading says what is wrong with it.
    assert paths == [root / "a/1.jpg", root / "a/gone.jpg", root / "b/6.jpg"]


def test_a_link_to_the_folder_itself_is_no_class(tmp_path: Path) -> None:
    root = fill(tmp_path / "root", "a/1.jpg")
    for target in (".", ".."):
        (root / "loop").symlink_to(target)
        with pytest.raises(DatasetError, match=r"loop: links to .*root or a folder above it"):
            find_class_folders(root)
        (root / "loop").unlink()


def test_a_million_photographs_take_tens_of_megabytes_to_send(tmp_path: Path) -> None:
    names = [f"{number:04}/n01440764_{number}.JPEG" for number in range(2000)]
    folders = find_class_folders(fill(tmp_path, *(f"n01440764/{name}" for name in names)))
    size = len(pickle.dumps(folders))
    # The name, two ends of 8 bytes and a class of 4; half a kilobyte is the frame of the pickle.
    assert size - 1000 <= sum(map(len, names)) + 20 * len(names) <= 100 * len(names)


@pytest.mark.parametrize("name", ["nothing", "file.txt", "a\0b"])
def test_a_root_that_is_no_folder_is_a_usage_error(tmp_path: Path, name: str) -> None:
    fill(tmp_path, "file.txt")
    with pytest.raises(UsageError, match="expected one sub-folder of photographs for each class"):
        find_class_folders(tmp_path / name)


def test_a_class_without_photographs_is_named(tmp_path: Path) -> None:
    fill(tmp_path, "full/1.jpg", "only hidden/.1.jpg", "other/1.txt")
    for number in range(5):
        (tmp_path / f"void{number}").mkdir()
    with pytest.raises(DatasetError) as caught:
        find_class_folders(tmp_path)
    assert (
        "7 classes without photographs ('only hidden', 'other', 'void0', 'void1', 'void2' "
        "and 2 more)" in str(caught.value)
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["notes.txt"], "no sub-folders; expected one"),
        (["1.jpg"], r"1 photograph outside the sub-folders \('1.jpg'\), so without a class"),
        (["a/1.jpg", "3.png", "2.jpg"], r"2 photographs outside .* \('2.jpg', '3.png'\)"),
    ],
)
def test_photographs_of_no_class_are_refused(
    tmp_path: Path, names: list[str], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        find_class_folders(fill(tmp_path, *names))


def test_a_class_that_cannot_be_listed_is_an_error_not_a_photograph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "a/1.jpg")
    # What `find_photographs` yields for such a folder; for a superuser there is none.
    monkeypatch.setattr(class_folders, "find_photographs", lambda paths, left_out: iter(paths))
    with pytest.raises(DatasetError, match="a: cannot be listed"):
        find_class_folders(tmp_path)


def test_the_test_photographs_are_those_that_a_walk_finds(caltech_test: Path) -> None:
    folders = find_class_folders(caltech_test)
    walked = sorted(
        (os.path.relpath(where, caltech_test), name)
        for where, _, names in os.walk(caltech_test)
        for name in names
        if name.endswith(".jpg")
    )
    found = [
        (folders.classes[folders.labels[i]], folders.path(i).name) for i in range(len(folders))
    ]
    assert found == walked
    assert len(folders.classes) == 101
