"""Parameters of commands that are paths."""

from pathlib import Path
from typing import Any

import click


class _File(click.Path):
    """A path that is not empty: an unset variable of a shell would be the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse an empty name."""
        if value == "":
            self.fail("is empty, expected the name of a file or folder", param, ctx)
        return super().convert(value, param, ctx)


FILE = _File(path_type=Path)
"""A file or folder, whether it exists or not; the library says what is wrong with it."""

MODEL = _File()
"""The same or the name of a public network, as it was written: `./torchvision` is a file."""
