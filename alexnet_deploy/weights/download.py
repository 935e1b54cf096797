"""Fetch a published file over HTTP: resumed where it broke off, and nothing if its hash is wrong.

What has come lies in a `.part` file, which a later call continues, from whatever server: only the
hash of the whole decides. Proxies are those of the environment (`https_proxy`, `no_proxy`).
"""

import http.client
import os
import re
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib import request
from urllib.error import HTTPError, URLError

from alexnet_deploy import __version__
from alexnet_deploy.errors import AlexNetDeployError, OutputError
from alexnet_deploy.files.locks import locked
from alexnet_deploy.files.output_files import errors_of
from alexnet_deploy.importing.containers import is_web_page
from alexnet_deploy.importing.known import KnownFile, file_digests

STALL_S = 30.0
"""Seconds without a byte after which a connection counts as broken."""

_CHUNK = 1 << 18
_MAX_BREAKS = 20
_STATUSES = {
    401: "asks for a login",
    403: "refuses it",
    404: "does not have it",
    407: "the proxy asks for a login; put it into https_proxy",
    410: "does not have it any more",
    429: "was asked too often; wait",
}

OnBytes = Callable[[int], None]
"""Called with the number of bytes that are there, whenever there are more."""


class SourceError(Exception):
    """A server does not give the file; the text says why, and others may be asked."""


class _BrokenError(Exception):
    """A connection ended early; the rest may come over another."""


@dataclass(slots=True)
class _Transfer:
    """A download under way.

    Attributes:
        url: of the file.
        file: what is expected.
        descriptor: of the `.part` file.
        part: its path.
        stall_s: as `STALL_S`.
        on_bytes: tells how far it is.
        validator: names the server's version of the file, "" before its first answer.
    """

    url: str
    file: KnownFile
    descriptor: int
    part: Path
    stall_s: float
    on_bytes: OnBytes
    validator: str = ""

    @property
    def size(self) -> int:
        """Bytes that are there."""
        return os.fstat(self.descriptor).st_size

    def cut(self) -> None:
        """Begin again."""
        with errors_of(self.part):
            os.ftruncate(self.descriptor, 0)

    def append(self, data: bytes) -> None:
        """Write after what is there."""
        view = memoryview(data)
        with errors_of(self.part):
            os.lseek(self.descriptor, 0, os.SEEK_END)
            while view:
                view = view[os.write(self.descriptor, view) :]
        self.on_bytes(self.size)


def download(
    url: str, target: Path, file: KnownFile, *, on_bytes: OnBytes, stall_s: float = STALL_S
) -> None:
    """Fetch `file` to `target`, which appears once it is whole and its hash is right.

    Ctrl-C and broken connections leave what has come in `target` with `.part` after its name.

    Raises:
        SourceError: the server does not give it, or another file.
        OutputError: it cannot be written, or another process is fetching it.
    """
    part = target.with_name(f"{target.name}.part")

    def refusal(_: int) -> AlexNetDeployError:
        return OutputError(f"{part}: another process is fetching it; wait for that to end")

    with locked(part, refusal) as descriptor:
        transfer = _Transfer(url, file, descriptor, part, stall_s, on_bytes)
        try:
            _fetch(transfer)
            with errors_of(target):
                os.fsync(descriptor)
                os.replace(part, target)
        except BaseException as error:
            # A full disk is not kept full.
            if isinstance(error, OutputError) or transfer.size == 0:
                with suppress(OSError):
                    part.unlink(missing_ok=True)
            raise


def _fetch(transfer: _Transfer) -> None:
    """Complete the part; one that was begun earlier gets a second chance from its beginning."""
    is_resumed = transfer.size > 0
    while True:
        _complete(transfer)
        with errors_of(transfer.part):
            came = file_digests(transfer.part)
        if transfer.file.is_hash_of(came):
            return
        transfer.cut()
        if not is_resumed:
            raise SourceError(f"sends another file: its SHA-256 is {came.sha256}")
        is_resumed = False


