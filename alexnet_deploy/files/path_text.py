"""Paths as text for terminals, JSON, CSV, and formats that only hold UTF-8.

On Linux a file name is arbitrary bytes; Python keeps those that are not UTF-8 as lone surrogates
(PEP 383, "surrogateescape"), which neither a terminal nor most file formats accept.
"""

import base64
import os
from pathlib import Path

_MAX_CHARS = 10_000
"""Of a line for people: two of the longest paths fit, and a name of a megabyte does not."""


def printable(text: str | Path) -> str:
    r"""Return `text` on one line, with what a terminal would interpret or reject escaped.

    Control characters, line breaks and direction marks become `\n`, `\x1b` or `\u202e`; a byte
    that is not UTF-8 becomes `\xff`. Of more than 10,000 characters the middle is left out.
    """
    whole = str(text)
    if len(whole) > _MAX_CHARS:
        whole = f"{whole[: _MAX_CHARS // 2]} ... {whole[-_MAX_CHARS // 2 :]}"
    return "".join(char if char.isprintable() else _escaped(char) for char in whole)


def path_fields(path: Path | str) -> dict[str, str]:
    """Return the JSON fields of `path`: `path`, and `path_base64` if its bytes are not UTF-8.

    `path` keeps such bytes as surrogates, which `json.dumps` escapes and `os.fsencode` restores;
    `path_base64` is for readers in other languages.
    """
    encoded = path_base64(path)
    return {"path": str(path)} | ({} if encoded is None else {"path_base64": encoded})


def path_base64(path: Path | str) -> str | None:
    """Return the bytes of `path` in base64, or None if they are valid UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return base64.b64encode(os.fsencode(path)).decode("ascii")
    return None


def path_utf8(path: Path | str) -> str:
    r"""Return `path` as valid UTF-8: other bytes become `\xff`, irreversibly."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")
