"""import: what is refused before anything is read."""

from pathlib import Path

from click.testing import CliRunner

from alexnet_deploy.cli import cli


def test_a_source_that_is_not_there_or_would_be_written_over_is_refused(tmp_path: Path) -> None:
    source, target = tmp_path / "a.pth", tmp_path / "a.safetensors"
    target.write_bytes(b"kept")
    for given, message in ((source, "a.pth: no such file"), (target, "is the source itself")):
        found = CliRunner().invoke(cli, ["import", str(given), "-o", str(target)])
        assert (found.exit_code, message in found.stderr) == (2, True), found.output
    assert target.read_bytes() == b"kept"
