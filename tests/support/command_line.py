"""The command line in this process."""

from pathlib import Path

from click.testing import CliRunner, Result

from alexnet_deploy.cli import cli


def run(*arguments: str | Path, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], input=stdin)


def done(*arguments: str | Path, stdin: bytes | None = None) -> Result:
    """Run a command that has to succeed."""
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result


def refused(exit_code: int, *arguments: str | Path) -> str:
    """Run a command that has to fail; return the message."""
    result = run(*arguments)
    assert result.exit_code == exit_code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.stderr
