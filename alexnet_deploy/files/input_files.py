"""Files that are read: is there one, and may it be read?"""

from pathlib import Path

from alexnet_deploy.errors import UsageError


def existing_file(path: Path, expected: str) -> None:
    """Refuse a path that is no file, or one that may not be read.

    Args:
        path: of any length and any characters.
        expected: what should have been given, for the message.

    Raises:
        UsageError: naming the path and the reason.
    """
    try:
        if not path.is_file():
            found = "is a folder" if path.is_dir() else "no such file"
            raise UsageError(f"{path}: {found}; give {expected}")
        with path.open("rb"):
            pass
    except OSError as error:  # a closed folder, a name of 300 characters
        raise UsageError(
            f"{path}: cannot be opened ({error.strerror or error}); mend that, or give {expected}"
        ) from error
