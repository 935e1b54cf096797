"""What is installed here, read from the import path and pip's records; nothing is imported.

A module is what `import` names, a distribution what `pip install` names.
"""

import importlib.util
from pathlib import Path

DATA = Path(__file__).with_name("data")
"""The files that come with the package: weights, photographs, tables."""


def has_module(name: str) -> bool:
    """Return whether `import name` would find something."""
    return importlib.util.find_spec(name) is not None


def has_distribution(name: str) -> bool:
    """Return whether pip has a record of the distribution."""
    from importlib import metadata  # slow to import, and every start of the command line is here

    return any(metadata.distributions(name=name))


def version_of(distribution: str) -> str:
    """Return the version of an installed distribution; "" when it is not installed."""
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
