"""Print the oldest version that pyproject.toml allows of each package of some extras, for pip.

    python tools/floors.py cpu parquet > floors.txt

`make floors` installs them.
"""

import sys
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def requirements(extra: str) -> Iterator[Requirement]:
    """Yield what an extra installs, and what the extras do that it refers to."""
    project = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]
    for requirement in map(Requirement, project["optional-dependencies"][extra]):
        if requirement.name == project["name"]:
            for inner in sorted(requirement.extras):
                yield from requirements(inner)
        else:
            yield requirement


def floors(extras: list[str]) -> list[str]:
    """Return `name==version` of each requirement with a floor, the package's own first."""
    project = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]
    base = map(Requirement, project["dependencies"])
    found = []
    for requirement in chain(base, *map(requirements, extras)):
        versions = [each.version for each in requirement.specifier if each.operator == ">="]
        found += [f"{requirement.name}=={version}" for version in versions]
    return found


if __name__ == "__main__":
    print("\n".join(floors(sys.argv[1:])))
