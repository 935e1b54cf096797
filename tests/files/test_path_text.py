"""A path as text: one line for people, valid UTF-8 for files, the bytes kept for programs."""

import base64
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexnet_deploy.files.path_text import path_base64, path_fields, path_utf8, printable

NAMES = st.binary(min_size=1, max_size=20).filter(lambda name: not set(name) & {0, ord("/")})


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"plain name.jpg", "plain name.jpg"),
        ("caf\xe9 \u732b.jpg".encode(), "caf\xe9 \u732b.jpg"),
        (b"caf\xe9.jpg", "caf\\xe9.jpg"),
        (b"a\nb\tc\x1b[31m.jpg", "a\\nb\\tc\\x1b[31m.jpg"),
        ("gpj\u202e.exe".encode(), "gpj\\u202e.exe"),
    ],
)
def test_what_a_terminal_would_obey_is_made_visible(name: bytes, shown: str) -> None:
    assert printable(Path(os.fsdecode(name))) == shown


def test_the_middle_of_a_name_that_no_disk_has_is_left_out() -> None:
    longest = "/".join(["a" * 255] * 16)
    assert printable(f"{longest}: is a copy of {longest}").count("a" * 255) == 32
    assert printable(f"{'a' * 10**6}; the remedy") == f"{'a' * 5000} ... {'a' * 4988}; the remedy"


@given(NAMES)
def test_every_name_is_one_printable_line_and_valid_utf8(name: bytes) -> None:
    path = Path(os.fsdecode(name))
    assert printable(path).isprintable()
    assert printable(path).encode()
    assert path_utf8(path).encode()


@given(NAMES)
def test_the_bytes_of_every_name_can_be_had_back(name: bytes) -> None:
    fields = path_fields(Path(os.fsdecode(name)))
    assert os.fsencode(fields["path"]) == name
    encoded = path_base64(Path(os.fsdecode(name)))
    if encoded is None:
        assert set(fields) == {"path"}
        assert name.decode("utf-8")
    else:
        assert base64.b64decode(fields["path_base64"]) == name