def _complete(transfer: _Transfer) -> None:
    """Fetch until the part has the size of the file."""
    for _ in range(_MAX_BREAKS):
        before = transfer.size
        if before == transfer.file.size:
            return
        try:
            _ask(transfer)
        except _BrokenError as error:
            if transfer.size <= before:
                raise SourceError(str(error)) from error
    raise SourceError(f"the connection broke {_MAX_BREAKS} times")


def _ask(transfer: _Transfer) -> None:
    """Ask for what is missing, and take it."""
    if transfer.size > transfer.file.size:
        transfer.cut()
    headers = {"User-Agent": f"alexnet-deploy/{__version__}", "Accept-Encoding": "identity"}
    start = transfer.size
    if start:
        headers["Range"] = f"bytes={start}-"
        if transfer.validator:
            headers["If-Range"] = transfer.validator
    try:
        opened = _opener().open(
            request.Request(transfer.url, headers=headers), timeout=transfer.stall_s
        )
        with opened as response:
            _check_answer(transfer, response, start)
            _take(transfer, response)
    except HTTPError as error:
        error.close()
        if error.code == 416 and start:  # it has no such part: ask for the whole
            transfer.cut()
            return
        raise SourceError(_status_text(error)) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _failure(error, transfer.stall_s) from error


def _opener() -> request.OpenerDirector:
    """Return what follows redirects and proxies, but opens HTTP and HTTPS alone."""
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler,
        request.UnknownHandler,
        request.HTTPHandler,
        request.HTTPSHandler,
        request.HTTPDefaultErrorHandler,
        request.HTTPRedirectHandler,
        request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


def _check_answer(transfer: _Transfer, response: http.client.HTTPResponse, start: int) -> None:
    """Hold the headers to what was asked for, before anything is overwritten."""
    size = transfer.file.size
    if response.status == 206:
        came = re.fullmatch(
            r"bytes (\d+)-\d+/(\d+|\*)", response.getheader("Content-Range", "").strip()
        )
        if came is None or int(came[1]) != start:
            raise SourceError("sends another part than was asked for")
        if came[2] not in ("*", str(size)):
            raise SourceError(f"has {int(came[2]):,} bytes, expected {size:,}: it is another file")
    else:
        length = response.getheader("Content-Length", "")
        if length.isdecimal() and int(length) != size:
            if "html" in response.getheader("Content-Type", ""):
                raise SourceError(_page_text())
            raise SourceError(f"has {int(length):,} bytes, expected {size:,}: it is another file")
        transfer.cut()
    etag = response.getheader("ETag", "")
    is_strong = etag.startswith('"')
    transfer.validator = etag if is_strong else response.getheader("Last-Modified", "")


def _take(transfer: _Transfer, response: http.client.HTTPResponse) -> None:
    """Write what comes."""
    size = transfer.file.size
    while data := response.read1(_CHUNK):
        if transfer.size == 0 and is_web_page(data):
            raise SourceError(_page_text())
        if transfer.size + len(data) > size:
            transfer.cut()
            raise SourceError(f"sends more than the {size:,} bytes of the file")
        transfer.append(data)
    if transfer.size < size:
        raise _BrokenError(f"ended after {transfer.size:,} of {size:,} bytes")


def _failure(error: Exception, stall_s: float) -> Exception:
    """Say why there is no connection, or why it broke."""
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return SourceError(
            f"its certificate is not trusted ({reason}); if a proxy of your network "
            "stands between, name its certificates in SSL_CERT_FILE"
        )
    if isinstance(reason, socket.gaierror):
        return SourceError("its name is not known here: there is no network, or a proxy is needed")
    if isinstance(reason, TimeoutError):
        return _BrokenError(f"has sent nothing for {stall_s:g} seconds")
    if isinstance(reason, (OSError, http.client.IncompleteRead)):
        return _BrokenError(f"the connection broke ({reason})")
    return SourceError(f"does not answer as a web server should ({reason})")


def _status_text(error: HTTPError) -> str:
    if error.code in _STATUSES:
        return f"{_STATUSES[error.code]} ({error.code})"
    if 300 <= error.code < 400:
        return f"sends to other addresses without end, or to one that is none ({error.code})"
    return f"fails ({error.code} {error.reason})"


def _page_text() -> str:
    return "answers with a web page, such as a login, in place of the file"
