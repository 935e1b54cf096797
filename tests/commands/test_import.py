"""import, as a person calls it."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from alexnet_deploy.cli import cli
from tests.support.known_tables import published, use_table


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["import", *map(str, arguments)])


@pytest.fixture(autouse=True)
def _small_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_table(monkeypatch, tmp_path)


def test_nothing_that_is_read_is_written_over(tmp_path: Path) -> None:
    folder, link = tmp_path / "network", tmp_path / "link.safetensors"
    folder.mkdir()
    file = folder / "model.safetensors"
    file.write_bytes(published())
    link.symlink_to(file)
    for source in (file, folder, link):
        for target in (file, link):
            refused = run(source, "-o", target)
            assert refused.exit_code == 2, refused.output
            assert "is what is read; name another file with -o" in refused.stderr
    assert file.read_bytes() == published()
    made = run(folder, "-o", folder / "new.safetensors", "--preset", "torchvision")
    assert made.exit_code == 0, made.output


@pytest.mark.parametrize("name", ["x" * 300, "x" * 5000])
def test_a_name_that_is_too_long_is_no_traceback(tmp_path: Path, name: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(f'{{"weight_map": {{"a": "{name}"}}}}')
    assert run(tmp_path, "-o", tmp_path / "a").exit_code == 5
    for command in ("import", "pull tiny --from"):
        refused = CliRunner().invoke(cli, [*command.split(), name])
        assert refused.exit_code == 2, refused.output


def test_a_source_that_is_not_there_is_named_whatever_the_output(tmp_path: Path) -> None:
    (tmp_path / "old.safetensors").write_bytes(b"")
    refused = run(tmp_path / "gone.pth", "-o", tmp_path / "old.safetensors")
    assert refused.exit_code == 2, refused.output
    assert "gone.pth: no such file" in refused.stderr
