"""Options of decoding: bounds, which every command sets for its process, and what pixels are.

Where bounds are set, libtiff is made quiet, too.
"""

from collections.abc import Callable

import click

from alexnet_deploy.choices import COLOURS, SCALES

_GIVEN = f"{__name__}.bounds"


def _prepare(context: click.Context, option: click.Parameter, value: str) -> None:
    from alexnet_deploy.photographs.decoding import silence_libtiff
    from alexnet_deploy.photographs.memory import limit_decoded_memory

    limit_decoded_memory(value)
    silence_libtiff()
    context.meta.setdefault(_GIVEN, {})["--max-decoded-memory"] = value


def _limit_pixels(context: click.Context, option: click.Parameter, value: float | None) -> None:
    from alexnet_deploy.photographs.pixel_limit import DEFAULT_MEGAPIXELS, limit_megapixels

    limit_megapixels(DEFAULT_MEGAPIXELS if value is None else value)
    context.meta.setdefault(_GIVEN, {})["--max-megapixels"] = value


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


def given_bounds() -> dict[str, str | float | None]:
    """Return the bounds of the command at hand, for one that is started with the same."""
    bounds: dict[str, str | float | None] = click.get_current_context().meta.get(_GIVEN, {})
    return dict(bounds)


def pixel_options(
    command: Callable[..., None],
    *,
    decode_default: str = "exact",
    colour_default: str = "srgb",
) -> Callable[..., None]:
    """Add `--decode` and `--colour`, collected with the options of the model, which come below.

    Args:
        command: to add them to.
        decode_default: as the help is to say it, and so is the next.
        colour_default: see decode_default.
    """
    decode = click.option(
        "--decode",
        type=click.Choice(SCALES),
        help="How JPEGs are decoded: scaled, large ones at 1/2 to 1/8, which is faster; gpu, on "
        "an NVIDIA GPU at full size.  "
        f"[default: {decode_default}]",
    )
    colour = click.option(
        "--colour",
        type=click.Choice(COLOURS),
        help="What a photograph's colours become: srgb, by its colour profile, which ignored does "
        f"not look at.  [default: {colour_default}]",
    )
    return decode(colour(command))
