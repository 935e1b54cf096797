"""Parameters of commands that are paths or names, and how a shell completes them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from alexnet_deploy.choices import ALL_LAYERS, LAYERS


class _File(click.Path):
    """A path that is not empty: an unset variable of a shell would be the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse an empty name."""
        if value == "":
            self.fail("is empty, expected the name of a file or folder", param, ctx)
        return super().convert(value, param, ctx)


class _Model(_File):
    """A file that may be the name of a public network, too."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the names, and what stands for files."""
        from alexnet_deploy.importing.known import known_networks

        files = super().shell_complete(ctx, param, incomplete)
        return [*_beginning_with(incomplete, known_networks()), *files]


class _Layer(click.types.StringParamType):
    """The name of a layer, for the library to judge."""

    name = "layer"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return our names, those of torchvision and of Caffe, and what stands for all."""
        names = dict.fromkeys(layer.name for layer in LAYERS)
        names |= dict.fromkeys(name for layer in LAYERS for name in layer.torchvision + layer.caffe)
        return _beginning_with(incomplete, [*names, ALL_LAYERS])


def _beginning_with(incomplete: str, names: Iterable[str]) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


FILE = _File(path_type=Path)
"""A file or folder, whether it exists or not; the library says what is wrong with it."""

PHOTOGRAPHS = _File()
"""A file, a folder or a pattern, as it was written."""

MODEL = _Model()
"""A file or the name of a public network, as it was written: `./torchvision` is a file."""

LAYER = _Layer()
"""The name of a layer."""
