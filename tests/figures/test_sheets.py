"""The PNG of a search: what is drawn where, read back from its pixels."""

import dataclasses
import io
import itertools
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from alexnet_deploy.errors import OutputError, UsageError
from alexnet_deploy.figures import sheets
from alexnet_deploy.figures.sheets import MAX_ROWS, check_sheet, draw_sheet, open_sheet
from tests.support.fake_runner import UNSPOKEN, save_photograph
from tests.support.sheet_samples import TEXT, PhotographsAlive, row, save_colours

BOX = (216, 162)
QUERY_COLOUR = (250, 0, 7)
FAILED = ImageColor.getrgb("#faf1f0")
INK, QUIET = ImageColor.getrgb("#1c1f24"), ImageColor.getrgb("#757b85")


def places(
    sheet: Image.Image, colours: Sequence[tuple[int, ...]]
) -> list[tuple[int, int, int, int]]:
    """Return the left, top, width and height of what has each colour."""
    # One number a pixel: red, green, blue and a constant fourth byte.
    pixels = np.asarray(sheet.convert("RGBA")).view("<u4")[:, :, 0]
    found = []
    for red, green, blue in colours:
        mask = pixels == (red | green << 8 | blue << 16 | 255 << 24)
        columns, rows = mask.any(axis=0).nonzero()[0], mask.any(axis=1).nonzero()[0]
        left, top = int(columns[0]), int(rows[0])
        found.append((left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1))
    return found


def place(sheet: Image.Image, colour: tuple[int, ...]) -> tuple[int, int, int, int]:
    return places(sheet, [colour])[0]


def area(sheet: Image.Image, colour: tuple[int, ...]) -> int:
    """Return how many px have a colour."""
    colours = sheet.convert("RGB").getcolors(sheet.width * sheet.height) or []
    return {of: num for num, of in colours}.get(colour, 0)


@pytest.mark.parametrize("num_neighbours", [1, 2, 7, 10, 100])
def test_neighbours_follow_the_query_line_by_line(tmp_path: Path, num_neighbours: int) -> None:
    colours = [(7, number, 250) for number in range(num_neighbours)]
    query, *paths = save_colours(tmp_path, [QUERY_COLOUR, *colours])
    sheet = draw_sheet([row(query, paths)], TEXT)
    left, top, width, height = place(sheet, QUERY_COLOUR)
    assert (width, height) == BOX
    drawn = places(sheet, colours)
    # The order of reading: by the line, then from left to right.
    assert sorted(drawn, key=lambda p: (p[1], p[0])) == drawn
    assert drawn[0][1] == top
    assert all(p[0] > left + width for p in drawn), "nothing below the query"
    assert {p[2:] for p in drawn} == {BOX}
    assert len(set(drawn)) == num_neighbours
    assert 0.5 < sheet.width / sheet.height < 3


def test_every_query_has_a_row_of_its_own(tmp_path: Path) -> None:
    queries = save_colours(tmp_path, [(250, number, 7) for number in range(5)])
    neighbours = save_colours(tmp_path, [(7, number, 250) for number in range(10)])
    sheet = draw_sheet([row(query, neighbours) for query in queries], TEXT)
    rows = places(sheet, [(250, number, 7) for number in range(5)])
    assert len({left for left, *_ in rows}) == 1
    assert len({b[1] - a[1] for a, b in itertools.pairwise(rows)}) == 1
    # Every neighbour is drawn five times, on one line each, under the same column.
    colours = [(7, number, 250) for number in range(10)]
    assert {area(sheet, colour) for colour in colours} == {5 * BOX[0] * BOX[1]}
    assert {width for _, _, width, _ in places(sheet, colours)} == {BOX[0]}


def test_the_query_alone_has_a_frame(tmp_path: Path) -> None:
    query, neighbour = save_colours(tmp_path, [QUERY_COLOUR, (1, 2, 250)])
    sheet = draw_sheet([row(query, [neighbour])], TEXT)
    for colour, framed in ((QUERY_COLOUR, True), ((1, 2, 250), False)):
        left, top, width, height = place(sheet, colour)
        for x, y in ((left - 6, top + 80), (left + width + 5, top + 80), (left + 90, top - 6)):
            assert (sheet.getpixel((x, y)) == INK) == framed
        assert height == BOX[1]


