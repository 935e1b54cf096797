"""Runs of `prepare` on the folders of class_pictures.py, to their end or not."""

import threading
from contextlib import suppress
from pathlib import Path

from tests.support.class_pictures import SIZE, UNSPOKEN
from training.pictures import PictureForm
from training.prepare import PrepareReport, prepare

STORED = {
    "bee/1.jpg": "bee/1.jpg",
    "bee/2.png": "bee/2.png.jpg",
    "bee/more/2.png": "bee/more/2.png.jpg",
    "cow/1.jpeg": "cow/1.jpeg",
    "cow/1x1.png": "cow/1x1.png.jpg",
    "cow/2.PNG": "cow/2.PNG.jpg",
    f"elk/{UNSPOKEN}": f"elk/{UNSPOKEN}.jpg",
    "elk/small.bmp": "elk/small.bmp.jpg",
}
"""What each good photograph is stored as."""
FORM = PictureForm(size=SIZE)


def run(source: Path, target: Path, *, form: PictureForm = FORM, threads: int = 2) -> PrepareReport:
    return prepare(source, target, form=form, threads=threads)


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file in a folder, hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def interrupted_run(source: Path, target: Path, after: int) -> None:
    """Stop with Ctrl-C after some photographs."""
    num_done = 0

    def stop(path: Path, error: str | None) -> None:
        nonlocal num_done
        if num_done == after:
            raise KeyboardInterrupt
        num_done += 1

    with suppress(KeyboardInterrupt):
        prepare(source, target, form=FORM, threads=2, on_result=stop)
    wait_for_threads()


def wait_for_threads() -> None:
    """Let those end that were storing a picture when a run stopped."""
    for thread in threading.enumerate():
        if thread.name.startswith("decode"):
            thread.join()
