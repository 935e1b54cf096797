"""Measure what `duplicates` finds of copies that were made, and what it claims wrongly.

    python tools/duplicates_figures.py FOLDER [--photographs 2000] [--edited 200] [--json FILE]

Some of the folder's photographs are indexed with copies of some of them, edited in each of the ways
below. Recall: of the copies made, those in a group with their original. Precision: of the copies
claimed, those made of the photograph that the first of their group is, or was made of. Others count
as wrong, though the folder may hold a photograph twice; they are listed, to be looked at.
"""

import argparse
import io
import json
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageEnhance

from alexnet_deploy.index.duplicate_groups import Duplicates
from alexnet_deploy.index.duplicates import find_duplicates
from alexnet_deploy.index.opening import update_index
from alexnet_deploy.photographs.finding import find_photographs

ORIGINAL = "photographs as they came"
Turn = Image.Transpose


def encoded(picture: Image.Image, form: str = "JPEG", **options: object) -> bytes:
    """Return a picture as a file's bytes; a JPEG of quality 90 unless told otherwise."""
    file = io.BytesIO()
    picture.save(file, form, **{"quality": 90, **options} if form == "JPEG" else options)
    return file.getvalue()


def on_its_side(picture: Image.Image) -> bytes:
    """Return a PNG whose pixels lie on their side and whose EXIF says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(picture.transpose(Turn.ROTATE_90), "PNG", exif=exif)


def cropped(share: float) -> Callable[[Image.Image], bytes]:
    """Return what cuts a share of the area off, at the sides where it falls."""

    def edit(picture: Image.Image) -> bytes:
        kept = (1 - share) ** 0.5
        draw = random.Random(picture.tobytes())
        left, top = (draw.uniform(0, (1 - kept) * side) for side in picture.size)
        right, bottom = left + kept * picture.width, top + kept * picture.height
        return encoded(picture.crop((round(left), round(top), round(right), round(bottom))))

    return edit


COPIES: dict[str, dict[str, Callable[[Image.Image], bytes]]] = {
    "same bytes": {"the same bytes": lambda picture: b""},
    "same pixels": {
        "as PNG": lambda picture: encoded(picture, "PNG"),
        "as PNG on its side, with EXIF": on_its_side,
    },
    "nearly the same": {
        "JPEG of quality 50": lambda picture: encoded(picture, quality=50),
        "half the size": lambda picture: encoded(picture.reduce(2)),
        "grey": lambda picture: encoded(picture.convert("L")),
        "15 % brighter": lambda picture: encoded(ImageEnhance.Brightness(picture).enhance(1.15)),
        "turned by 90": lambda picture: encoded(picture.transpose(Turn.ROTATE_270)),
        "mirrored": lambda picture: encoded(picture.transpose(Turn.FLIP_LEFT_RIGHT)),
        "turned, grey, half the size": lambda picture: encoded(
            picture.reduce(2).transpose(Turn.ROTATE_180).convert("L")
        ),
        "5 % cut off": cropped(0.05),
        "10 % cut off": cropped(0.10),
        "20 % cut off": cropped(0.20),
        "20 % cut off, grey": lambda picture: cropped(0.20)(picture.convert("L")),
    },
}
"""By the answer in which they belong; b"" for the file itself."""


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photographs", type=int, default=2000)
    parser.add_argument("--edited", type=int, default=200)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    paths = list(find_photographs([arguments.folder]))
    paths = random.Random(0).sample(paths, min(arguments.photographs, len(paths)))
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        make(place / "photographs", paths, arguments.edited)
        update_index(place / "index", place / "photographs", notify=print)
        found = find_duplicates(place / "index", notify=print)
        figures = measured(found, place / "photographs", paths)
    print(found.line())
    print(*("\t".join(map(str, row.values())) for row in figures["rows"]), sep="\n")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


def make(place: Path, paths: list[Path], num_edited: int) -> None:
    """Copy photographs, and edit the first ones; a file's name is its photograph's number."""
    edits = {name: edit for some in COPIES.values() for name, edit in some.items()}
    for name in (ORIGINAL, *edits):
        (place / name).mkdir(parents=True)
    for number, path in enumerate(paths):
        shutil.copyfile(path, place / ORIGINAL / f"{number}{path.suffix}")
    for number, path in enumerate(paths[:num_edited]):
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        for name, edit in edits.items():
            (place / name / f"{number}.jpg").write_bytes(edit(picture) or path.read_bytes())


def measured(found: Duplicates, place: Path, paths: list[Path]) -> dict[str, Any]:
    """Return a row for each kind of copies, and all claims that two photographs are one."""
    originals = {path.stem: path for path in (place / ORIGINAL).iterdir()}
    first_of: dict[Path, Path] = {}
    rows, two = [], dict[tuple[str, ...], None]()

    def root(path: Path) -> Path:
        return root(first_of[path]) if path in first_of else path

    for kind, groups in found.kinds.items():
        claims = [(group.first, copy.path) for group in groups for copy in group.copies]
        first_of.update((copy, first) for first, copy in claims)
        others = {copy.parent.name for _, copy in claims} - COPIES[kind].keys()
        for name, names in [*((name, {name}) for name in COPIES[kind]), ("others", others)]:
            own = [(first, copy) for first, copy in claims if copy.parent.name in names]
            made = [] if name == "others" else list((place / name).iterdir())
            num_found = sum(root(copy) == root(originals[copy.stem]) for copy in made)
            num_right = sum(first.stem == copy.stem for first, copy in own)
            row = {"kind": kind, "copies": name, "made": len(made), "claimed": len(own)}
            row["recall"] = num_found / len(made) if made else None
            row["precision"] = num_right / len(own) if own else None
            rows.append(row)
        for both in claims:
            pair = tuple("/".join(paths[int(path.stem)].parts[-2:]) for path in both)
            two |= {pair: None} if len(set(pair)) == 2 else {}
    return {"photographs": len(paths), "rows": rows, "two_photographs": list(two)}


if __name__ == "__main__":
    main()
