"""What tools/gpu_check.py takes from a folder of wheels, and which of its checks find it where."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from gpu_checks import environment as environment_check
from gpu_checks.environment import versions
from gpu_checks.surroundings import environment, unpack_wheels, unpacked_in

from tests.support.pretended_checks import fake, pretend, run_main


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return pretend(tmp_path, monkeypatch)


def save_wheel(folder: Path, name: str, files: Mapping[str, str]) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in files.items():
            archive.writestr(member, text)
        archive.writestr(f"{name}-1.0.dist-info/METADATA", f"Name: {name}\nVersion: 1.0\n")
    return path


def test_wheels_come_first_for_most_checks_and_behind_what_is_installed_for_those_of_torch(
    fakes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = fakes / "wheels"
    save_wheel(wheels, "tiny", {"tiny/__init__.py": "from tiny.inner import VALUE\n"})
    save_wheel(wheels, "more", {"more-1.0.data/purelib/tiny/inner.py": "VALUE = 'tiny'\n"})
    # One that a variable names, and one that lies beside all that is installed.
    save_wheel(wheels, "over", {"fakes_over.py": "VALUE = 'of the wheel'\n"})
    save_wheel(wheels, "pluggy", {"pluggy.py": "VALUE = 'of the wheel'\n__version__ = '0'\n"})
    (fakes / "modules" / "fakes_over.py").write_text("VALUE = 'installed'\n", "utf-8")
    order = [
        (first, module) for first in (True, False) for module in ("tiny", "fakes_over", "pluggy")
    ]
    checks = [fake("imports", wheels_first=first, module=module) for first, module in order]
    named = [dataclasses.replace(check, name=f"{n}") for n, check in enumerate(checks)]
    path = fakes / "results.json"
    assert run_main(monkeypatch, named, "--wheels", wheels, "--json", path) == 1
    written = json.loads(path.read_text("utf-8"))
    found = dict(zip(order, written["checks"][1:], strict=True))
    values = {key: check["figures"].get("value") for key, check in found.items()}
    assert values == {
        (True, "tiny"): "tiny",
        (True, "fakes_over"): "of the wheel",
        (True, "pluggy"): "of the wheel",
        (False, "tiny"): "tiny",
        (False, "fakes_over"): "installed",
        (False, "pluggy"): None,
    }
    assert "has no attribute 'VALUE'" in found[False, "pluggy"]["reason"]
    assert len(written["wheels"]) == 4


def test_processes_that_a_check_starts_find_the_wheels_where_it_does(tmp_path: Path) -> None:
    (unpacked_in(tmp_path) / "tiny").mkdir(parents=True)
    for first in (True, False):
        found = subprocess.run(
            [sys.executable, "-c", "import sys; print(*sys.path, sep='\\n')"],
            env=environment(tmp_path, wheels_first=first),
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        installed = found.index(str(Path(pytest.__file__).parents[1]))
        assert (found.index(str(unpacked_in(tmp_path))) < installed) == first


def test_libraries_of_unpacked_wheels_find_those_of_cuda(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed, wheels = tmp_path / "installed", unpacked_in(tmp_path)
    folders = [place / "nvidia" / "cu13" / "lib" for place in (wheels, installed)]
    for folder in folders:
        folder.mkdir(parents=True)
    monkeypatch.syspath_prepend(str(installed))
    monkeypatch.setenv("LD_LIBRARY_PATH", "before")
    found = environment(tmp_path, wheels_first=True)["LD_LIBRARY_PATH"].split(os.pathsep)
    assert found[:2] == [str(folder) for folder in folders]
    assert found[-1] == "before"
    # torch brings its own.
    assert environment(tmp_path, wheels_first=False)["LD_LIBRARY_PATH"] == "before"
    shutil.rmtree(wheels)
    assert environment(tmp_path, wheels_first=True)["LD_LIBRARY_PATH"] == "before"


WRONG = {
    "nothing": r"no \.whl file",
    "damaged": "not a wheel",
    "source": r"tiny-1\.0\.tar\.gz: not wheels; build wheels from them with: pip wheel",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_folder_of_wheels_that_cannot_be_used_is_refused(
    fakes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    wheels = fakes / "wheels"
    wheels.mkdir()
    if wrong == "damaged":
        (wheels / "tiny-1.0-py3-none-any.whl").write_bytes(b"no archive")
    if wrong == "source":
        save_wheel(wheels, "other", {"other.py": ""})
        (wheels / "tiny-1.0.tar.gz").write_bytes(b"a package's source")
    with pytest.raises(ValueError, match=WRONG[wrong]):
        unpack_wheels(wheels, fakes / "target")
    path = fakes / "results.json"
    assert run_main(monkeypatch, [fake("passes")], "--wheels", wheels, "--json", path) == 2
    assert "--wheels" in capsys.readouterr().err
    assert not path.exists()


def test_versions_are_those_that_checks_find_in_both_places_where_they_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels, installed = tmp_path / "wheels", tmp_path / "installed"
    for place, versions_there in (
        (wheels, {"one": "2.0", "both": "2.0", "same": "1.0"}),
        (installed, {"other": "1.0", "both": "1.0", "same": "1.0"}),
    ):
        for name, version in versions_there.items():
            folder = place / f"{name}-{version}.dist-info"
            folder.mkdir(parents=True)
            text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            (folder / "METADATA").write_text(text, "utf-8")
    monkeypatch.setattr(sys, "path", [str(wheels), str(installed)])
    monkeypatch.setattr(environment_check, "_PACKAGES", ("one", "other", "both", "same", "none"))
    assert versions(wheels) == {
        "one": "2.0",
        "other": "1.0",
        "both": "2.0 of the wheels, 1.0 installed",
        "same": "1.0",
    }
