"""Photographs from a list and from standard input, for every command that takes photographs."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from alexnet_deploy.cli import cli
from alexnet_deploy.commands import options
from alexnet_deploy.export import opening
from tests.support.fake_runner import UNSPOKEN, open_fake_runner, save_photographs
from tests.support.index_runner import Runners


def run(*arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(cli, arguments, input=stdin)


@pytest.fixture(params=["classify", "embed", "search"])
def asked(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    runners: Runners,
) -> Callable[..., tuple[int, list[str]]]:
    """Return what runs a command on photographs and tells its exit code and those it has read.

    There are three, the last under a difficult name, in `p/`, seen from the folder above.
    """
    monkeypatch.setattr(opening, "open_runner_of", open_fake_runner)
    monkeypatch.chdir(tmp_path)
    save_photographs(Path("p"))
    command: str = request.param
    options = {"classify": ["--json"], "embed": ["-o", "v.npy"], "search": ["--json"]}[command]
    if command == "search":
        assert run("index", "p", "--layer", "logits").exit_code == 0

    def ask(*arguments: str, stdin: bytes | None = None) -> tuple[int, list[str]]:
        result = run(command, *options, *arguments, stdin=stdin)
        lines = result.stdout.splitlines()
        if result.exit_code != 0:
            return result.exit_code, result.stderr.splitlines()
        if command == "embed":
            lines = Path("v.paths.jsonl").read_text().splitlines()
        return result.exit_code, [
            told.get("query", told.get("path")) for told in map(json.loads, lines)
        ]

    return ask


Asked = Callable[..., tuple[int, list[str]]]


def test_a_list_has_lines_or_nuls(asked: Asked, tmp_path: Path) -> None:
    strange = os.fsencode(f"p/{UNSPOKEN}")  # with a line break
    Path("lines").write_bytes(b"p/b.png\n\np/a.png\n")
    assert asked("--from-file", "lines") == (0, ["p/b.png", "p/a.png"])
    Path("nuls").write_bytes(b"p/b.png\0" + strange + b"\0")
    assert asked("--from-file", "nuls") == (0, ["p/b.png", f"p/{UNSPOKEN}"])
    assert asked("--from-file", "-", stdin=strange + b"\0") == (0, [f"p/{UNSPOKEN}"])
    assert asked("p/a.png", "--from-file", "-", stdin=b"p") == (
        0,
        ["p/a.png", "p/a.png", "p/b.png", f"p/{UNSPOKEN}"],
    )


def test_a_list_from_windows_is_understood_or_refused(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "p/b.png\r\np/a.png\r\n"
    for list_ in (text.encode(), text.encode("utf-8-sig")):
        assert asked("--from-file", "-", stdin=list_) == (0, ["p/b.png", "p/a.png"])
    code, lines = asked("--from-file", "-", stdin=text.encode("utf-16"))
    assert code == 2
    assert "the list is UTF-16; save it as UTF-8" in "\n".join(lines)
    Path("list").write_bytes(text.encode())
    monkeypatch.setattr(options, "_MAX_LIST", 8)
    code, lines = asked("--from-file", "list")
    assert code == 2
    assert "it has more than 8 bytes" in "\n".join(lines)


def test_a_name_in_a_list_is_what_it_says_and_may_be_gone(asked: Asked) -> None:
    Path("p", "a*.png").write_bytes(Path("p/b.png").read_bytes())
    assert asked("--from-file", "-", stdin=b"p/a*.png") == (0, ["p/a*.png"])
    names = b"p/gone*.png\np/a.png"
    assert asked("--from-file", "-", "--max-failures", "1", stdin=names)[0] == 0
    code, lines = asked("--from-file", "-", stdin=names)
    assert code == 3
    assert any(line.startswith("failed: p/gone*.png: ") for line in lines)


def test_standard_input_is_a_photograph_in_its_place(asked: Asked) -> None:
    stdin = Path("p/b.png").read_bytes()
    assert asked("p/a.png", "-", "p/b.png", stdin=stdin) == (0, ["p/a.png", "-", "p/b.png"])
    assert asked("-", stdin=b"")[0] == 3


def test_no_photographs_and_no_list_are_wrong_usage(asked: Asked) -> None:
    for arguments, code, message in (
        ([], 2, "name photographs, or a file with --from-file"),
        (["-", "--from-file", "-"], 2, "standard input cannot be a photograph and a list"),
        (["--from-file", "nowhere"], 2, "--from-file nowhere: cannot be read (No such file"),
        (["--from-file", "p"], 2, "--from-file p: cannot be read (Is a directory"),
        (["--from-file", "-"], 1, "no photograph found"),
    ):
        assert asked(*arguments, stdin=b"")[0] == code
        assert message in "\n".join(asked(*arguments, stdin=b"")[1])


def test_a_figure_shows_the_photograph_from_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "open_runner_of", open_fake_runner)
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 30), (1, 2, 250)).save("q.png")
    for query, stdin in (("q.png", None), ("-", Path("q.png").read_bytes())):
        assert run("classify", query, "--figure", f"{query}f.png", stdin=stdin).exit_code == 0
    with Image.open("q.pngf.png") as by_path, Image.open("-f.png") as by_stdin:
        middle = (by_path.width // 2, 150)
        assert by_path.getpixel(middle) == by_stdin.getpixel(middle) == (1, 2, 250)
