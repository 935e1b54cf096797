"""What a sheet of duplicates shows."""

from pathlib import Path

from alexnet_deploy.figures.copies import duplicate_rows
from alexnet_deploy.index.duplicate_groups import Copy, Duplicates, Group
from alexnet_deploy.photographs.likeness import Orientation


def test_a_row_has_the_first_of_a_group_and_how_each_copy_was_made() -> None:
    turned = Copy(
        path=Path("c/3.jpg"), correlation=0.9876, orientation=Orientation(turned=90), shown=0.9
    )
    found = Duplicates(
        directory=Path("i"),
        num_photographs=3,
        num_failed=0,
        num_absent=0,
        same_bytes=(Group(first=Path("a/1.jpg"), copies=(Copy(path=Path("b/2.jpg")),)),),
        same_pixels=(),
        nearly_same=(Group(first=Path("a/1.jpg"), copies=(turned,)),),
    )
    rows = [
        (row.title, row.lead and row.lead.path, [(c.path, c.heading, c.remark) for c in row.cells])
        for row in duplicate_rows(found)
    ]
    assert rows == [
        ("same bytes: 2 files", Path("a/1.jpg"), [(Path("b/2.jpg"), "", "")]),
        (
            "nearly the same: 2 files",
            Path("a/1.jpg"),
            [(Path("c/3.jpg"), "0.988", "turned 90, cropped")],
        ),
    ]