def test_what_cannot_be_read_is_a_box_with_the_reason(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(b"\xff\xd8\xff and no more")
    query = save_photograph(tmp_path / "q.png", QUERY_COLOUR)
    sheet = draw_sheet([row(query, [tmp_path / "gone.png", damaged])], TEXT)
    assert area(sheet, FAILED) > 2 * 0.8 * BOX[0] * BOX[1]
    failed = draw_sheet([row(query, error="is empty " * 40)], TEXT)
    assert 0.5 * BOX[0] * BOX[1] < area(failed, FAILED) < BOX[0] * BOX[1]
    assert area(failed, QUERY_COLOUR) == 0


def test_a_query_without_neighbours_says_so_and_a_failed_one_does_not(tmp_path: Path) -> None:
    query = save_photograph(tmp_path / "q.png", QUERY_COLOUR)
    lonely = draw_sheet([row(query)], TEXT)
    failed = draw_sheet([row(query, error="is empty")], TEXT)
    beside = (280, 48, lonely.width, 48 + BOX[1])
    assert area(lonely.crop(beside), QUIET) > 50
    assert area(failed.crop(beside), QUIET) == 0


def test_the_query_from_standard_input_is_drawn_from_its_bytes(tmp_path: Path) -> None:
    data = save_photograph(tmp_path / "q.png", QUERY_COLOUR).read_bytes()
    with open_sheet(tmp_path / "s.png", TEXT) as add:
        add(row(data))
    with Image.open(tmp_path / "s.png") as sheet:
        assert place(sheet, QUERY_COLOUR)[2:] == BOX


@pytest.mark.parametrize("size", [(3000, 20), (20, 3000), (1, 1), (5000, 1)])
def test_photographs_of_odd_shapes_can_be_seen(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "odd.png"
    Image.new("RGB", size, QUERY_COLOUR).save(path)
    width, height = place(draw_sheet([row(path)], TEXT), QUERY_COLOUR)[2:]
    assert max(width / BOX[0], height / BOX[1]) == 1
    assert min(width, height) >= 20


def test_transparent_photographs_lie_over_white(tmp_path: Path) -> None:
    path = tmp_path / "clear.png"
    Image.new("RGBA", (216, 162), (0, 0, 0, 0)).save(path)
    sheet = draw_sheet([row(path)], TEXT)
    assert sheet.crop((48, 48, 48 + 216, 48 + 162)).getcolors() == [(216 * 162, (255,) * 3)]


def test_names_of_any_length_and_letters_stay_under_their_photograph(tmp_path: Path) -> None:
    names = ["n" * 251, UNSPOKEN, "\u5199" * 60, "<script>", "W" * 100 + "/" + "W" * 100]
    paths = [save_photograph(tmp_path / f"{name}.png", (3, 3, 3)) for name in names]
    sheet = draw_sheet([row(path, [path]) for path in paths], TEXT)
    left = 48 + BOX[0]
    frame, gap = 7, 48
    for strip in ((left + frame + 1, left + gap), (sheet.width - 48, sheet.width)):
        part = sheet.crop((strip[0], 0, strip[1], 48 + BOX[1] + 96))
        assert len(part.getcolors() or []) == 1


def test_the_measure_that_ranked_is_drawn_first(tmp_path: Path) -> None:
    path = save_photograph(tmp_path / "1.png", (1, 1, 1))
    cosine = draw_sheet([row(path, [path])], TEXT)
    l2 = draw_sheet([row(path, [path], metric="l2")], TEXT)
    caption = (312, 48 + BOX[1], 312 + 90, 48 + BOX[1] + 40)
    # "0.900" is wider than "5.00".
    assert place(cosine.crop(caption), INK)[2] > place(l2.crop(caption), INK)[2]


def test_photographs_are_in_memory_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = PhotographsAlive(monkeypatch)
    path = save_photograph(tmp_path / "1.png", (1, 1, 1))
    draw_sheet([row(path, [path] * 6)] * 3, TEXT)
    assert (alive.num_loaded, alive.most) == (21, 1)


def test_a_png_shows_the_first_queries_and_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    path = tmp_path / "s.png"
    with open_sheet(path, TEXT, notify=said.append) as add:
        for number in range(MAX_ROWS + 3):
            add(row(Path(f"{number}.png"), error="is empty"))
    assert said == [f"{path}: shows the first 64 of 67 queries; name it .html to see all"]


@pytest.mark.parametrize(
    ("nums_neighbours", "drawn", "said"),
    [
        ([9, 8], [9, 8], []),
        ([9, 9, 3], [9], ["shows the first 1 of 3 queries"]),
        ([25], [19], ["shows the first 19 of 25 neighbours"]),
        (
            [25, 1],
            [19],
            ["shows the first 1 of 2 queries", "shows the first 19 of 25 neighbours"],
        ),
    ],
)
def test_a_png_shows_whole_rows_while_there_is_room(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    nums_neighbours: list[int],
    drawn: list[int],
    said: list[str],
) -> None:
    monkeypatch.setattr(sheets, "MAX_PHOTOGRAPHS", 20 if drawn != [9] else 15)
    neighbour = save_photograph(tmp_path / "1.png", (1, 2, 250))
    heard: list[str] = []
    path = tmp_path / "s.png"
    with open_sheet(path, TEXT, notify=heard.append) as add:
        for num in nums_neighbours:
            add(row(tmp_path / "q.png", [neighbour] * num))
    assert heard == [f"{path}: {line}; name it .html to see all" for line in said]
    with Image.open(path) as sheet:
        assert area(sheet, (1, 2, 250)) == sum(drawn) * BOX[0] * BOX[1]


def test_letters_that_cannot_be_drawn_are_reported(tmp_path: Path) -> None:
    said: list[str] = []
    path = save_photograph(tmp_path / "\u5199\u771f.png", (1, 1, 1))
    with open_sheet(tmp_path / "s.png", TEXT, notify=said.append) as add:
        add(row(tmp_path / "q.png", [path, path]))
    assert said == [
        f"{tmp_path / 's.png'}: names have letters that the built-in font lacks; "
        "an .html sheet shows them"
    ]


@pytest.mark.parametrize("name", ["s.jpg", "s", "-", "s.png.gz"])
def test_a_sheet_is_png_or_html(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"\.png or \.html"):
        check_sheet(tmp_path / name)
    with (
        pytest.raises(UsageError, match=r"\.png or \.html"),
        open_sheet(tmp_path / name, TEXT),
    ):
        pytest.fail("opened")
    assert list(tmp_path.iterdir()) == []
    check_sheet(tmp_path / "s.PNG")
    check_sheet(tmp_path / "s.Html")


@pytest.mark.parametrize("name", ["s.png", "s.html"])
def test_a_missing_folder_shows_before_the_first_result(tmp_path: Path, name: str) -> None:
    with (
        pytest.raises(OutputError, match="create its folder"),
        open_sheet(tmp_path / "no" / name, TEXT),
    ):
        pytest.fail("opened")


@pytest.mark.parametrize("name", ["s.png", "s.html"])
def test_a_sheet_without_results_and_one_that_is_broken_off(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with open_sheet(path, TEXT):
        pass
    before = path.read_bytes()
    assert before

    def break_off() -> None:
        with open_sheet(path, TEXT) as add:
            add(row(tmp_path / "q.png"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["s.png", "s.html"])
def test_a_sheet_can_go_through_a_pipe(tmp_path: Path, name: str) -> None:
    path = save_photograph(tmp_path / "1.png", (1, 1, 1))
    pipe = tmp_path / name
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    with open_sheet(pipe, TEXT) as add:
        add(row(path, [path]))
    reader.join(10)
    if name.endswith(".png"):
        with Image.open(io.BytesIO(read[0])) as image:
            image.load()
    else:
        assert read[0].endswith(b"</html>\n")


def test_a_row_of_real_photographs_fills_most_of_its_boxes(caltech_test: Path) -> None:
    paths = sorted(caltech_test.glob("hedgehog/*.jpg"))[:8]
    sheet = draw_sheet([row(paths[0], paths[1:])], TEXT)
    ground = area(sheet, ImageColor.getrgb("#f3f5f8"))
    assert ground < 0.5 * len(paths) * BOX[0] * BOX[1]


def test_a_title_moves_its_row_down_and_an_empty_frame_is_not_drawn(tmp_path: Path) -> None:
    lead, other = save_colours(tmp_path, [QUERY_COLOUR, (1, 2, 250)])
    plain, without = row(lead, [other]), row(other, [other])
    titled = dataclasses.replace(plain, title="dog taken for cat")
    before, after = (draw_sheet([one], TEXT) for one in (plain, titled))
    left, top = place(before, QUERY_COLOUR)[:2]
    assert place(after, QUERY_COLOUR)[:2] == (left, top + 48)
    assert (after.width, after.height) == (before.width, before.height + 48)
    assert area(after.crop((0, 0, after.width, 48 + 30)), INK) > 0
    empty = draw_sheet([dataclasses.replace(without, lead=None)], TEXT)
    assert area(empty, (1, 2, 250)) == BOX[0] * BOX[1]
    assert len(empty.crop((0, 0, 48 + BOX[0] + 24, 48 + BOX[1] + 90)).getcolors() or []) == 1
