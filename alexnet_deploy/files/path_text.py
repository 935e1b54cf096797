"""Paths as text for terminals, JSON, CSV, and formats that only hold UTF-8.

On Linux a file name is arbitrary bytes; Python keeps those that are not UTF-8 as lone surrogates
(PEP 383, "surrogateescape"), which neither a terminal nor most file formats accept.
"""

import base64
import os
from pathlib import Path


def printable(text: str | Path) -> str:
    r"""Return `text` on one line, with what a terminal would interpret or reject escaped.

    Control characters, line breaks and direction marks become `\n`, `\x1b` or `\u202e`; a byte
    that is not UTF-8 becomes `\xff`.
    """
    return "".join(char if char.isprintable() else _escaped(char) for char in str(text))


def printable_lines(text: str) -> str:
    """Return `text` with each of its lines as `printable` has it."""
    return "\n".join(map(printable, text.split("\n")))


def path_fields(path: Path) -> dict[str, str]:
    """Return the JSON fields of `path`: `path`, and `path_base64` if its bytes are not UTF-8.

    `path` keeps such bytes as surrogates, which `json.dumps` escapes and `os.fsencode` restores;
    `path_base64` is for readers in other languages.
    """
    encoded = path_base64(path)
    return {"path": str(path)} | ({} if encoded is None else {"path_base64": encoded})


def path_base64(path: Path) -> str | None:
    """Return the bytes of `path` in base64, or None if they are valid UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return base64.b64encode(os.fsencode(path)).decode("ascii")
    return None


def path_utf8(path: Path) -> str:
    r"""Return `path` as valid UTF-8: other bytes become `\xff`, irreversibly."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")
