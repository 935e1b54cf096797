"""Duplicates, as rows of a sheet."""

from collections.abc import Iterator

from alexnet_deploy.figures.sheet_cells import Cell, SheetRow, SheetText
from alexnet_deploy.index.duplicate_groups import Copy, Duplicates

DUPLICATES_TEXT = SheetText(
    title="Duplicates",
    legend=(
        "Groups with the same bytes, with the same pixels, and nearly the same. In the frame: the "
        "first of a group, with which each of the others was compared. Below those that are "
        "nearly the same, in bold: the correlation of their greys with it, where both show the "
        "same (1 for equal). At the right: how they differ from it."
    ),
    rows="groups",
    cells="copies",
)


def duplicate_rows(found: Duplicates) -> Iterator[SheetRow]:
    """Yield a row for each group, the surest kind first."""
    for kind, groups in found.kinds.items():
        for group in groups:
            yield SheetRow(
                title=f"{kind}: {len(group.copies) + 1:,} files",
                lead=Cell(photograph=group.first, heading="", remark="", error=None),
                cells=tuple(_cell(copy, groups is found.nearly_same) for copy in group.copies),
            )


def _cell(copy: Copy, is_measured: bool) -> Cell:
    heading = f"{copy.correlation:.3f}" if is_measured else ""
    return Cell(photograph=copy.path, heading=heading, remark=copy.remark, error=None)
