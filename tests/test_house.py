"""The pages and the configuration say what is true: README, CHANGELOG, extras, constraints."""

import ast
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import click
import pytest
from floors import requirements
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from alexnet_deploy import __version__
from alexnet_deploy.cli import COMMANDS
from alexnet_deploy.commands.import_weights import import_
from alexnet_deploy.model.spec import PRESET_NAMES
from tests.test_architecture import rank_of_packages

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "alexnet_deploy"
README, HOUSE = ROOT / "README.md", PACKAGE / "README.md"
PAGES = (
    *("README.md", "alexnet_deploy/README.md", "alexnet_deploy/SECURITY.md"),
    *("tools/results/README.md", "training/README.md"),
    *("alexnet_deploy/data/caltech101.md", "alexnet_deploy/data/samples/README.md"),
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = {name: list(requirements(name)) for name in PROJECT["optional-dependencies"]}


def files_in_git() -> list[Path]:
    """Return the files that are, or with the next commit would be, in the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    paths = (ROOT / name for name in listed.stdout.decode().split("\0") if name)
    return [path for path in paths if path.is_file()]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    requirements = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in requirements}


def commands_shown(page: Path) -> set[str]:
    """Return every word that follows `alexnet-deploy` where a page writes code."""
    code = re.findall(r"```.*?```|`[^`\n]+`", page.read_text("utf-8"), re.DOTALL)
    return {name for part in code for name in re.findall(r"\balexnet-deploy +([a-z]\w*)", part)}


def test_the_pages_show_every_command_and_no_other() -> None:
    assert commands_shown(README) <= set(COMMANDS)
    assert commands_shown(HOUSE) == set(COMMANDS)


def test_the_help_of_import_names_every_preset() -> None:
    option = next(param for param in import_.params if param.name == "preset")
    assert isinstance(option, click.Option)
    named = re.findall(r"[\w-]+", (option.help or "").rpartition(": ")[2])
    assert named == list(PRESET_NAMES)


def test_the_front_page_is_read_in_a_minute() -> None:
    assert len(README.read_bytes()) <= 9_000


def test_the_page_of_the_package_has_a_line_for_each_package_in_their_order() -> None:
    blocks = re.findall(r"```\w*\n(.*?)```", HOUSE.read_text("utf-8"), re.DOTALL)
    (house,) = [block for block in blocks if "errors.py" in block]
    lines = [line.split(maxsplit=1) for line in house.splitlines()]
    assert all(len(line) == 2 for line in lines), "each has a description"
    files = [path.relative_to(PACKAGE) for path in files_in_git() if PACKAGE in path.parents]
    there = {path.parts[0] for path in files if path.suffix != ".md" or len(path.parts) > 1}
    shown = [name.removesuffix("/") for name, _ in lines]
    assert set(shown) == there - {"__init__.py", "py.typed"}
    ordered = [name.removesuffix(".py") for name in shown if name != "data"]
    assert ordered == list(rank_of_packages())


@pytest.mark.parametrize("page", PAGES)
def test_links_to_files_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text) + re.findall(r'src="([^":]+)"', text)
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []


def test_the_changelog_has_this_version() -> None:
    assert f"\n## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_an_error_for_a_missing_package_names_an_extra_that_brings_it() -> None:
    calls = 0
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "MissingPackageError":
                package, extra = (ast.literal_eval(argument) for argument in node.args[:2])
                assert package in {requirement.name for requirement in EXTRAS[extra]}
                calls += 1
    assert calls > 0


def test_every_extra_that_is_written_down_exists() -> None:
    for path in files_in_git():
        if path.suffix in {".py", ".md"}:
            text = path.read_text("utf-8")
            for extras in re.findall(r"(?:alexnet-deploy|\.)\[([a-z,]+)\]'", text):
                assert set(extras.split(",")) <= set(EXTRAS), path


def test_constraints_pin_what_make_installs_at_versions_that_the_floors_allow() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    installed = {
        name for names in re.findall(r"'\.\[([a-z,]+)\]'", makefile) for name in names.split(",")
    }
    assert {"cpu", "dev"} <= installed
    base = [Requirement(line) for line in PROJECT["dependencies"]]
    pinned = pins()
    for requirement in base + [needed for extra in sorted(installed) for needed in EXTRAS[extra]]:
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"{name} is not in constraints.txt"
        assert requirement.specifier.contains(pinned[name])


def test_every_requirement_has_a_floor() -> None:
    base = [Requirement(line) for line in PROJECT["dependencies"]]
    for requirement in base + [needed for extra in EXTRAS.values() for needed in extra]:
        assert {clause.operator for clause in requirement.specifier} & {">=", "=="}, requirement


# Folders that only one machine has, and places that packages are fetched from.
PRIVATE = re.compile(
    rb"(?<![\w.~-])/(?:home|root|Users|work|opt)/|/tmp/[a-z]"
    rb"|index-url|find-links|trusted-host|pypi[.]org|pythonhosted|download[.]pytorch[.]org/whl"
)


def test_no_file_names_a_path_of_a_machine_or_a_package_index() -> None:
    found = {
        str(path.relative_to(ROOT)): PRIVATE.findall(path.read_bytes())
        for path in files_in_git()
        if path != Path(__file__) and path.suffix not in {".jpg", ".png", ".safetensors"}
    }
    assert {name: hits for name, hits in found.items() if hits} == {}


def test_no_page_or_tool_names_a_folder_beside_the_checkout() -> None:
    found = {
        str(path.relative_to(ROOT))
        for path in files_in_git()
        if path.suffix in {".py", ".sh", ".md"} and b"../" + b"shared" in path.read_bytes()
    }
    assert found == set()


def test_no_docstring_holds_an_import_of_its_module() -> None:
    """A tool that adds an import may put it into the text above."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for path in (path for path in files_in_git() if path.suffix == ".py"):
        nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
        imports = [ast.unparse(node) for node in nodes if isinstance(node, ast.Import)]
        imports += [ast.unparse(node) for node in nodes if isinstance(node, ast.ImportFrom)]
        texts = [ast.get_docstring(node) or "" for node in nodes if isinstance(node, documented)]
        lines = [line for text in texts for line in text.splitlines()]
        assert [line for line in lines if any(line.endswith(each) for each in imports)] == [], path


def test_shell_scripts_stop_at_the_first_error() -> None:
    for path in files_in_git():
        if path.suffix == ".sh" or path.parent.name == ".ci":
            lines = path.read_text("utf-8").splitlines()
            assert any(shlex.split(line)[:1] == ["set"] for line in lines if line[:4] == "set ")
            assert path.stat().st_mode & 0o111, f"{path} cannot be run"
