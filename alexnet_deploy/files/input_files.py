"""Check that input files exist and are readable."""

from pathlib import Path

from alexnet_deploy.errors import UsageError


def existing_file(path: Path, expected: str) -> None:
    """Raise an error unless `path` is a readable file.

    Args:
        path: of any length and any characters.
        expected: what kind of file was expected, for the message.

    Raises:
        UsageError: naming the path and the reason.
    """
    try:
        if not path.is_file():
            found = "is a folder" if path.is_dir() else "no such file"
            raise UsageError(f"{path}: {found}; give {expected}")
        with path.open("rb"):
            pass
    except OSError as error:  # a folder without access, a name of 300 characters
        raise UsageError(
            f"{path}: cannot be opened ({error.strerror or error}); fix that, or give {expected}"
        ) from error
