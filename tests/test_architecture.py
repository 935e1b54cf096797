"""The shape of the package: import order, owners of libraries, sizes, a light start.

A module imports only what PACKAGES and MODULES allow, at any depth of its functions. Each
third-party library but numpy has the owners named in OWNERS and no other importer.
"""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from alexnet_deploy.cli import COMMANDS
from alexnet_deploy.photographs.samples import varied_samples

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "alexnet_deploy"

PACKAGES = (
    "choices, installed, timing < errors < arguments < files < model < graph, photographs "
    "< importing < runtimes < trt, verification, inference < weights < export, console < index, "
    "benchmark < figures < inspection, doctor < commands < cli < __main__"
)
"""A package imports from those before it; a comma separates two that do not know each other."""
MODULES = {
    "files": (
        "path_text csv_text input_files regular_files output_files private_folders locks records"
    ),
    "model": (
        "spec layers labels ranges calibrated pickles torch_files checkpoints reference default"
    ),
    "graph": (
        "interface report serialization model_file build lowering casting quantization "
        "unsigned_int8 plugin_nodes reading coder_file"
    ),
    "importing": (
        "source messages wire_format prototxt caffe_schema caffe_network caffe_files "
        "onnx_constants onnx_flow onnx_layers onnx_lrn onnx_walk onnx_files onnx_versions "
        "known matching containers directories adoption opening"
    ),
    "photographs": (
        "suffixes finding memory pixel_limit pixels icc_profiles colour preprocessing jpeg_headers "
        "scaled_jpegs gpu_jpegs decoded_size png_data tiff_tags tiff_layouts raw_previews "
        "heif_files unread_files rgb decoding sources file_stamps class_folders truth_files "
        "pipeline likeness perceptual_hash samples"
    ),
    "runtimes": (
        "base gpu_driver batch_profile engine_file onnxruntime_distributions processor "
        "capabilities prepared openvino_runner onnxruntime_session onnxruntime_runner "
        "onnxruntime_cuda_runner "
        "tensorrt_library rtx_plan cuda_memory tensorrt_runner factory"
    ),
    "trt": "kernel plugin builder rtx_builder",
    "verification": "comparison agreement onnx engine rewritten file foreign",
    "inference": (
        "failures run classification published activations provenance partial_rows "
        "npy_files parquet_files embeddings vector_files class_matching ten_crop predictions "
        "confusion statistics evaluation_report evaluation prediction_tables prediction_files "
        "retrieval_figures retrieval_forms pixel_rows retrieval_report retrieval model"
    ),
    "weights": "places download store pull names",
    "export": (
        "calibration int8 fast onnx cache engine triton triton_preprocessing recorded opening"
    ),
    "console": "signals decoding paths progress verbosity reporting group",
    "index": (
        "manifest lock segments schema ledger named_folders exclusions imported_roots roots "
        "storage model integrity scopes maintenance scan writer report compression binary_codes "
        "itq compressed_record compressed_files compressed_check plan faiss_library "
        "ranking exact_scan exact_search compressed_scan compressed_search axes_choice compressing "
        "coder keeping update imported_files imported exported status results queries rotations "
        "filters finder session opening compressed_forms duplicate_groups hashes duplicates"
    ),
    "benchmark": "machine settings reading results table measuring",
    "figures": (
        "png_files loading drawing classes rates matrices sheet_cells html_sheets sheets "
        "confusions copies"
    ),
    "commands": (
        "options import_weights pull models export_arguments export classify embed index search "
        "duplicates verify evaluate bench info doctor"
    ),
}
"""Within a package, a module imports from those before it; the lists are to be read in order."""
COMMAND_MODULES = {
    name: target.removeprefix("alexnet_deploy.").partition(":")[0]
    for name, target in COMMANDS.items()
}
CONSOLE = tuple(
    f"console.{name}"
    for name in ["signals", "decoding", "paths", "verbosity", "reporting", "group"]
)
START_UP = (*CONSOLE, "commands.options", *COMMAND_MODULES.values(), "cli", "__main__")
"""Modules that every `--help` loads: the standard library, click, each other and LIGHT."""
LIGHT = ("", "choices", "installed", "errors", "files.path_text", *CONSOLE)
OWNERS = {
    "PIL": (
        "model.reference",
        *("photographs.pixel_limit", "photographs.decoded_size", "photographs.png_data"),
        *("photographs.heif_files", "photographs.rgb", "photographs.colour"),
        *("photographs.decoding", "photographs.sources", "photographs.preprocessing"),
        *("photographs.scaled_jpegs", "photographs.gpu_jpegs"),
        *("photographs.likeness", "photographs.perceptual_hash"),
        *("figures.png_files", "figures.loading", "figures.drawing", "figures.classes"),
        *("figures.rates", "figures.matrices", "figures.sheet_cells", "figures.html_sheets"),
        "figures.sheets",
    ),
    "click": START_UP,
    "cuda": ("trt.kernel", "runtimes.cuda_memory"),
    "faiss": ("index.faiss_library",),
    "google": ("graph.reading", "graph.coder_file"),
    "imagehash": ("photographs.perceptual_hash",),
    "ml_dtypes": ("graph.casting",),
    "nvidia": ("photographs.gpu_jpegs",),
    "onnx": (
        *(f"graph.{name}" for name in MODULES["graph"].split()[2:]),
        *(
            f"importing.{name}"
            for name in ("onnx_constants", "onnx_walk", "onnx_files", "onnx_versions")
        ),
        "verification.rewritten",
    ),
    "onnxruntime": ("runtimes.onnxruntime_session",),
    "openvino": ("runtimes.openvino_runner",),
    "pillow_heif": ("photographs.heif_files",),
    "pyarrow": (
        *("inference.parquet_files", "inference.prediction_tables"),
        *("index.imported_files", "index.exported"),
    ),
    "rich": ("console.progress",),
    "safetensors": ("model.checkpoints",),
    "tensorrt": ("runtimes.tensorrt_library", "trt.plugin", "trt.builder"),
    "tensorrt_rtx": ("runtimes.tensorrt_library", "trt.rtx_builder"),
    "torch": ("model.torch_files",),
    "triton_python_backend_utils": ("export.triton_preprocessing",),
}
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_PUBLIC_NAMES = 400, 60, 8
ONE_FAMILY = PACKAGE / "errors.py"  # the exceptions are one concept, however many there are


