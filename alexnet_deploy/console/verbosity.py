"""How much a command says on stderr: the options `-q` and `-v`, which every command has."""

import functools

import click

_KEY = __name__


def verbosity_options(command: click.Command) -> click.Command:
    """Add `-q` and `-v` to a command, if it has them not yet; they exclude each other."""
    if not any(parameter.name == "quiet" for parameter in command.params):
        for short, name, level, text in (
            ("-q", "quiet", -1, "Say nothing on stderr but what has failed."),
            ("-v", "verbose", 1, "Name each photograph on stderr, and show where an error arose."),
        ):
            option = click.Option(
                [short, f"--{name}"],
                is_flag=True,
                expose_value=False,
                callback=functools.partial(_set_verbosity, level),
                help=text,
            )
            command.params.append(option)
    return command


def _set_verbosity(
    level: int, context: click.Context, option: click.Parameter, is_given: bool
) -> None:
    if is_given and context.meta.setdefault(_KEY, level) != level:
        raise click.UsageError("-q and -v: choose one", ctx=context)


def verbosity() -> int:
    """Return -1 after `-q`, 1 after `-v`, else 0."""
    context = click.get_current_context(silent=True)
    return 0 if context is None else int(context.meta.get(_KEY, 0))
