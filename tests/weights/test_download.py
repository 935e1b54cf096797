"""A file from a server that stalls, breaks off, redirects, lies, and answers with a page."""

import fcntl
import hashlib
import os
import ssl
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest

from alexnet_deploy.errors import IncompatibleFileError, OutputError
from alexnet_deploy.importing.known import KnownFile
from alexnet_deploy.weights.download import SourceError, download
from tests.support.file_server import (
    Answer,
    FileServer,
    broken_after,
    ignoring_range,
    sent,
    serving,
    stalled_after,
    whole,
)
from tests.support.full_disk import files_limited_to

CONTENT = np.random.default_rng(0).bytes(10**6)
OTHER = bytes(reversed(CONTENT))
PAGE = b"<!DOCTYPE html><html>Please log in</html>"
FILE = KnownFile(
    name="net.bin",
    size=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    sha1="",
    urls=(),
)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving(CONTENT) as file:
        yield file


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "net.bin"


def part_of(target: Path) -> Path:
    return target.with_name("net.bin.part")


def fetch(server: FileServer, target: Path, stall_s: float = 10) -> list[int]:
    """Download the file, and return what was told of it."""
    told: list[int] = []
    download(server.url, target, FILE, on_bytes=told.append, stall_s=stall_s)
    return told


def failure(server: FileServer, target: Path) -> str:
    """Return why the server does not give the file, of which nothing may be left."""
    with pytest.raises(SourceError) as caught:
        fetch(server, target)
    assert os.listdir(target.parent) == []
    return str(caught.value)


def test_a_file_comes_whole_and_alone(server: FileServer, target: Path) -> None:
    told = fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert os.listdir(target.parent) == ["net.bin"]
    assert told == sorted(told)
    assert told[-1] == len(CONTENT)


def test_redirects_are_followed_with_the_range(server: FileServer, target: Path) -> None:
    part_of(target).write_bytes(CONTENT[:1000])
    server.answers = [sent(302, Location="/elsewhere"), whole]
    fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert server.paths == ["/file.bin", "/elsewhere"]
    assert server.ranges == ["bytes=1000-"] * 2


@pytest.mark.parametrize(
    ("answer", "come"), [(stalled_after(3000), 3000), (broken_after(5000), 5000)]
)
def test_what_stalls_or_breaks_is_continued(
    server: FileServer, target: Path, answer: Answer, come: int
) -> None:
    server.answers = [answer]
    fetch(server, target, stall_s=0.3)
    assert target.read_bytes() == CONTENT
    assert server.ranges == ["", f"bytes={come}-"]


def test_a_server_that_never_sends_is_left(server: FileServer, target: Path) -> None:
    server.answers = [stalled_after(0)]
    with pytest.raises(SourceError, match=r"sent nothing for 0\.2 seconds"):
        fetch(server, target, stall_s=0.2)
    assert len(server.ranges) == 1


def test_a_server_that_breaks_off_again_and_again_is_left_and_the_part_stays(
    server: FileServer, target: Path
) -> None:
    server.answers = [broken_after(10)] * 100
    with pytest.raises(SourceError, match="broke 20 times"):
        fetch(server, target)
    assert part_of(target).read_bytes() == CONTENT[:200]


@pytest.mark.parametrize("come", [1000, len(CONTENT)])
def test_a_later_call_asks_for_the_rest_only(server: FileServer, target: Path, come: int) -> None:
    part_of(target).write_bytes(CONTENT[:come])
    fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert server.ranges == (["bytes=1000-"] if come == 1000 else [])


def test_ctrl_c_leaves_what_has_come(server: FileServer, target: Path) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(server.url, target, FILE, on_bytes=interrupt)
    come = part_of(target).stat().st_size
    assert 0 < come < len(CONTENT)
    fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert server.ranges == ["", f"bytes={come}-"]