def rank_of_packages() -> dict[str, int]:
    floors = enumerate(PACKAGES.split(" < "))
    return {name: rank for rank, floor in floors for name in floor.split(", ")}


ORDER = tuple(
    f"{package}.{module}" if module else package
    for package in rank_of_packages()
    for module in MODULES.get(package, "").split(" ")
)
"""Every module of the package, in reading order."""


def module_path(module: str) -> Path:
    return PACKAGE.joinpath(*module.split(".")).with_suffix(".py")


def modules_on_disk() -> set[str]:
    files = (path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py"))
    return {".".join(path.parts) for path in files if path.name != "__init__"}


def imported_names(tree: ast.AST) -> Iterator[str]:
    """Yield `a.b.c` of every import below `tree`; `from a import b` gives `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_module(name: str) -> str | None:
    """Return which module of the package `a.b.c` is or lies in: "" for the package itself."""
    first, *parts = name.split(".")
    if first != "alexnet_deploy":
        return None
    while parts and not module_path(".".join(parts)).is_file():
        parts.pop()
    return ".".join(parts)


def parse(module: str) -> ast.Module:
    return ast.parse(module_path(module).read_text("utf-8"))


def statements_at_start(module: str) -> ast.Module:
    """Return the module without functions and TYPE_CHECKING blocks: what runs on import."""

    class Remover(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

        def visit_If(self, node: ast.If) -> ast.AST | None:
            return None if ast.unparse(node.test) == "TYPE_CHECKING" else node

    tree: ast.Module = Remover().visit(parse(module))
    return tree


def test_every_module_of_the_package_has_its_place() -> None:
    assert sorted(ORDER) == sorted(modules_on_disk())
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages == set(MODULES) <= set(rank_of_packages())


def test_the_package_finds_what_it_imports_from_itself() -> None:
    """Guard the tests below: an import that `own_module` did not resolve would be let through."""
    assert own_module("alexnet_deploy.runtimes.base.Runner") == "runtimes.base"
    assert own_module("alexnet_deploy.commands.options") == "commands.options"
    assert own_module("alexnet_deploy.__version__") == ""
    assert own_module("numpy.typing.NDArray") is None


def test_a_module_imports_only_what_stands_above_it() -> None:
    ranks = rank_of_packages()
    for module in ORDER:
        package = module.split(".")[0]
        before = {"", *(name for name in ORDER if ranks[name.split(".")[0]] < ranks[package])}
        if package in MODULES:
            own = [f"{package}.{name}" for name in MODULES[package].split()]
            before |= set(own[: own.index(module)])
        imported = {own_module(name) for name in imported_names(parse(module))} - {None}
        assert imported <= before, module


def test_a_library_is_imported_by_its_owners_only() -> None:
    for module in ORDER:
        tops = {name.split(".")[0] for name in imported_names(parse(module))}
        libraries = tops - set(sys.stdlib_module_names) - {"alexnet_deploy", "numpy"}
        assert libraries <= set(OWNERS), f"a new library in {module}: give it an owner"
        assert {name for name in libraries if module not in OWNERS[name]} == set(), module


@pytest.mark.parametrize("library", OWNERS)
def test_each_owner_imports_its_library(library: str) -> None:
    for module in OWNERS[library]:
        if library != "click":
            tops = {name.split(".")[0] for name in imported_names(parse(module))}
            assert library in tops, f"{module} no longer owns {library}"


@pytest.mark.parametrize("module", START_UP)
def test_the_command_line_starts_with_click_and_the_standard_library(module: str) -> None:
    names = list(imported_names(statements_at_start(module)))
    own = {own_module(name) for name in names} - {None}
    foreign = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert foreign <= {"click", "alexnet_deploy"}
    assert own <= {*LIGHT, "commands.options", "cli"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("__init__.py")), ids=str)
def test_init_files_hold_a_docstring_only(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    assert ast.get_docstring(tree)
    # The package's own is its front door; see tests/test_front_door.py.
    assert path.parent == PACKAGE or tree.body[1:] == []


def python_files() -> list[Path]:
    return sorted(
        path
        for name in ("alexnet_deploy", "training", "tools", "tests")
        for path in (ROOT / name).rglob("*.py")
    )


def test_files_and_functions_stay_under_their_ceilings() -> None:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    for path in python_files():
        text = path.read_text("utf-8")
        tree = ast.parse(text)
        assert len(text.splitlines()) <= MAX_FILE_LINES, path
        lengths = {
            node.name: (node.end_lineno or 0) - node.lineno + 1
            for node in ast.walk(tree)
            if isinstance(node, functions)
        }
        assert {name: n for name, n in lengths.items() if n > MAX_FUNCTION_LINES} == {}, path
        if PACKAGE in path.parents and path != ONE_FAMILY:
            named = [n.name for n in tree.body if isinstance(n, (*functions, ast.ClassDef))]
            public = [name for name in named if not name.startswith("_")]
            assert len(public) <= MAX_PUBLIC_NAMES, path


OF_THE_COMMAND_LINE = ("commands", "console", "cli", "__main__")
COMMAND = re.compile(
    r"\b(alexnet-deploy|docker run|pip install|make|python -m) (?!.* with --)[^;]*"
)
OPTION = re.compile(r"(?<![\w-])(?<!var\()--[a-z][a-z-]*+(?![:=]\S)")
"""A style sheet's properties and NVRTC's options are none of ours: they come before ":" or "="."""


def texts(tree: ast.AST) -> Iterator[str]:
    """Yield every string as a reader sees it, with x for what is put in."""
    if isinstance(tree, ast.JoinedStr):
        yield "".join(str(p.value) if isinstance(p, ast.Constant) else "x" for p in tree.values)
    elif isinstance(tree, ast.Constant) and isinstance(tree.value, str):
        yield tree.value
    else:
        for node in ast.iter_child_nodes(tree):
            yield from texts(node)


def texts_with_options(tree: ast.AST) -> list[str]:
    return [text for text in texts(tree) if OPTION.search(COMMAND.sub("", text))]


def test_the_library_names_arguments_and_not_options() -> None:
    """It is called from Python, too; see `errors.Argument`."""
    modules = [name for name in ORDER if name.split(".")[0] not in OF_THE_COMMAND_LINE]
    found = {module: texts_with_options(parse(module)) for module in modules}
    assert {module: texts for module, texts in found.items() if texts} == {}


def test_options_are_found_in_texts_and_told_from_commands() -> None:
    tree = ast.parse("f'use --device {x}', f'--{name} is 0', 'run: make check --fast', 'a--b'")
    assert texts_with_options(tree) == ["use --device x", "--x is 0"]


RUN_AND_REPORT = """
import json, sys
before = set(sys.modules)
from alexnet_deploy.cli import main
codes = []
for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    try:
        main()
    except SystemExit as stop:
        codes.append(stop.code)
loaded = {name for name, module in sys.modules.items() if module is not None}
print(json.dumps({"codes": codes, "modules": sorted(loaded - before)}))
"""


def modules_loaded_by(*commands: list[str]) -> set[str]:
    """Run the commands in one fresh process, all successfully, and return what it imported."""
    finished = subprocess.run(
        [sys.executable, "-c", RUN_AND_REPORT, json.dumps(commands)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    report = json.loads(finished.stdout.splitlines()[-1])
    assert report["codes"] == [0] * len(commands), finished.stdout + finished.stderr
    return set(report["modules"])


@pytest.mark.parametrize("arguments", [[], *([name] for name in COMMANDS)], ids=str)
def test_help_loads_click_and_nothing_heavier(arguments: list[str]) -> None:
    loaded = modules_loaded_by([*arguments, "--help"])
    foreign = {name.split(".")[0] for name in loaded} - set(sys.stdlib_module_names)
    assert foreign == {"click", "alexnet_deploy"}
    own = {own_module(name) for name in loaded} - {None}
    # The group's own help lists the first line of each command.
    own_command = {COMMAND_MODULES[name] for name in arguments or COMMANDS}
    assert own <= {*LIGHT, "cli", "commands.options", *own_command}


def test_no_command_loads_torch_unless_it_reads_a_pt_file(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="what is not installed cannot be loaded")
    photograph = str(varied_samples()[0])
    exported, index = str(tmp_path / "model.onnx"), str(tmp_path / "index")
    loaded = modules_loaded_by(
        ["export", "-o", exported, "--verify-on", photograph],
        ["classify", photograph, "--model", exported, "--figure", str(tmp_path / "f.png")],
        ["embed", photograph, "--model", exported, "-o", str(tmp_path / "vectors.npy")],
        ["index", str(Path(photograph).parent), "--index", index, "--model", exported],
        ["verify", exported, "--on", photograph],
        ["info", exported],
        ["doctor"],
    )
    assert "openvino" in loaded, "the commands did run the network"
    assert {"torch", "faiss", "matplotlib"} & loaded == set()


def test_what_every_test_counts_on_imports_no_runtime_and_keeps_them_quiet() -> None:
    code = (
        "import os, sys; os.environ.pop('ORT_DISABLE_TELEMETRY', None); import tests.conftest; "
        f"print(sorted(sys.modules.keys() & {sorted(OWNERS.keys() - {'PIL'})!r}), "
        "os.environ['ORT_DISABLE_TELEMETRY'], sys.modules['openvino_telemetry'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("]")[0] == "["
    assert done.stdout.split("]")[1].split() == ["1", "None"]
