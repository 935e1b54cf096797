"""What a shell's user expects of any command: -q and -v, completion, a word about a slip."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from alexnet_deploy.cli import COMMANDS, cli
from alexnet_deploy.export import opening
from alexnet_deploy.photographs.pixels import EXACT
from tests.support.fake_runner import open_fake_runner, save_photographs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three photographs and a file that is none, in `p/`, seen from the folder above."""
    monkeypatch.setattr(opening, "open_runner_of", open_fake_runner)
    monkeypatch.chdir(tmp_path)
    save_photographs(Path("p"))
    Path("p/c.png").write_bytes(b"bad")
    return Path("p")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def test_quiet_leaves_only_what_has_failed(photographs: Path) -> None:
    usual, quiet = run("classify", "p", "--max-failures", "1"), run("classify", "p", "-q")
    assert quiet.stdout == usual.stdout
    assert [line.split(":")[0] for line in quiet.stderr.splitlines()] == ["failed", "Error"]
    assert run("classify", "p/a.png", "--quiet").stderr == ""
    assert run("classify", "p/a.png").stderr.startswith("fake runner; decoded by ")


def test_verbose_names_each_photograph_and_where_an_error_arose(photographs: Path) -> None:
    lines = run("classify", "p/a.png", "p/c.png", "-v").stderr.splitlines()
    assert lines[0] == f"fake runner; decoded by {EXACT}"
    assert lines[1] == "done: p/a.png"
    assert lines[2].startswith("failed: p/c.png: ")
    assert "Traceback (most recent call last):" in lines
    assert lines[-1].startswith("Error: 1 of 2 photographs could not be read")
    assert "Traceback" not in run("classify", "p/c.png").stderr


@pytest.mark.parametrize("both", [("-q", "-v"), ("-v", "--quiet", "-q")])
def test_quiet_and_verbose_exclude_each_other(both: tuple[str, ...]) -> None:
    result = run("doctor", *both)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "-q and -v: choose one" in result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_can_be_quiet_and_verbose(command: str) -> None:
    shown = run(command, "--help").stdout
    assert shown.count("-q, --quiet") == shown.count("-v, --verbose") == 1


@pytest.mark.parametrize(
    ("slip", "meant"), [("clasify", "classify"), ("serach", "search"), ("indx", "index")]
)
def test_a_slip_is_answered_with_what_may_be_meant(slip: str, meant: str) -> None:
    result = run(slip, "photos")
    assert result.exit_code == 2
    assert result.stderr.endswith(f"Error: No such command '{slip}'. Did you mean {meant}?\n")
    assert "Did you mean" not in run("xyzzy").stderr


def completions(*words: str) -> list[tuple[str, str]]:
    *arguments, incomplete = words
    completion = ShellComplete(cli, {}, "alexnet-deploy", "_ALEXNET_DEPLOY_COMPLETE")
    found = completion.get_completions(arguments, incomplete)
    return [(one.type, one.value) for one in found]


@pytest.mark.parametrize("command", ["embed", "index", "export"])
def test_layers_are_completed(command: str) -> None:
    assert completions(command, "--layer", "fc") == [
        ("plain", name) for name in ("fc6_pre", "fc6", "fc7_pre", "fc7", "fc8")
    ]
    assert ("plain", "conv1") in completions(command, "--layer", "")


@pytest.mark.parametrize("command", ["classify", "embed", "search", "index"])
def test_paths_are_completed(command: str) -> None:
    assert completions(command, "ph") == [("file", "ph")]
    assert completions("classify", "--from-file", "li") == [("file", "li")]


def test_names_of_commands_options_and_networks_are_completed() -> None:
    assert completions("cl") == [("plain", "classify")]
    assert ("plain", "--rotations") in completions("search", "--ro")
    assert completions("classify", "--model", "torch") == [
        ("plain", "torchvision"),
        ("file", "torch"),
    ]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_line_of_the_page_brings_completion_to_a_shell(shell: str) -> None:
    page = (ROOT / "alexnet_deploy" / "README.md").read_text("utf-8")
    assert f"_ALEXNET_DEPLOY_COMPLETE={shell}_source alexnet-deploy" in page
    words = {"COMP_WORDS": "alexnet-deploy embed --layer po", "COMP_CWORD": "3"}
    code = "from alexnet_deploy.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | words | {"_ALEXNET_DEPLOY_COMPLETE": f"{shell}_complete"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    if shell == "bash":
        assert done.stdout.splitlines() == ["plain,pool1", "plain,pool2", "plain,pool5"]


def test_a_system_that_is_not_posix_gets_a_plain_message() -> None:
    code = (
        "import os, signal; os.name = 'nt'; del signal.SIGHUP\n"
        "from alexnet_deploy.__main__ import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--version"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "Error: this runs on Linux, macOS and other POSIX systems; on Windows use it in WSL"
    ]
