"""What every command that decodes sets for its process: a bound of memory, and a quiet libtiff."""

import click


def _prepare(context: click.Context, option: click.Parameter, value: str) -> None:
    from alexnet_deploy.photographs.decoding import silence_libtiff
    from alexnet_deploy.photographs.memory import limit_decoded_memory

    limit_decoded_memory(value)
    silence_libtiff()


decoded_memory_option = click.option(
    "--max-decoded-memory",
    callback=_prepare,
    expose_value=False,
    metavar="SIZE",
    default="2GB",
    show_default=True,
    help="Memory for photographs being decoded, in all threads; 500MB, 2GB.",
)
"""Adds `--max-decoded-memory`, which holds for the process and is no argument of the command."""
