"""The command import, as a test runs it."""

from pathlib import Path

from click.testing import CliRunner, Result

from alexnet_deploy.cli import cli

SAID = ("--preset", "torchvision")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["import", *map(str, arguments)])


def refused(path: Path, *said: str | Path, code: int = 5) -> str:
    """Return the one line that says why a file is refused; nothing is written."""
    before = set(path.parent.rglob("*"))
    result = run(path, *said, "-o", path.with_name("refused.safetensors"))
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert set(path.parent.rglob("*")) == before
    lines = result.stderr.splitlines()
    assert lines[-1].startswith("Error: ")
    assert len([line for line in lines if line.startswith("Error: ")]) == 1
    return lines[-1]
