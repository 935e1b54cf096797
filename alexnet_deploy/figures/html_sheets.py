"""Write a sheet as one self-contained page: no other files, no network, no script.

Thumbnails are JPEGs inside the page, each there once however often it is shown. The page is written
row by row, with one photograph in memory, and a name for each that it has.
"""

import base64
import hashlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import BinaryIO

from PIL import Image

from alexnet_deploy.errors import PhotographError
from alexnet_deploy.figures.drawing import FAILED, FAILED_INK, FRAME, INK, PAPER, TRACK, fitted
from alexnet_deploy.figures.sheet_cells import MAX_RATIO, Cell, SheetRow, SheetText
from alexnet_deploy.files.path_text import printable

_WIDTH, _HEIGHT = 400, 300  # px; shown at half that size, so sharp on high-density screens
_JPEG_QUALITY = 80
_NAME_LENGTH = 64  # characters; the whole path is the link's title

# Nothing but the page itself can be loaded, whatever a file's name contains.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_LIGHT = (
    f"--ink:{INK};--quiet:#686e78;--paper:{PAPER};--ground:{TRACK};--frame:{FRAME};"
    f"--failed:{FAILED};--failed-ink:{FAILED_INK}"
)
_DARK = (
    "--ink:#e7e9ed;--quiet:#9ba2ad;--paper:#16181c;--ground:#23272d;--frame:#363c45;"
    "--failed:#3a2422;--failed-ink:#ffb4ab"
)
_STYLE = (
    f"""\
:root {{ color-scheme: light dark; {_LIGHT} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_DARK} }} }}
"""
    """\
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 110rem; padding: 1rem clamp(1rem, 3vw, 3rem) 3rem;
  background: var(--paper); color: var(--ink); font: 0.875rem/1.4 system-ui, sans-serif }
h1 { margin: 0.5rem 0 0.25rem; font-size: 1.25rem }
header p, .quiet { margin: 0; color: var(--quiet) }
header { padding-bottom: 1.25rem }
section { display: grid; grid-template-columns: 13rem minmax(0, 1fr); gap: 2rem;
  align-items: start; padding: 1.75rem 0; border-top: 1px solid var(--frame) }
h2 { grid-column: 1 / -1; margin: 0; font-size: 1.0625rem; overflow-wrap: anywhere }
ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr));
  gap: 1.5rem 1rem; margin: 0; padding: 0; list-style: none }
figure { margin: 0; min-width: 0 }
.lead { position: sticky; top: 1.25rem }
.lead .photograph { outline: 3px solid var(--ink); outline-offset: 2px }
a { display: block }
a:hover, a:focus-visible { outline: 3px solid var(--quiet); outline-offset: 2px }
.photograph { display: block; width: 100%; height: auto; aspect-ratio: 4 / 3;
  background: var(--ground) }
.failed { display: grid; place-items: center; padding: 0.75rem; text-align: center;
  border: 1px solid var(--frame); background: var(--failed); color: var(--failed-ink);
  overflow-wrap: anywhere }
figcaption { margin-top: 0.5rem; overflow-wrap: anywhere }
.measures { display: flex; flex-wrap: wrap; align-items: baseline;
  justify-content: space-between; gap: 0 0.5rem; font-variant-numeric: tabular-nums }
.measures strong { font-size: 1.0625rem }
.folder, .name { display: block }
@media (max-width: 44rem) {
  section { grid-template-columns: minmax(0, 1fr); gap: 1.5rem }
  ol { grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)) }
  .lead { position: static; max-width: 16rem }
}
@media print { .lead { position: static } figure { break-inside: avoid } }
"""
)


@contextmanager
def html_page(file: BinaryIO, text: SheetText) -> Iterator[Callable[[SheetRow], None]]:
    """Write the page's head, yield a function that adds one row, then write its end.

    Args:
        file: written sequentially; need not be seekable.
        text: what the page says of itself.
    """
    thumbnails = _Thumbnails()

    def add(row: SheetRow) -> None:
        for piece in _section(row, thumbnails):
            file.write(piece.encode())

    file.write(_head(text).encode())
    yield add
    file.write(b"</main>\n</body>\n</html>\n")


