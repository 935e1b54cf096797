"""What --json prints, beside the table of it on the package's page."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from alexnet_deploy.cli import COMMANDS
from alexnet_deploy.photographs.samples import varied_samples
from alexnet_deploy.runtimes.engine_file import write_engine
from tests.support.command_line import done, run
from tests.support.engine_files import ENGINE
from tests.support.file_server import serving
from tests.support.known_tables import FILE_NAME, NAME, published, use_table

PAGE = Path(__file__).resolve().parents[2] / "alexnet_deploy" / "README.md"
ROW = re.compile(r"^\| `(.+?)` \| (an object|lines) \| `(.+)` \|$", re.MULTILINE)
ONLY_FROM_IMAGENET = ".published."

Row = tuple[str, list[Any]]
"""What a command prints, "an object" or "lines", and each; on the page a shape for each."""


def template(shape: str) -> Any:
    """Return a shape as a value: null where anything may be, "*" for a key that may be any."""
    shape = re.sub(r'"(\w+)"(?!:)', r'"\1": null', shape)
    shape = re.sub(r"\{\w+:", '{"*":', shape)
    return json.loads(re.sub(r'(?<!")\b(?!null\b)[a-z]+\b(?!")', "null", shape))


def paths(shape: Any, value: Any, at: str = "") -> Iterator[str]:
    """Yield where a value has keys, as deep as the shape goes."""
    if isinstance(shape, dict) and isinstance(value, dict):
        for key, inner in value.items():
            name = "*" if "*" in shape else key
            yield f"{at}.{name}"
            yield from paths(shape.get(name), inner, f"{at}.{name}")
    elif isinstance(shape, list) and isinstance(value, list):
        for inner in value:
            yield from paths(shape[0], inner, f"{at}[]")


def documented() -> dict[str, Row]:
    section = PAGE.read_text("utf-8").partition("\n## JSON\n")[2].partition("\n## ")[0]
    return {
        command: (form, [template(shape) for shape in shapes.split("` or `")])
        for command, form, shapes in ROW.findall(section)
    }


MODEL = ("--model", "m.onnx")
ANY_FAILED = ("--max-failures", "100%")


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Row]:
    """Return what the commands print for photographs, one of them damaged, and one left out."""
    told: dict[str, Row] = {}

    def tell(row: str, *arguments: str | Path) -> None:
        lines = run(*arguments, "--json").stdout.splitlines()
        form = "an object" if len(lines) == 1 else "lines"
        told.setdefault(row, (form, []))[1].extend(map(json.loads, lines))

    place = tmp_path_factory.mktemp("json")
    samples = varied_samples()[:3]
    folder = place / "photos" / samples[0].parent.name
    folder.mkdir(parents=True)
    for path in samples:
        shutil.copy(path, folder)
    for name in ("1.jpg", "2.jpg", "left out.svg"):
        (folder / name).write_bytes(b"no photograph")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        write_engine(ENGINE, place / "m.engine")
        tell("export", "export", "-o", "m.onnx", "--verify-on", "photos")
        tell("verify", "verify", "m.onnx", "--on", "photos")
        tell("doctor", "doctor")
        tell("classify", "classify", "photos", "--model", "m.onnx")
        tell("embed", "embed", "photos", "--model", "m.onnx", "-o", "v.npy")
        ways = ("--runtime", "openvino", "--decode", "exact", "--decode", "scaled")
        tell("bench", "bench", "photos", *ways, "--rounds", "1")
        tell("evaluate", "evaluate", "photos", *MODEL, "--compare", "m.onnx", *ANY_FAILED)
        shutil.copytree("photos", "classes")
        shutil.copytree(folder, "classes/other")
        tell("evaluate --retrieval", "evaluate", "classes", "--retrieval", *MODEL, *ANY_FAILED)
        tell("index", "index", "photos", "--model", "m.onnx", "--index", "i", "--ann", "compressed")
        run("embed", "photos", "--model", "m.onnx", "--decode", "scaled", "-o", "v.parquet")
        tell("index --from", "index", "--from", "v.parquet", "--index", "i")
        tell("index --export", "index", "--export", "exported", "--index", "i")
        tell("search", "search", "photos", "--index", "i")
        shutil.copy(samples[0], place / "photos" / "copy.jpg")
        with Image.open(samples[0]) as picture:
            picture.save(place / "photos" / "pixels.png")
            picture.convert("L").save(place / "photos" / "grey.jpg")
        done("index", "photos", "--index", "i")
        tell("duplicates", "duplicates", "--index", "i")
        tell("info CHECKPOINT", "info")
        tell("info FILE.onnx", "info", "m.onnx")
        tell("info FILE.engine", "info", "m.engine")
        tell("info VECTORS", "info", "v.npy")
        tell("info VECTORS", "info", "v.json")
        tell("info INDEX --failures", "info", "i", "--failures")
        tell("info INDEX --check", "info", "i", "--check")
        os.rename("photos", "elsewhere")
        tell("index", "index", "--index", "i")
    with pytest.MonkeyPatch.context() as patch, serving(published()) as file:
        patch.chdir(place)
        patch.setenv("XDG_DATA_HOME", str(place / "data"))
        use_table(patch, place, file.url)
        tell("pull", "pull", NAME)
        tell("models", "models")
        (place / FILE_NAME).write_bytes(published())
        tell("import", "import", FILE_NAME, "--dry-run")
    return told


def test_the_page_has_every_command(printed: dict[str, Row]) -> None:
    assert documented().keys() == printed.keys()
    assert {row.split(" ")[0] for row in printed} == COMMANDS.keys()


@pytest.mark.parametrize("row", documented())
def test_what_a_command_prints_is_what_the_page_says(printed: dict[str, Row], row: str) -> None:
    (form, shapes), (form_printed, values) = documented()[row], printed[row]
    assert form_printed == form
    known = [set(paths(shape, shape)) for shape in shapes]
    seen = [[set(paths(shape, value)) for value in values] for shape in shapes]
    for number, value in enumerate(values):
        assert any(list(shape) == list(value) for shape in shapes), value
        assert any(some[number] <= all_ for some, all_ in zip(seen, known, strict=True)), value
    for shape in shapes:
        assert any(list(shape) == list(value) for value in values), "said, and never printed"
    missed = set().union(*known).difference(*(one for some in seen for one in some))
    assert {path for path in missed if ONLY_FROM_IMAGENET not in path} == set()
