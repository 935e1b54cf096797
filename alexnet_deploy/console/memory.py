"""The option that bounds the memory of decoding, for every command that decodes."""

import click


def _limit(context: click.Context, option: click.Parameter, value: str) -> None:
    from alexnet_deploy.photographs.memory import limit_decoded_memory

    limit_decoded_memory(value)


decoded_memory_option = click.option(
    "--max-decoded-memory",
    callback=_limit,
    expose_value=False,
    metavar="SIZE",
    default="2GB",
    show_default=True,
    help="Memory for photographs being decoded, in all threads; 500MB, 2GB.",
)
"""Adds `--max-decoded-memory`, which holds for the process and is no argument of the command."""
