"""What every command that decodes sets for its process: bounds, and a quiet libtiff."""

from collections.abc import Callable

import click


def _prepare(context: click.Context, option: click.Parameter, value: str) -> None:
    from alexnet_deploy.photographs.decoding import silence_libtiff
    from alexnet_deploy.photographs.memory import limit_decoded_memory

    limit_decoded_memory(value)
    silence_libtiff()


def _limit_pixels(context: click.Context, option: click.Parameter, value: float | None) -> None:
    from alexnet_deploy.photographs.pixel_limit import DEFAULT_MEGAPIXELS, limit_megapixels

    limit_megapixels(DEFAULT_MEGAPIXELS if value is None else value)


_OPTIONS = (
    click.option(
        "--max-decoded-memory",
        callback=_prepare,
        expose_value=False,
        metavar="SIZE",
        default="2GB",
        show_default=True,
        help="Memory for photographs being decoded, in all threads; 500MB, 2GB.",
    ),
    click.option(
        "--max-megapixels",
        callback=_limit_pixels,
        expose_value=False,
        metavar="NUMBER",
        type=float,
        help="Largest photograph to decode; it also needs the memory.  [default: 179]",
    ),
)


def decoding_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the bounds of decoding, which hold for the process and are no arguments of the command.

    They are `--max-decoded-memory` and `--max-megapixels`.
    """
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