@pytest.mark.parametrize(
    "answers", [[ignoring_range], [sent(416), whole], [broken_after(10), ignoring_range]]
)
def test_a_server_without_ranges_sends_all_of_it(
    server: FileServer, target: Path, answers: list[Answer]
) -> None:
    part_of(target).write_bytes(CONTENT[:1000])
    server.answers = answers
    fetch(server, target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("part", [OTHER[:1000], CONTENT + b"more", OTHER])
def test_a_part_of_another_file_is_fetched_anew(
    server: FileServer, target: Path, part: bytes
) -> None:
    part_of(target).write_bytes(part)
    fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert server.ranges[-1] == ""


def test_a_file_that_changes_between_two_parts_is_asked_for_anew(
    server: FileServer, target: Path
) -> None:
    def broken_and_replaced(request: object) -> None:
        broken_after(5000)(request)  # type: ignore[arg-type]
        server.content, server.etag = CONTENT, '"2"'

    server.content = OTHER
    server.answers = [broken_and_replaced]
    fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert server.ranges == ["", "bytes=5000-"], "the second was answered with all of it"


def test_another_file_of_the_same_size_is_refused(server: FileServer, target: Path) -> None:
    server.content = OTHER
    assert hashlib.sha256(OTHER).hexdigest() in failure(server, target)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (sent(404), r"does not have it \(404\)"),
        (sent(403), r"refuses it \(403\)"),
        (sent(500, PAGE), r"fails \(500 Internal Server Error\)"),
        (sent(200, PAGE, Content_Type="text/html", Content_Length=len(PAGE)), "a web page"),
        (sent(200, PAGE), "a web page"),
        (sent(200, b"x", Content_Length=10**12), "has 1,000,000,000,000 bytes, expected"),
        (sent(200, CONTENT + b"x"), "sends more than the 1,000,000 bytes"),
        (sent(206, b"x", Content_Range="bytes 5-9/10"), "another part"),
        (sent(302, Location="file:///etc/passwd"), "to other addresses"),
        (sent(302, Location="ftp://127.0.0.1/file"), "unknown url type: ftp"),
        (sent(200, b"", Content_Length=len(CONTENT)), "ended after 0 of 1,000,000 bytes"),
    ],
)
def test_what_is_not_the_file_has_a_reason_and_leaves_nothing(
    server: FileServer, target: Path, answer: Answer, reason: str
) -> None:
    server.answers = [answer] * 2
    with pytest.raises(SourceError, match=reason):
        fetch(server, target)
    assert os.listdir(target.parent) == []


def test_redirects_in_a_circle_end(server: FileServer, target: Path) -> None:
    server.answers = [sent(302, Location="/file.bin")] * 50
    assert "without end" in failure(server, target)


def test_a_page_does_not_cost_what_has_come(server: FileServer, target: Path) -> None:
    part_of(target).write_bytes(CONTENT[:1000])
    server.answers = [sent(200, PAGE, Content_Type="text/html", Content_Length=len(PAGE))]
    with pytest.raises(SourceError, match="a web page"):
        fetch(server, target)
    assert part_of(target).read_bytes() == CONTENT[:1000]


def test_a_server_that_is_not_there(server: FileServer, target: Path) -> None:
    server.url = "http://127.0.0.1:1/file.bin"
    assert "refused" in failure(server, target)


def test_an_address_that_is_none(server: FileServer, target: Path) -> None:
    server.url = "http://127.0.0.1:port/file.bin"
    assert "port" in failure(server, target)


def test_a_certificate_that_is_not_trusted_names_the_variable(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise URLError(ssl.SSLCertVerificationError("self-signed certificate"))

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", refuse)
    assert "SSL_CERT_FILE" in failure(server, target)


def test_the_proxy_of_the_environment_is_used(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/file.bin"))
    monkeypatch.setenv("no_proxy", "")
    server.url = "http://weights.invalid/net.bin"
    fetch(server, target)
    assert server.paths == ["http://weights.invalid/net.bin"]


def test_a_full_disk_is_one_error_and_is_not_kept_full(server: FileServer, target: Path) -> None:
    with files_limited_to(300_000), pytest.raises(OutputError, match=r"net\.bin\.part: cannot be"):
        fetch(server, target)
    assert os.listdir(target.parent) == []


def test_a_download_under_way_in_another_process_is_left_alone(
    server: FileServer, target: Path
) -> None:
    with part_of(target).open("wb") as other:
        other.write(CONTENT[:10])
        other.flush()
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="another process is fetching it"):
            fetch(server, target)
    assert part_of(target).read_bytes() == CONTENT[:10]
    assert server.ranges == []


def test_a_link_in_place_of_the_part_is_not_followed(server: FileServer, target: Path) -> None:
    precious = target.with_name("precious")
    precious.write_bytes(b"data")
    part_of(target).symlink_to(precious)
    with pytest.raises(IncompatibleFileError, match="it is a link"):
        fetch(server, target)
    assert precious.read_bytes() == b"data"
