"""What a search found, as JSON and as text."""

import base64
import json
import os
from pathlib import Path

from alexnet_deploy.index.results import Neighbour, SearchResult

RAW = b"/p/\xff.bmp"
NOT_UTF8 = Path(os.fsdecode(RAW))


def neighbour(path: Path) -> Neighbour:
    return Neighbour(path=path, cosine_similarity=0.51234, l2_distance=12.3456)


def test_json_has_the_query_and_its_results() -> None:
    found = SearchResult(query=Path("q.jpg"), neighbours=(neighbour(Path("/a.jpg")),), error=None)
    assert json.loads(found.to_json()) == {
        "query": "q.jpg",
        "results": [
            {
                "path": "/a.jpg",
                "l2_distance": 12.3456,
                "cosine_similarity": 0.51234,
                "rotation": 0,
                "identical": False,
                "changed": False,
                "gone": True,
                "imported": False,
            }
        ],
    }
    nothing = SearchResult(query=b"", neighbours=(), error=None)
    assert json.loads(nothing.to_json()) == {"query": "-", "results": []}


def test_json_has_the_reason_where_there_are_no_results() -> None:
    failed = SearchResult(query=b"", neighbours=(), error="is empty")
    assert json.loads(failed.to_json()) == {"query": "-", "error": "is empty"}


def test_json_has_the_bytes_of_names_that_are_not_utf8() -> None:
    encoded = base64.b64encode(RAW).decode()
    found = SearchResult(query=NOT_UTF8, neighbours=(neighbour(NOT_UTF8),), error=None)
    line = found.to_json()
    assert line.isascii()
    told = json.loads(line)
    assert list(told) == ["query", "query_base64", "results"]
    assert (os.fsencode(told["query"]), told["query_base64"]) == (RAW, encoded)
    (one,) = told["results"]
    assert list(one)[:3] == ["path", "path_base64", "l2_distance"]
    assert (os.fsencode(one["path"]), one["path_base64"]) == (RAW, encoded)
    failed = SearchResult(query=NOT_UTF8, neighbours=(), error="is empty")
    assert list(json.loads(failed.to_json())) == ["query", "query_base64", "error"]


def test_json_is_one_line_whatever_the_names_hold() -> None:
    path = Path("a\nb\u2028c\r.jpg")
    line = SearchResult(query=path, neighbours=(neighbour(path),), error=None).to_json()
    assert len(line.splitlines()) == 1


def test_text_has_a_line_for_each_neighbour_and_is_harmless_to_a_terminal() -> None:
    evil = Path("/p/\x1b[31m\n\u202e.jpg")
    text = SearchResult(query=evil, neighbours=(neighbour(evil),) * 2, error=None).to_text()
    lines = text.split("\n")
    assert all(line.isprintable() for line in lines)
    assert lines[0] == r"neighbours of /p/\x1b[31m\n\u202e.jpg"
    assert lines[2:] == [r"0.5123     12.35  gone        /p/\x1b[31m\n\u202e.jpg"] * 2


def test_what_is_no_file_any_more_is_gone(tmp_path: Path) -> None:
    file, link = tmp_path / "a.jpg", tmp_path / "link.jpg"
    file.write_bytes(b"x")
    link.symlink_to(file)
    assert not neighbour(file).is_gone
    assert not neighbour(link).is_gone
    file.unlink()
    assert neighbour(link).is_gone
    file.mkdir()
    assert neighbour(file).is_gone
