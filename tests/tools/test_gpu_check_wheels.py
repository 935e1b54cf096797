"""What tools/gpu_check.py takes from a folder of wheels, and which of its checks find it where."""

import json
import os
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pluggy
import pytest
from gpu_checks.session import ROOT
from gpu_checks.wheels import search_paths, unpack_wheels

from tests.support.made_checks import IMPORTS, run

PLUGIN = """
import pytest

@pytest.fixture
def given():
    return "by a plugin of the wheels"
"""


def save_wheel(folder: Path, name: str, files: Mapping[str, str], entries: str = "") -> None:
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for member, text in files.items():
            archive.writestr(member, text)
        archive.writestr(f"{name}-1.0.dist-info/METADATA", f"Name: {name}\nVersion: 1.0\n")
        archive.writestr(f"{name}-1.0.dist-info/entry_points.txt", entries)


def test_wheels_come_first_for_some_files_and_behind_what_is_installed_for_others(
    tmp_path: Path,
) -> None:
    """Plugins of pytest's, too; and for processes that a check starts."""
    wheels, installed = tmp_path / "wheels", tmp_path / "installed"
    save_wheel(wheels, "tiny", {"tiny/__init__.py": "from tiny.inner import VALUE\n"})
    save_wheel(wheels, "more", {"more-1.0.data/purelib/tiny/inner.py": "VALUE = 'wheel'\n"})
    save_wheel(wheels, "plug", {"plug.py": PLUGIN}, "[pytest11]\nplug = plug\n")
    # One that a variable names, and one that lies beside all that is installed.
    save_wheel(wheels, "over", {"over.py": "VALUE = 'wheel'\n"})
    package = Path(pluggy.__file__).parent
    sources = {f"pluggy/{path.name}": path.read_text("utf-8") for path in package.glob("*.py")}
    sources["pluggy/__init__.py"] += "VALUE = 'wheel'\n"
    save_wheel(wheels, "pluggy", sources)
    installed.mkdir()
    (installed / "over.py").write_text("VALUE = 'installed'\n", "utf-8")
    files = {"first": IMPORTS, "last": IMPORTS}
    json_file = tmp_path / "results.json"
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tools"), str(installed)])
    options = ("--wheels", wheels, "--json", json_file)
    code, printed, said = run(tmp_path, files, *options, PYTHONPATH=paths)
    assert code == 0, printed + said
    written = json.loads(json_file.read_text("utf-8"))
    assert {each["name"]: each["figures"]["value"] for each in written["checks"]} == {
        "first-imports-tiny": "wheel",
        "first-imports-over": "wheel",
        "first-imports-pluggy": "wheel",
        "last-imports-tiny": "wheel",
        "last-imports-over": "installed",
        "last-imports-pluggy": "installed",
    }
    assert {each["figures"]["given"] for each in written["checks"]} == {"by a plugin of the wheels"}
    assert len(written["wheels"]) == 5


def test_libraries_are_looked_for_in_the_order_of_the_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels, installed = tmp_path / "wheels", tmp_path / "installed"
    folders = [str(place / "nvidia" / "cu13" / "lib") for place in (wheels, installed)]
    for folder in folders:
        Path(folder).mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(installed)])
    monkeypatch.setenv("LD_LIBRARY_PATH", "before")
    for is_first, expected in ((True, folders), (False, folders[::-1])):
        found = search_paths(wheels, first=is_first)
        assert found["LD_LIBRARY_PATH"].split(os.pathsep) == [*expected, "before"]


WRONG = {
    "nothing": "expected wheels, and it holds nothing",
    "damaged": "not a wheel",
    "source": r"holds tiny-1\.0\.tar\.gz; make a wheel of a package's source with: pip wheel",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_folder_of_wheels_that_cannot_be_used_is_refused(tmp_path: Path, wrong: str) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    if wrong == "damaged":
        (wheels / "tiny-1.0-py3-none-any.whl").write_bytes(b"no archive")
    if wrong == "source":
        save_wheel(wheels, "other", {"other.py": ""})
        (wheels / "tiny-1.0.tar.gz").write_bytes(b"a package's source")
    with pytest.raises(ValueError, match=WRONG[wrong]):
        unpack_wheels(wheels, tmp_path / "target")
    json_file = tmp_path / "results.json"
    code, _, said = run(tmp_path, {}, "--wheels", wheels, "--json", json_file)
    assert (code, json_file.exists()) == (2, False)
    assert str(wheels) in said
