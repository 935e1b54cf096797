"""The page of a search, as a browser would read it."""

import base64
import dataclasses
import io
import os
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

import pytest
from PIL import Image

from alexnet_deploy.figures.html_sheets import html_page
from alexnet_deploy.figures.sheet_cells import SheetRow
from alexnet_deploy.files.path_text import printable
from tests.support.fake_runner import UNSPOKEN, save_photograph
from tests.support.sheet_samples import TEXT, PhotographsAlive, row, save_colours

NASTY = ("<script>alert(1)<", "a\"b' onerror='x", "&amp;.png", "\u5199\u771f", "n" * 200, UNSPOKEN)
JPEG = "data:image/jpeg;base64,"


class Page(HTMLParser):
    """What a page holds; wrongly nested elements are errors."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: dict[str, list[str]] = {}
        self.text = ""
        self.pixels: dict[str, Image.Image] = {}
        self.shown: list[str] = []
        self._open: list[str] = []
        self.feed(page.decode("utf-8"))
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = {name: value or "" for name, value in attrs}
        href = given.get("href", "")
        if tag == "image":
            jpeg = base64.b64decode(given.pop("href").removeprefix(JPEG), validate=True)
            self.pixels[given["id"]] = Image.open(io.BytesIO(jpeg))
            self.shown.append(given["id"])
        elif tag == "use":
            assert given.pop("href") in {f"#{name}" for name in self.pixels}
            self.shown.append(href.removeprefix("#"))
        for name, value in given.items():
            self.attributes.setdefault(name, []).append(value)
        if tag != "meta":
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def photographs(self) -> list[Image.Image]:
        """Return what is shown, in order."""
        return [self.pixels[name] for name in self.shown]


def page_of(*results: SheetRow) -> Page:
    file = io.BytesIO()
    with html_page(file, TEXT) as add:
        for one in results:
            add(one)
    return Page(file.getvalue())


def test_photographs_are_in_the_page_in_order_and_lead_to_their_files(tmp_path: Path) -> None:
    colours = [(250, 30 * number, 7) for number in range(8)]
    paths = save_colours(tmp_path, colours)
    page = page_of(row(paths[0], paths[1:4]), row(paths[4], paths[5:]))
    assert page.tags.count("section") == 2
    assert page.tags.count("figure") == 8
    assert page.tags.count("li") == 6
    for photograph, colour in zip(page.photographs(), colours, strict=True):
        assert photograph.size == (40, 30), "never enlarged"
        seen = photograph.getpixel((20, 15))
        assert isinstance(seen, tuple)
        # JPEG keeps one colour to within a few of 255 levels.
        assert max(abs(a - b) for a, b in zip(seen, colour, strict=True)) <= 4
    assert [Path(urlsplit(link).path) for link in page.attributes["href"]] == paths
    assert page.attributes["title"] == [str(path) for path in paths]
    assert page.attributes["aria-label"] == [f"{tmp_path.name}/{path.name}" for path in paths]
    assert "0.900L2 5.00" in page.text.replace("\n", "")


def test_nothing_comes_from_elsewhere(tmp_path: Path) -> None:
    path = save_photograph(tmp_path / "1.png", (1, 1, 1))
    page = page_of(row(path, [path]))
    assert {"script", "link", "iframe"} & set(page.tags) == set()
    assert all(link.startswith("file:///") for link in page.attributes["href"])
    assert any("default-src 'none'" in content for content in page.attributes["content"])
    assert "url(" not in page.text
    assert "@import" not in page.text


@pytest.mark.parametrize("name", NASTY)
def test_a_name_may_hold_anything(tmp_path: Path, name: str) -> None:
    path = save_photograph(tmp_path / name / f"{name}.png", (2, 2, 2))
    plain = page_of(row(tmp_path / "q", [save_photograph(tmp_path / "1.png", (1, 1, 1))]))
    page = page_of(row(tmp_path / "q", [path]))
    assert page.tags == plain.tags
    assert set(page.attributes) == set(plain.attributes)
    assert page.attributes["title"][1] == printable(path)
    link = urlsplit(page.attributes["href"][0])
    assert unquote_to_bytes(link.path) == os.fsencode(path)
    shown = printable(f"{name}.png")
    assert (shown if len(shown) <= 64 else f"{'n' * 32}...{'n' * 28}.png") in page.text


def test_a_relative_query_is_linked_from_where_it_was_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_photograph(tmp_path / "q.png", (1, 1, 1))
    monkeypatch.chdir(tmp_path)
    assert page_of(row(Path("q.png"))).attributes["href"] == [f"file://{tmp_path}/q.png"]


def test_what_cannot_be_read_is_a_reason_without_a_link(tmp_path: Path) -> None:
    page = page_of(
        row(tmp_path / "q.png", error="is <empty>"),
        row(tmp_path / "q.png", [tmp_path / "gone.png"]),
    )
    assert "is <empty>" in page.text
    assert "No such file or directory" in page.text
    assert page.photographs() == []
    assert "href" not in page.attributes
    assert "no neighbours" not in page.text


def test_a_query_without_neighbours_says_so(tmp_path: Path) -> None:
    page = page_of(row(save_photograph(tmp_path / "q.png", (1, 1, 1))))
    assert "no neighbours" in page.text


def test_the_query_from_standard_input_has_its_photograph_and_no_link(tmp_path: Path) -> None:
    path = save_photograph(tmp_path / "q.png", (1, 1, 1))
    page = page_of(row(path.read_bytes()))
    assert len(page.photographs()) == 1
    assert "href" not in page.attributes
    assert "standard input" in page.text


@pytest.mark.parametrize(
    ("size", "expected"),
    [((3000, 20), (160, 20)), ((20, 3000), (20, 160)), ((1600, 1200), (400, 300))],
)
def test_thumbnails_have_twice_the_px_of_their_place(
    tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    path = tmp_path / "1.png"
    Image.new("RGB", size).save(path)
    page = page_of(row(path))
    assert page.photographs()[0].size == expected
    assert page.attributes["width"] + page.attributes["height"] == [*map(str, expected)]
    assert page.attributes["viewbox"] == ["0 0 {} {}".format(*expected)]


def test_transparent_photographs_lie_over_white(tmp_path: Path) -> None:
    path = tmp_path / "1.png"
    Image.new("RGBA", (40, 30), (0, 0, 0, 0)).save(path)
    assert page_of(row(path)).photographs()[0].getpixel((20, 15)) == (255, 255, 255)


def test_the_page_suits_phones_and_dark_screens(tmp_path: Path) -> None:
    page = page_of()
    assert "width=device-width, initial-scale=1" in page.attributes["content"]
    assert page.attributes["charset"] == ["utf-8"]
    for rule in ("prefers-color-scheme: dark", "auto-fill", "sticky", "max-width: 44rem"):
        assert rule in page.text


def test_the_page_is_written_as_results_come_with_one_photograph_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = PhotographsAlive(monkeypatch)
    file = io.BytesIO()
    lengths = []
    with html_page(file, TEXT) as add:
        for shade in range(3):
            paths = save_colours(tmp_path, [(9, shade, number) for number in range(6)])
            add(row(paths[0], paths[1:]))
            lengths.append(file.tell())
    assert min(lengths[2] - lengths[1], lengths[1] - lengths[0]) > 6 * 300
    assert (alive.num_loaded, alive.most) == (18, 1)


def test_a_photograph_is_in_the_page_once_however_often_it_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = PhotographsAlive(monkeypatch)
    red, blue = save_colours(tmp_path, [(200, 0, 0), (0, 0, 200)])
    copy = tmp_path / "copy.png"
    copy.write_bytes(red.read_bytes())
    monkeypatch.chdir(tmp_path)
    page = page_of(
        row(Path(red.name), [blue, copy]), row(blue, [red]), row(red.read_bytes(), [blue])
    )
    assert len(page.pixels) == 2
    assert page.shown == ["p0", "p1", "p0", "p1", "p0", "p0", "p1"]
    assert alive.num_loaded == 4, "the two, the copy, and what has no path"


def test_a_title_stands_above_its_row_whatever_it_holds(tmp_path: Path) -> None:
    path = save_photograph(tmp_path / "q.png", (1, 1, 1))
    titled = dataclasses.replace(row(path, [path]), title="<b>dog\x1b taken for cat", lead=None)
    page = page_of(titled)
    assert "<b>dog\\x1b taken for cat" in page.text
    assert (page.tags.count("h2"), page.tags.count("b"), len(page.shown)) == (1, 0, 1)
    assert "h2" not in page_of(row(path, [path])).tags
