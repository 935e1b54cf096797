"""The README's Python runs as it stands."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from alexnet_deploy.photographs.samples import varied_samples

ROOT = Path(__file__).resolve().parents[1]


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    (tmp_path / "photos").mkdir()
    for path in varied_samples()[:3]:
        shutil.copy(path, tmp_path / "photos" / f"{path.parent.name}.jpg")
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    lines = finished.stdout.splitlines()
    photographs = sorted((tmp_path / "photos").iterdir())
    names = [f"photos/{path.name}" for path in photographs]
    assert [line.split(" ", 1)[0] for line in lines] == names + names
    for line, own in zip(lines[3:], photographs, strict=True):
        others = {str(path) for path in photographs if path != own}
        assert set(line.split(" ")[1:]) == others
    assert np.load(tmp_path / "fc7.npy").shape == (3, 4096)
