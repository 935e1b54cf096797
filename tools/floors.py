"""Print the oldest version that pyproject.toml allows of each package of some extras, for pip.

    python tools/floors.py cpu parquet > floors.txt

`make floors` installs them.
"""

import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def floors(extras: list[str]) -> list[str]:
    """Return `name==version` of each requirement with a floor, the package's own first."""
    project = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]
    lines = [*project["dependencies"]]
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    found = []
    for requirement in map(Requirement, lines):
        versions = [each.version for each in requirement.specifier if each.operator == ">="]
        found += [f"{requirement.name}=={version}" for version in versions]
    return found


if __name__ == "__main__":
    print("\n".join(floors(sys.argv[1:])))
