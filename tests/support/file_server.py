"""A local web server of one file, which can stall, break off, redirect and lie."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer:
    """What the server answers, and what it was asked.

    Attributes:
        url: of the file; any other path gives it, too.
        content: of the file.
        etag: its version.
        answers: what the next requests get, one each; a request after them gets `whole`.
        ranges: the header Range of each request, "" where there was none.
        paths: of the requests.
    """

    def __init__(self, url: str, content: bytes) -> None:
        self.url, self.content, self.etag = url, content, '"1"'
        self.answers: list[Answer] = []
        self.ranges: list[str] = []
        self.paths: list[str] = []
        self.released = threading.Event()


class Request(BaseHTTPRequestHandler):
    """One request, with what it is answered."""

    file: FileServer  # set in a subclass, one for each server
    wbufsize = 1 << 16  # so that a small file comes in the same pieces each time

    def do_GET(self) -> None:
        self.file.ranges.append(self.headers.get("Range", ""))
        self.file.paths.append(self.path)
        answer = self.file.answers.pop(0) if self.file.answers else whole
        answer(self)

    def head(self, status: int, **headers: str | int) -> None:
        """Send the status and headers, with "-" for "_" in their names."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def part(self) -> bytes:
        """Send the headers of what was asked for, and return the bytes to be sent."""
        content, etag = self.file.content, self.file.etag
        asked = self.headers.get("Range", "")
        if not asked or self.headers.get("If-Range", etag) != etag:
            self.head(200, Content_Length=len(content), ETag=etag)
            return content
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            self.head(416, Content_Range=f"bytes */{len(content)}")
            return b""
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.head(206, Content_Length=len(content) - start, Content_Range=span, ETag=etag)
        return content[start:]

    def log_message(self, *_: object) -> None:
        """Say nothing on stderr."""


Answer = Callable[[Request], None]


def whole(request: Request) -> None:
    """Answer as a web server should."""
    request.wfile.write(request.part())


def ignoring_range(request: Request) -> None:
    """Send all of the file, whatever part was asked for."""
    del request.headers["Range"]
    whole(request)


def broken_after(num_bytes: int) -> Answer:
    """End the connection early."""

    def answer(request: Request) -> None:
        request.wfile.write(request.part()[:num_bytes])

    return answer


def stalled_after(num_bytes: int) -> Answer:
    """Send no more, but keep the connection."""

    def answer(request: Request) -> None:
        request.wfile.write(request.part()[:num_bytes])
        request.wfile.flush()
        request.file.released.wait()

    return answer


def sent(status: int, body: bytes = b"", **headers: str | int) -> Answer:
    """Send exactly this."""

    def answer(request: Request) -> None:
        request.head(status, **headers)
        request.wfile.write(body)

    return answer


@contextmanager
def serving(content: bytes) -> Iterator[FileServer]:
    """Serve a file to this machine."""

    class Handler(Request):
        """Of this server alone."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        file = FileServer(f"http://127.0.0.1:{server.server_port}/file.bin", content)
        Handler.file = file
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield file
        finally:
            file.released.set()
            server.shutdown()
            thread.join()
