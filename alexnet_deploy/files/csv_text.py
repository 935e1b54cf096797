r"""Rows of CSV: UTF-8 with `\n` after each, no cell of which a spreadsheet takes for a formula.

The bytes of a path that is not UTF-8 are kept.
"""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from alexnet_deploy.files.path_text import printable

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""With these a spreadsheet takes a cell of CSV for a formula, or looks at what follows."""


def csv_row(cells: Iterable[object]) -> bytes:
    """Return a row; texts of others are to be cells of `text_cell` or `path_cell`."""
    text = io.StringIO()
    # Before Python 3.13 a carriage return is quoted only if it is in the line terminator.
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return f"{text.getvalue()[:-2]}\n".encode("utf-8", "surrogateescape")


def text_cell(text: str) -> str:
    """Return a label or a reason, control characters escaped; a formula gets a `'` before it."""
    shown = printable(text)
    return f"'{shown}" if text.startswith(_FORMULA) else shown


def path_cell(path: Path) -> str:
    """Return a path as programs read it; what begins as a formula gets a `./` before it."""
    text = str(path)
    return f"./{text}" if text.startswith(_FORMULA) else text
