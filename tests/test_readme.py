"""The Python of the pages runs as it stands, typed, and without a warning."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet_deploy.photographs.samples import varied_samples

ROOT = Path(__file__).resolve().parents[1]


def python_of(page: str) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
    return str(code)


@pytest.mark.parametrize("page", ["README.md", "alexnet_deploy/README.md"])
def test_the_python_of_a_page_runs(page: str, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for path in varied_samples()[:3]:
        shutil.copy(path, tmp_path / "photos" / f"{path.parent.name}.jpg")
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{python_of(page)}\nprint(vectors.shape)"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    *lines, shape = finished.stdout.splitlines()
    photographs = sorted((tmp_path / "photos").iterdir())
    names = [f"photos/{path.name}" for path in photographs]
    assert [line.split(" ", 1)[0] for line in lines] == names + names
    for line, own in zip(lines[3:], photographs, strict=True):
        others = {str(path) for path in photographs if path != own}
        assert set(line.split(" ")[1:]) == others
    assert shape == "(3, 4096)"


def test_a_type_checker_has_nothing_to_say_of_it(tmp_path: Path) -> None:
    """It is as strict as with the project, whose cache spares it the package."""
    (tmp_path / "program.py").write_text(python_of("README.md"))
    finished = subprocess.run(
        [sys.executable, "-m", "mypy", str(tmp_path / "program.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.stdout.startswith("Success"), finished.stdout