def _head(text: SheetText) -> str:
    return f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{text.title}</title>
<style>
{_STYLE}</style>
</head>
<body>
<header>
<h1>{text.title}</h1>
<p>{text.legend}</p>
</header>
<main>
"""


def _section(row: SheetRow, thumbnails: "_Thumbnails") -> Iterator[str]:
    """Yield a row piece by piece, one thumbnail in memory at a time."""
    title = f"<h2>{escape(printable(row.title))}</h2>\n" if row.title else ""
    lead = "" if row.lead is None else _figure(row.lead, thumbnails)
    yield f'<section>\n{title}<div class="lead">\n{lead}</div>\n'
    if row.cells:
        yield "<ol>\n"
        for cell in row.cells:
            yield f"<li>{_figure(cell, thumbnails)}</li>\n"
        yield "</ol>\n"
    elif row.nothing:
        yield f'<p class="quiet">{row.nothing}</p>\n'
    yield "</section>\n"


def _figure(cell: Cell, thumbnails: "_Thumbnails") -> str:
    """Return photograph and caption; the photograph links to its file."""
    try:
        photograph = thumbnails.element(cell)
        if cell.path is not None:
            photograph = f'<a href="{escape(cell.path.absolute().as_uri())}">{photograph}</a>'
    except PhotographError as error:
        photograph = f'<div class="photograph failed">{escape(printable(str(error)))}</div>'
    names = "".join(
        f'<span class="{kind}"><bdi>{escape(_shortened(name))}</bdi></span>'
        for kind, name in (("folder", cell.folder), ("name quiet", cell.name))
        if name
    )
    return f"""\
<figure title="{escape(cell.full_name)}">{photograph}
<figcaption><span class="measures"><strong>{escape(cell.heading)}</strong>
<span class="quiet">{escape(cell.remark)}</span></span>{names}</figcaption></figure>
"""


class _Thumbnails:
    """The thumbnails of a page: the first place of each holds its pixels, the others point there.

    Only SVG can point without a script and be printed, so all are in it.
    """

    def __init__(self) -> None:
        self._sizes: list[tuple[int, int]] = []
        self._numbers: dict[str | bytes, int] = {}  # by path without links, and by hash of the JPEG

    def element(self, cell: Cell) -> str:
        """Return the photograph as an element.

        Raises:
            PhotographError: the reason why it cannot be decoded.
        """
        path = "" if cell.path is None or cell.error else os.path.realpath(cell.path)
        number, inside = self._numbers.get(path), ""
        if number is None:
            number, inside = self._added(cell.image())
            if path:
                self._numbers[path] = number
        width, height = self._sizes[number]
        inside = inside or f'<use href="#p{number}"/>'
        label = escape(f"{cell.folder}{cell.name}")
        return (
            f'<svg class="photograph" role="img" aria-label="{label}" '
            f'viewBox="0 0 {width} {height}">{inside}</svg>'
        )

    def _added(self, photograph: Image.Image) -> tuple[int, str]:
        """Return the thumbnail's number and, unless the page has it, the element of its pixels."""
        small = fitted(photograph, _WIDTH, _HEIGHT, enlarge=False, max_ratio=MAX_RATIO)
        file = io.BytesIO()
        small.save(file, format="JPEG", quality=_JPEG_QUALITY, optimize=True)
        jpeg = file.getvalue()
        number = self._numbers.setdefault(hashlib.sha256(jpeg).digest(), len(self._sizes))
        if number < len(self._sizes):
            return number, ""
        self._sizes.append(small.size)
        data = base64.b64encode(jpeg).decode("ascii")
        return number, (
            f'<image id="p{number}" width="{small.width}" height="{small.height}" '
            f'href="data:image/jpeg;base64,{data}"/>'
        )


def _shortened(name: str) -> str:
    """Truncate a long name in the middle; the browser wraps the rest."""
    if len(name) <= _NAME_LENGTH:
        return name
    kept = _NAME_LENGTH // 2
    return f"{name[:kept]}...{name[-kept:]}"
