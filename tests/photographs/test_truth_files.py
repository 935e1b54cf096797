"""Every form of a file with classes gives the same photographs; a bad one gives one message."""

import os
from pathlib import Path

import pytest

from alexnet_deploy.errors import DatasetError, UsageError
from alexnet_deploy.photographs.class_folders import ClassFolders
from alexnet_deploy.photographs.truth_files import LabelledFiles, find_labelled

VAL = [f"ILSVRC2012_val_0000000{number}" for number in (1, 2, 3)]


def fill(root: Path, *names: str) -> Path:
    """Make empty files; finding does not open them."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def labelled(folder: Path, text: str | bytes) -> LabelledFiles:
    truth = folder.parent / "truth"
    truth.write_bytes(text if isinstance(text, bytes) else text.encode())
    found = find_labelled(folder, truth)
    assert isinstance(found, LabelledFiles)
    return found


def pairs(found: LabelledFiles) -> list[tuple[str, str]]:
    return [
        (found.path(index).name, found.classes[found.labels[index]]) for index in range(len(found))
    ]


@pytest.fixture
def val(tmp_path: Path) -> Path:
    """Three of ImageNet's validation photographs: two sea snakes and an alp, say."""
    return fill(tmp_path / "val", *(f"{name}.JPEG" for name in VAL))


WNIDS = ["n01751748", "n09193705", "n01751748"]


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("{0}.JPEG 65\n{1}.JPEG 970\n{2}.JPEG 65\n", ["65", "970", "65"]),
        ("{0}.JPEG\tn01751748\r\n{1}.JPEG  n09193705\r\n{2}.JPEG n01751748\r\n", WNIDS),
        # 490 and 361 are the devkit's numbers of the first two photographs.
        ("490\n361\n490\n\n", WNIDS),
        (
            "ImageId,PredictionString\n{0},n01751748 111 108 230 230 n01751748 1 2 3 4 \n"
            "{1},n09193705 0 0 9 9 \n{2},n01751748 0 0 9 9 \n",
            WNIDS,
        ),
        ("\ufeffpath,label\n{0}.JPEG,sea snake\n\n{1}.JPEG,alp\n{2},sea snake", None),
        ('"id", "label", "path"\r\n7,"sea snake","{0}.JPEG"\r\n8,alp,{1}\r\n9,sea snake,{2}', None),
    ],
    ids=["val.txt", "wnids", "devkit", "Kaggle", "CSV", "more columns"],
)
def test_every_form_gives_the_photographs_in_its_order(
    val: Path, text: str, labels: list[str] | None
) -> None:
    found = labelled(val, text.format(*VAL))
    expected = labels or ["sea snake", "alp", "sea snake"]
    assert pairs(found) == list(zip((f"{name}.JPEG" for name in VAL), expected, strict=True))
    assert found.num_unlabelled == 0


def test_classes_are_sorted_and_numbers_by_their_value(val: Path) -> None:
    found = labelled(val, f"{VAL[0]}.JPEG 100\n{VAL[1]}.JPEG 9\n{VAL[2]}.JPEG 20\n")
    assert found.classes == ("9", "20", "100")
    assert found.labels.tolist() == [2, 0, 1]


def test_names_may_have_folders_spaces_commas_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    folder = fill(tmp_path / "d", "a b/c d.jpg", "x,y.jpg", os.fsdecode(b"caf\xe9.jpg"))
    found = labelled(folder, b"./a b/c d.jpg 1\ncaf\xe9.jpg 0\nx,y.jpg 1\n")
    assert [found.path(index) for index in range(3)] == [
        folder / "a b/c d.jpg",
        folder / os.fsdecode(b"caf\xe9.jpg"),
        folder / "x,y.jpg",
    ]
    assert pairs(labelled(folder, 'path,label\n"x,y.jpg",a\n')) == [("x,y.jpg", "a")]


def test_what_is_missing_stays_and_what_is_not_named_is_counted(val: Path) -> None:
    fill(val, "more/other.png", "notes.txt")
    found = labelled(val, f"{VAL[0]}.JPEG 0\ngone.JPEG 1\n")
    assert pairs(found) == [(f"{VAL[0]}.JPEG", "0"), ("gone.JPEG", "1")]
    assert found.num_unlabelled == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"truth: begins with ''; expected Caffe's val\.txt, .* or a CSV whose first line"),
        ("file,class\na,1\n", r"truth: begins with 'file,class'; expected"),
        (b"\xff\xd8\xff\xe0\0" * 30, r"truth: begins with '.{100,240}\.\.\.'; expected"),
        ("path,label\n", "truth: names no photograph"),
        ("path,label\na.jpg,\n", "line 2 is wrong; expected path,label"),
        ("path,label\na.jpg,1\nb,2,3\n", "line 3 is wrong; expected path,label"),
        ('path,label\na.jpg,"1\n', "line 2 is no CSV"),
        ("ImageId,PredictionString\nx,\n", "line 2 is wrong; expected ImageId,PredictionString"),
        ("a.jpg 1\nb.jpg\n", "line 2 is wrong; expected a photograph's name, and a number or Word"),
        ("a.jpg 1\nb.jpg -1\n", "line 2 is wrong"),
        ("490\n0\n", "line 2 is wrong; .* development kit, 1 to 1000, alone; the number of an"),
        ("490\n\n361\n", "line 2 is wrong"),
        ("490\nx.jpg 3\n", "line 2 is wrong"),
        ("a.jpg 1\n./a.jpg 2\n", r"truth: names .*/d/a\.jpg twice"),
        ("path,label\na.jpg,1\na,1\n", r"truth: names .*/d/a\.jpg twice"),
        ("path,label\nb,1\n", r"truth: 'b' could be .*/d/b\.jpg or .*/d/b\.png; name it with"),
        (
            "val/a.jpg 1\nval/b.jpg 2\n",
            r"of the 2 .* none is there, such as .*/d/val/a\.jpg; .*/d holds .*/d/a\.jpg",
        ),
    ],
)
def test_a_bad_file_is_one_message(tmp_path: Path, text: str | bytes, message: str) -> None:
    folder = fill(tmp_path / "d", "a.jpg", "b.jpg", "b.png")
    with pytest.raises(DatasetError, match=message):
        labelled(folder, text)


@pytest.mark.parametrize("row", ["{}.JPEG 490", "val/{}.JPEG 489", "path,label\n{},490"])
def test_the_devkits_numbers_are_known_by_the_first_photograph(val: Path, row: str) -> None:
    with pytest.raises(DatasetError, match="a number of ImageNet's development kit, whose order"):
        labelled(val, row.format(VAL[0]))


def test_a_file_or_folder_that_is_not_there_is_a_usage_error(val: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.txt: no such file; give the file with the photog"):
        find_labelled(val, val.parent / "none.txt")
    with pytest.raises(UsageError, match=r"flat\.jpg: is no folder; give the one with the photog"):
        labelled(fill(val.parent, "flat.jpg") / "flat.jpg", "a.jpg 1\n")


def test_without_a_file_sub_folders_are_the_classes(val: Path) -> None:
    with pytest.raises(DatasetError, match="move them, or name the file with their classes: truth"):
        find_labelled(val)
    found = find_labelled(fill(val.parent / "d", "a/1.jpg", "b/2.jpg"))
    assert isinstance(found, ClassFolders)
    assert found.classes == ("a", "b")
