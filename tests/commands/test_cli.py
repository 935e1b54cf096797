"""The command line with a fake runner: bytes on stdout, lines on stderr, exit codes.

test_cli_processes.py starts it as a process; test_commands.py has a real network.
"""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from alexnet_deploy import __version__
from alexnet_deploy.cli import COMMANDS, cli
from alexnet_deploy.commands import options
from alexnet_deploy.errors import (
    AlexNetDeployError,
    IncompatibleFileError,
    UsageError,
    VerificationError,
)
from alexnet_deploy.export import opening
from alexnet_deploy.photographs.memory import limit_decoded_memory
from alexnet_deploy.photographs.pixels import EXACT
from alexnet_deploy.runtimes import base
from tests.support.fake_runner import UNSPOKEN, open_fake_runner, save_photograph, save_photographs


@pytest.fixture(autouse=True)
def _fake_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "open_runner_of", open_fake_runner)


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three photographs, the last under a difficult name, in `p/`, seen from the folder above."""
    monkeypatch.chdir(tmp_path)
    return save_photographs(Path("p"))


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example_of_itself(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"Example: alexnet-deploy {command}" in " ".join(result.stdout.split())


def test_the_group_lists_every_command_and_its_version() -> None:
    listed = run("--help").stdout
    assert [line.split()[0] for line in listed.splitlines() if line.startswith("  ")][
        -len(COMMANDS) - 1 : -1
    ] == [*COMMANDS]
    assert run("--version").stdout == f"alexnet-deploy {__version__}\n"


def test_the_defaults_are_those_of_the_runners() -> None:
    defaults = base.RunnerOptions()
    command = click.command()(options.runtime_options(lambda **_: None))
    # The defaults of these are words in the help: an index has others.
    told = {
        option.name: option.help for option in command.params if isinstance(option, click.Option)
    }
    for name in ("precision", "batch_size"):
        assert f"[default: {getattr(defaults, name)}" in (told[name] or "")
    by_name = {option.name: option.default for option in command.params}
    for name in ("runtime", "device"):
        assert by_name[name] == getattr(defaults, name)


def test_every_runner_option_reaches_the_runner(
    photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Path | None, base.RunnerOptions]] = []

    def open_runner_of(model: Path | None, given: base.RunnerOptions, *, notify: object) -> object:
        seen.append((model, given))
        return open_fake_runner(model, given, notify=notify)

    monkeypatch.setattr(opening, "open_runner_of", open_runner_of)
    flags = "--model m.onnx --runtime openvino --device cpu --precision bf16 --batch-size 2"
    assert run("classify", photographs, *flags.split(), "--threads", "1").exit_code == 0
    expected = base.RunnerOptions(
        runtime="openvino",
        device="cpu",
        precision="bf16",
        batch_size=2,
        threads=1,
    )
    assert seen == [(Path("m.onnx"), expected)]


def test_the_table_has_one_line_a_photograph(photographs: Path) -> None:
    result = run("classify", photographs)
    assert result.exit_code == 0, result.output
    assert result.stdout == (
        " 50.0%  red        p/a.png\n"
        " 75.0%  blue       p/b.png\n"
        "100.0%  green      p/caf\\xe9\\n.png\n"
    )
    assert result.stderr.startswith(f"fake runner; decoded by {EXACT}\n3 done, 0 failed in ")


def test_the_table_with_more_classes_has_a_block_a_photograph(photographs: Path) -> None:
    assert run("classify", photographs / "a.png", "--top", "2").stdout == (
        "p/a.png\n   50.0%  red\n   25.0%  green\n"
    )
    five = run("classify", photographs / "a.png", "--top5").stdout
    assert len(five.splitlines()) == 1 + 4  # the fake network has four classes


def test_json_is_one_line_a_photograph(photographs: Path) -> None:
    (photographs / "c.png").write_bytes(b"")
    result = run("classify", photographs, "--json", "--max-failures", "1")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == (
        '{"path": "p/a.png", "predictions": [{"label": "red", "index": 0, "probability": 0.5}]}'
    )
    by_path = {fields["path"]: fields for fields in map(json.loads, lines)}
    assert set(by_path) == {"p/a.png", "p/b.png", "p/c.png", f"p/{UNSPOKEN}"}
    assert set(by_path["p/c.png"]) == {"path", "error"}
    assert by_path[f"p/{UNSPOKEN}"]["path_base64"] == "cC9jYWbpCi5wbmc="
    assert "failed: p/c.png: " in result.stderr


def test_csv_goes_to_a_file_or_to_stdout_with_the_same_bytes(photographs: Path) -> None:
    to_file = run("classify", photographs, "--csv", "t.csv", "--top", "2")
    to_stdout = run("classify", photographs, "--csv", "-", "--top", "2")
    assert to_file.stdout == ""
    assert to_stdout.stdout_bytes == Path("t.csv").read_bytes()
    assert to_stdout.stdout_bytes == (
        b"path,rank,index,label,probability,error\n"
        b"p/a.png,1,0,red,0.5,\np/a.png,2,1,green,0.25,\n"
        b"p/b.png,1,2,blue,0.75,\np/b.png,2,1,green,0.25,\n"
        b'"p/caf\xe9\n.png",1,1,green,1.0,\n"p/caf\xe9\n.png",2,0,red,0.0,\n'
    )


def test_json_and_csv_and_figure_can_be_had_together(photographs: Path) -> None:
    result = run("classify", photographs, "--json", "--csv", "t.csv", "--figure", "f.png")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 3
    assert len(Path("t.csv").read_bytes().split(b"\n")) > 3
    assert Path("f.png").stat().st_size > 1000


@pytest.mark.parametrize(
    "arguments", [["p", "--figure", "p/../p/a.png"], ["p/a.png", "list", "--csv", "list"]]
)
def test_no_output_replaces_a_photograph(photographs: Path, arguments: list[str]) -> None:
    shutil.copy("p/b.png", "list")
    before = Path(arguments[-1]).read_bytes()
    result = run("classify", *arguments)
    assert result.exit_code == 2
    assert f"{Path(arguments[-1])}: is one of the photographs" in result.stderr
    assert Path(arguments[-1]).read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--json", "--csv", "-"], "both would go to stdout"),
        (["--figure", "f.gif"], "ending in .png"),
        (["--csv", "f.png", "--figure", "p/../f.png"], "both would be"),
        (["--csv", "p/A.JPG"], "--csv p/A.JPG: is a photograph's name"),
        (["--max-failures", "many"], "--max-failures is 'many'"),
        (["--top", "0"], "Invalid value for '--top'"),
        (["--batch-size", "9" * 20], f"--batch-size is {'9' * 20}, expected 1 to 65536"),
        (["--threads", "9" * 20], f"--threads is {'9' * 20}, expected 1 to 65536"),
        (["--batch-size", "0"], "Invalid value for '--batch-size'"),
        (["--runtime", "tensorflow"], "Invalid value for '--runtime'"),
    ],
)
def test_wrong_usage_is_refused_with_2(
    photographs: Path, arguments: list[str], message: str
) -> None:
    result = run("classify", photographs, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("command", [["classify"], ["embed", "-o", "v.npy"]])
def test_missing_paths_empty_folders_and_bad_files_have_their_codes(
    photographs: Path, command: list[str]
) -> None:
    Path("empty").mkdir()
    (photographs / "c.png").write_text("<html>")
    codes = [run(*command, path).exit_code for path in ("nowhere", "empty", "p/c.png", "p")]
    assert codes == [2, 1, 3, 3]
    assert run(*command, "p", "--max-failures", "25%").exit_code == 0
    failed = run(*command, "p").stderr.splitlines()
    assert failed[1].startswith("failed: p/c.png: ")
    assert failed[2].startswith("3 done, 1 failed in ")
    assert failed[3].startswith("Error: 1 of 4 photographs ")


def test_embed_writes_rows_and_says_what(
    photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["-o", "v.npy", "--layer", "fc6", "--precision", "fp16", "--json"]
    monkeypatch.setattr(sys, "argv", ["alexnet-deploy", "embed", "p", *arguments])
    (photographs / "d.png").write_bytes(b"")
    result = run("embed", photographs, *arguments, "--max-failures", "1")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    expected = {
        "tool": "alexnet-deploy",
        "identity": "0123456789abcdef",
        "layers": [{"name": "fc6", "shape": [4096], "relu": "after", "pool": "none"}],
        "dtype": "float32",
        "decode": {"decoder": "pillow-13+libheif-1.23", "scale": "exact", "colour": "srgb"},
        "precision": "fp16",
        "runtime": "onnxruntime",
        "device": "cpu",
        "command": ["alexnet-deploy", "embed", "p", *arguments],
        "num_rows": 4,
        "num_failed": 1,
        "left_out": {},
        "files": ["v.npy", "v.json", "v.paths.jsonl"],
    }
    assert expected.items() <= told.items()
    assert [(failure["row"], failure["path"]) for failure in told["failures"]] == [(3, "p/d.png")]
    np.testing.assert_array_equal(np.load("v.npy")[:, 0], [128, 0, 0, np.nan])
    described = json.loads(run("info", "v.npy", "--json").stdout)
    record = {name: told[name] for name in told.keys() - {"files", "failures"}}
    assert described["provenance"] == json.loads(Path("v.json").read_text()) == record
    words = run("embed", photographs, "-o", "v.npy")
    assert words.stdout.splitlines()[0] == "v.npy: fc7 4 x 4096 float32"


def test_embed_refuses_a_suffix_and_a_layer_that_it_does_not_know(photographs: Path) -> None:
    assert run("embed", photographs, "-o", "v.csv").exit_code == 2
    result = run("embed", photographs, "-o", "v.npy", "--layer", "fc9")
    assert result.exit_code == 2
    assert "choose from: conv1" in result.stderr
    assert run("embed", photographs).exit_code == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AlexNetDeployError("what, why, remedy"), 1),
        (UsageError("what, why, remedy"), 2),
        (VerificationError("what, why, remedy"), 4),
        (IncompatibleFileError("what, why, remedy"), 5),
    ],
)
def test_an_error_is_one_message_and_its_exit_code(
    photographs: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(opening, "open_runner_of", fail)
    result = run("classify", photographs)
    assert (result.exit_code, result.stderr) == (code, "Error: what, why, remedy\n")


@pytest.mark.parametrize("command", ["info", "verify", "classify", "search p --index"])
def test_a_name_cannot_add_a_line_to_an_error(photographs: Path, command: str) -> None:
    result = run(*command.split(), "a\nb: is fine.onnx")
    assert result.exit_code == 2
    assert re.fullmatch(r"Error: .*a\\nb: is fine\.onnx.*\n", result.stderr), result.stderr


def test_an_unknown_option_cannot_add_a_line_to_an_error() -> None:
    last = run("info", "--a\nError: all is well").stderr.splitlines()[-1]
    assert last.startswith("Error: No such option")


def test_a_bug_keeps_its_traceback(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "open_runner_of", lambda *_, **__: 1 // 0)
    assert isinstance(run("classify", photographs).exception, ZeroDivisionError)


def test_no_line_on_stderr_is_obeyed_by_a_terminal(
    photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = "\x1b[31m"

    def open_runner_of(model: Path | None, given: base.RunnerOptions, *, notify: Any) -> object:
        notify(f"preparing {bad}")
        runner = open_fake_runner(model, given, notify=notify)
        runner.description = bad
        return runner

    monkeypatch.setattr(opening, "open_runner_of", open_runner_of)
    for number in range(65):
        save_photograph(photographs / f"{number}.png", (number, 0, 9))
    figure = f"{bad}.png"
    for arguments in (["--figure", figure], [f"--{bad}"], ["--top", bad], [f"no{bad}such"]):
        said = run("classify", photographs, *arguments).stderr
        assert "\x1b" not in said
        assert "\\x1b[31m" in said
        assert ("shows the first 64 of 68 photographs" in said) == (figure in arguments)


def test_a_photograph_that_takes_more_memory_than_it_may_names_the_option(
    photographs: Path,
) -> None:
    try:
        result = run("classify", photographs, "--max-decoded-memory", "100")
    finally:
        limit_decoded_memory()  # it holds for the process
    assert result.exit_code == 3
    assert result.stderr.count("to decode, at most 0 MB are taken; raise --max-decoded-memory") == 3
    assert (
        "--max-decoded-memory is 'x'"
        in run("classify", photographs, "--max-decoded-memory", "x").stderr
    )


def test_a_photograph_of_more_megapixels_than_it_may_have_names_the_option(
    photographs: Path,
) -> None:
    Image.new("1", (1000, 200)).save("p/large.png")
    result = run("classify", photographs, "--max-megapixels", "0.1")
    assert result.exit_code == 3
    reason = "has 0.2 megapixels, at most 0.1 are decoded; raise --max-megapixels or scale it down"
    assert result.stderr.count(reason) == 1
    assert run("classify", photographs).exit_code == 0  # the limit was that command's
    assert "--max-megapixels is -1.0" in run("classify", "p", "--max-megapixels", "-1").stderr
