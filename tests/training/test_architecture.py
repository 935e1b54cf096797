"""The shape of the trainer: reading order, who draws, and that the package does not know it."""

import ast
from pathlib import Path

import pytest

from tests.test_architecture import MAX_PUBLIC_NAMES, imported_names, texts_with_options

ROOT = Path(__file__).resolve().parents[2]
TRAINING = ROOT / "training"

ORDER = (
    "recipes",
    "pictures",
    "colour",
    "prepared",
    "prepare",
    "photographs",
    "augmentation",
    "normalization",
    "exchange",
    "weights",
    "towers",
    "plain_network",
    "networks",
    "initialization",
    "optimizers",
    "rates",
    "trainer",
    "devices",
    "stopping",
    "epoch_log",
    "skipped",
    "reporting",
    "curves",
    "options",
    "data",
    "checkpointing",
    "beginning",
    "run",
    "train",
    "factoring",
    "shrink",
    "experiments.vectors",
    "experiments.codes",
    "cli",
    "__main__",
)
COMMAND_LINES = ("cli", "__main__", "experiments.codes")


def module_path(module: str) -> Path:
    return TRAINING.joinpath(*module.split(".")).with_suffix(".py")


def parse(module: str) -> ast.Module:
    return ast.parse(module_path(module).read_text("utf-8"))


def test_order_lists_every_module_of_the_trainer_once() -> None:
    files = {path for path in TRAINING.rglob("*.py") if path.name != "__init__.py"}
    assert {module_path(module) for module in ORDER} == files
    assert len(set(ORDER)) == len(ORDER)


def test_a_module_imports_only_what_stands_above_it() -> None:
    for number, module in enumerate(ORDER):
        names = [name for name in imported_names(parse(module)) if name.startswith("training.")]
        above = tuple(f"training.{name}." for name in ORDER[:number])
        assert [name for name in names if not f"{name}.".startswith(above)] == [], module


def test_a_module_has_few_public_names() -> None:
    defined = (ast.FunctionDef, ast.ClassDef)
    for module in ORDER:
        names = [node.name for node in parse(module).body if isinstance(node, defined)]
        public = [name for name in names if not name.startswith("_")]
        assert len(public) <= MAX_PUBLIC_NAMES, module


@pytest.mark.parametrize("module", ORDER)
def test_of_the_command_lines_only_the_console_is_shared(module: str) -> None:
    names = [name.split(".") for name in imported_names(parse(module))]
    used = {parts[1] for parts in names if parts[0] == "alexnet_deploy"}
    assert used & {"commands", "cli", "__main__"} == set()


@pytest.mark.parametrize("module", [name for name in ORDER if name not in COMMAND_LINES])
def test_messages_name_arguments_and_not_options(module: str) -> None:
    assert texts_with_options(parse(module)) == []


def test_curves_alone_draw_with_matplotlib() -> None:
    owners = {
        module
        for module in ORDER
        if any(name.startswith("matplotlib") for name in imported_names(parse(module)))
    }
    assert owners == {"curves"}


def test_the_package_does_not_import_the_trainer() -> None:
    for path in (ROOT / "alexnet_deploy").rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        assert not [name for name in imported_names(tree) if name.split(".")[0] == "training"]


def test_the_page_lists_every_module() -> None:
    page = (TRAINING / "README.md").read_text("utf-8")
    tree = page.split("```text")[1].split("```")[0]
    assert [module for module in ORDER[:-1] if f"{module.replace('.', '/')}.py" not in tree] == []
