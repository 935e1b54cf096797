"""Finding photographs in awkward folders."""

import io
import os
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from alexnet_deploy.errors import PhotographError, UsageError
from alexnet_deploy.photographs.decoding import load_photograph
from alexnet_deploy.photographs.finding import find_photographs


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(*paths: str | Path, folder: Path, include_hidden: bool = False) -> list[str]:
    """Return what is found, as paths below `folder`."""
    photographs = find_photographs(paths, include_hidden=include_hidden)
    return [str(path.relative_to(folder)) for path in photographs]


def saved(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def test_files_of_a_folder_come_by_name_before_those_of_its_folders(tmp_path: Path) -> None:
    touch(tmp_path, "b.JPG", "a.png", "notes.txt", "sub/z.tif", "sub/deep/y.webp", "c.jpg/x.gif")
    expected = ["a.png", "b.JPG", "c.jpg/x.gif", "sub/z.tif", "sub/deep/y.webp"]
    assert found(tmp_path, folder=tmp_path) == expected


def test_hidden_and_service_folders_are_left_out_unless_asked(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "._a.jpg", ".b.jpg", "@eaDir/a.jpg", "#recycle/c.jpg")
    touch(tmp_path, ".thumbnails/d.jpg", "__MACOSX/e.jpg")
    assert found(tmp_path, folder=tmp_path) == ["a.jpg"]
    assert len(found(tmp_path, folder=tmp_path, include_hidden=True)) == 7
    # What is named itself is asked for.
    assert found(tmp_path / "@eaDir", folder=tmp_path) == ["@eaDir/a.jpg"]
    assert found(tmp_path / ".b.jpg", folder=tmp_path) == [".b.jpg"]


def test_links_cannot_loop_and_do_not_take_a_folder_s_own_path(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.jpg", "b/y.jpg")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "to_b").symlink_to(tmp_path / "b")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    assert found(tmp_path, folder=tmp_path) == ["a/x.jpg", "b/y.jpg"]


def test_a_folder_given_twice_comes_once(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.jpg", "y.jpg")
    given: list[str | Path] = [tmp_path, f"{tmp_path}/a/..", tmp_path / "a"]
    assert len(list(find_photographs(given))) == 2


@pytest.mark.parametrize("order", [1, -1])
def test_a_file_given_and_below_a_given_folder_comes_once(tmp_path: Path, order: int) -> None:
    touch(tmp_path, "a/x.jpg", "a/y.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    given = [tmp_path / "a" / "x.jpg", tmp_path / "a", tmp_path / "link" / "x.jpg"][::order]
    names = [path.name for path in find_photographs(given)]
    assert sorted(names) == ["x.jpg", "y.jpg"]


def test_a_link_to_a_photograph_is_an_input_of_its_own(tmp_path: Path) -> None:
    touch(tmp_path, "x.jpg")
    (tmp_path / "best.jpg").symlink_to(tmp_path / "x.jpg")
    assert found(tmp_path, folder=tmp_path) == ["best.jpg", "x.jpg"]
    given = [tmp_path / "x.jpg", tmp_path / "best.jpg"]
    assert found(*given, folder=tmp_path) == ["x.jpg", "best.jpg"]


def test_single_files_come_whatever_their_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "scan.xyz")
    assert found(tmp_path / "scan.xyz", folder=tmp_path) == ["scan.xyz"]


def test_patterns_are_expanded_unless_a_path_of_that_name_exists(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/b/2.jpg", "a/3.txt", "odd[1].jpg")
    assert found(f"{tmp_path}/**/*.jpg", folder=tmp_path) == ["a/1.jpg", "a/b/2.jpg", "odd[1].jpg"]
    assert found(f"{tmp_path}/odd[1].jpg", folder=tmp_path) == ["odd[1].jpg"]
    with pytest.raises(UsageError, match="matches nothing"):
        find_photographs([f"{tmp_path}/*.bmp"])


@pytest.mark.parametrize("missing", ["gone", "x.jpg/under", "", "a\0b", "n" * 300])
def test_a_missing_path_fails_at_the_call(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "x.jpg")
    with pytest.raises(UsageError, match="give a photograph, a folder, or a pattern"):
        find_photographs(["x.jpg", missing])


def test_a_path_in_bytes_is_refused_as_a_whole() -> None:
    wrong: Any = b"photos"
    with pytest.raises(UsageError, match="paths is b'photos', expected a path, as a string or a"):
        find_photographs(wrong)


def test_awkward_names_are_found_and_loaded(tmp_path: Path) -> None:
    image = io.BytesIO()
    Image.new("RGB", (2, 2), "red").save(image, "PNG")
    names = [b"new\nline.png", b"latin-1 \xe9\xff.png", "\u00fcber.png".encode()]
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(image.getvalue())
    photographs = list(find_photographs([tmp_path]))
    assert sorted(os.fsencode(path.name) for path in photographs) == sorted(names)
    assert all(load_photograph(path).getpixel((0, 0)) == (255, 0, 0) for path in photographs)


def test_a_path_of_1000_characters_is_found_and_loaded(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["d" * 200] * 5)
    folder.mkdir(parents=True)
    saved(Image.new("RGB", (2, 2)), folder / "x.png")
    (photograph,) = find_photographs([tmp_path])
    assert len(str(photograph)) > 1000
    assert load_photograph(photograph).size == (2, 2)


def test_a_broken_link_is_found_and_fails_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").symlink_to(tmp_path / "gone.jpg")
    (photograph,) = find_photographs([tmp_path])
    with pytest.raises(PhotographError, match="No such file"):
        load_photograph(photograph)


def test_finding_is_lazy_and_keeps_no_photographs(tmp_path: Path) -> None:
    for number in range(20):
        touch(tmp_path, *[f"{number:02}/{name}.jpg" for name in range(100)])
    search = find_photographs([tmp_path])
    tracemalloc.start()
    for _ in range(100):
        next(search)
    early, _ = tracemalloc.get_traced_memory()
    num_more = sum(1 for _ in search)
    late, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert num_more == 1900
    assert late - early < 20_000  # 1900 paths would be 300 kB


# Root reads everything, so this becomes nobody first, in a process of its own. It imports before
# that, because the interpreter's own files may be closed to nobody.
AS_ORDINARY_USER = """
import os, sys
from alexnet_deploy.errors import PhotographError
from alexnet_deploy.photographs.finding import find_photographs
from alexnet_deploy.photographs.decoding import load_photograph
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
for path in find_photographs(sys.argv[1:]):
    try:
        load_photograph(path)
        print(path.name, "ok")
    except PhotographError as error:
        print(path.name, error)
"""


def test_what_may_not_be_read_is_reported() -> None:
    # Not tmp_path: pytest closes its folders to other users.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        saved(Image.new("RGB", (2, 2)), folder / "locked.png").chmod(0)
        saved(Image.new("RGB", (2, 2)), folder / "open.png").chmod(0o644)
        touch(folder, "sealed/x.jpg")
        (folder / "sealed").chmod(0)
        done = subprocess.run(
            [sys.executable, "-c", AS_ORDINARY_USER, name],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[2],
            check=False,
        )
        (folder / "sealed").chmod(0o755)  # so that it can be removed
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "locked.png cannot be read (Permission denied)",
        "open.png ok",
        "sealed cannot be read (Permission denied)",
    ]
