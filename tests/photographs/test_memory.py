"""The memory that all decode threads share: bounded, first come first served, never stuck."""

import resource
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet_deploy.errors import ArgumentError, PhotographError
from alexnet_deploy.model.spec import PRESETS
from alexnet_deploy.photographs import memory
from alexnet_deploy.photographs.decoding import load_photograph
from alexnet_deploy.photographs.memory import MemoryBudget, limit_decoded_memory
from alexnet_deploy.photographs.pipeline import Loaded, Slot, batches, crop_loader
from alexnet_deploy.photographs.pixels import EXACT
from tests.photographs.test_decoding import png
from tests.support.waiting import PATIENCE_S, wait_until


@pytest.fixture(autouse=True)
def _usual_limit_afterwards() -> Iterator[None]:
    yield
    limit_decoded_memory()


@pytest.mark.parametrize(
    ("size", "expected"),
    [(5, 5), ("500MB", 500_000_000), ("2 gb", 2 * 10**9), ("1.5G", 1_500_000_000), ("7", 7)],
)
def test_a_size_is_a_number_of_bytes_or_has_a_unit(size: int | str, expected: int) -> None:
    limit_decoded_memory(size)
    assert memory.DECODED.limit == expected


@pytest.mark.parametrize("size", ["", "much", "-1GB", "0", "1e9", "5 PB", "nan", "1,5GB"])
def test_what_is_no_size_is_refused(size: str) -> None:
    with pytest.raises(ArgumentError, match=r"max_decoded_memory is .* expected a size as 500MB"):
        limit_decoded_memory(size)


def test_more_is_never_reserved_at_once_and_the_large_ones_have_their_turn() -> None:
    budget, counting = MemoryBudget(10), threading.Lock()
    sizes = [1, 10, 3, 7, 10, 2, 5, 5, 9, 1] * 20
    reserved = most = 0

    def take(own: list[int]) -> None:
        nonlocal reserved, most
        for size in own:
            with budget.released_at_end():
                budget.reserve(size)
                with counting:
                    reserved += size
                    most = max(most, reserved)
                with counting:
                    reserved -= size

    threads = [threading.Thread(target=take, args=(sizes[start::7],)) for start in range(7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert not any(thread.is_alive() for thread in threads)
    assert 0 < most <= 10


def test_who_waits_for_much_is_not_passed_by_those_who_come_later() -> None:
    budget, order = MemoryBudget(10), list[str]()

    def take(name: str, size: int) -> threading.Thread:
        def reserve() -> None:
            with budget.released_at_end():
                budget.reserve(size)
                order.append(name)

        thread = threading.Thread(target=reserve)
        thread.start()
        # Until it stands in the queue, which is when it sleeps.
        wait_until(lambda: sys._current_frames()[thread.ident or 0].f_code.co_name == "wait")
        return thread

    with budget.released_at_end():
        budget.reserve(5)
        waiting = [take("large", 9), take("small", 1)]
        assert order == []
    for thread in waiting:
        thread.join(PATIENCE_S)
    assert order == ["large", "small"]


def test_a_second_reservation_of_a_thread_takes_the_place_of_its_first() -> None:
    budget = MemoryBudget(10)
    with budget.released_at_end():
        for _ in range(3):
            with budget.released_at_end():
                budget.reserve(8)  # would wait for itself
    with budget.released_at_end():
        budget.reserve(10)


def test_ctrl_c_while_waiting_leaves_no_gap_in_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    budget, done = MemoryBudget(10), threading.Event()

    def hold() -> None:
        with budget.released_at_end():
            budget.reserve(10)
            held.set()
            done.wait(PATIENCE_S)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    held, thread = threading.Event(), threading.Thread(target=hold)
    thread.start()
    assert held.wait(PATIENCE_S)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Condition, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            budget.reserve(1)
    done.set()
    thread.join(PATIENCE_S)
    budget.reserve(10)


def test_photographs_that_wait_keep_their_order_and_one_that_never_fits_says_why(
    tmp_path: Path,
) -> None:
    paths = []
    for number in range(12):
        side = 2000 if number == 5 else 400
        paths.append(tmp_path / f"{number}.bmp")
        Image.new("RGB", (side, side), (number, 0, 0)).save(paths[-1])
    limit_decoded_memory("4MB")  # two of the small ones at a time
    load = crop_loader(PRESETS["torchvision"], EXACT)
    stream = batches(paths, load, input_size=224, batch_size=4, threads=5)
    slots: list[Slot[Path]] = []
    reds: list[int] = []
    for batch in stream:
        slots += batch.slots
        reds += [int(image[0, 0, 0]) for image in batch.images]
    assert [slot.item for slot in slots] == paths
    assert reds == [number for number in range(12) if number != 5]
    assert slots[5].error is not None
    assert "at most 4 MB are taken; raise max_decoded_memory or scale" in slots[5].error
    assert [slot.error for slot in slots if slot.row is not None] == [None] * 11


def test_a_picture_counts_until_its_thread_is_done_with_it(tmp_path: Path) -> None:
    path = tmp_path / "x.bmp"
    Image.new("RGB", (400, 400)).save(path)
    limit_decoded_memory("2MB")
    held = most = 0
    counting = threading.Lock()
    others = threading.Event()

    def load(source: Path) -> Loaded:
        nonlocal held, most
        picture = load_photograph(source)
        with counting:
            held += 1
            most = max(most, held)
        others.wait(0.02)
        with counting:
            held -= 1
        return Loaded(crop=np.asarray(picture)[:8, :8])

    assert len(list(batches([path] * 6, load, input_size=8, batch_size=1, threads=3))) == 6
    assert most == 1


def test_without_threads_a_picture_is_the_callers_as_soon_as_it_is_there(tmp_path: Path) -> None:
    path = tmp_path / "x.bmp"
    Image.new("RGB", (400, 400)).save(path)
    limit_decoded_memory("2MB")
    assert len([load_photograph(path) for _ in range(5)]) == 5


TALL = """
import sys
from pathlib import Path
from alexnet_deploy.errors import PhotographError
from alexnet_deploy.photographs.decoding import load_photograph
try:
    load_photograph(Path(sys.argv[1]))
except PhotographError as error:
    print(error)
"""


def test_two_kilobytes_that_claim_170_megapixels_take_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png(1, 170_000_000, zlib.compress(bytes(4000))))
    done = subprocess.run(
        [sys.executable, "-c", TALL, path],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (10**9, 10**9)),
    )
    assert done.stdout.startswith("needs ")
    assert "max_decoded_memory" in done.stdout


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("num_rows", [1, 2, 3, 9, 10])
def test_a_png_whose_pixels_end_early_is_damaged(mode: str, num_rows: int, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.new(mode, (7, num_rows), 0 if mode != "P" else None).save(path)
    assert load_photograph(path).size == (7, num_rows)  # all zero, and whole
    content = path.read_bytes()
    start = content.index(b"IDAT") + 4
    length = int.from_bytes(content[start - 8 : start - 4], "big")
    data = zlib.decompress(content[start : start + length])
    short = zlib.compress(data[: len(data) // num_rows * (num_rows - 1)])
    chunk = len(short).to_bytes(4, "big") + b"IDAT" + short
    chunk += zlib.crc32(chunk[4:]).to_bytes(4, "big")
    path.write_bytes(content[: start - 8] + chunk + content[start + length + 4 :])
    with pytest.raises(PhotographError, match=r"damaged or cut short \(.*; copy it again"):
        load_photograph(path)


@pytest.mark.parametrize("num_whole", [2, 5, 8])
def test_an_interlaced_png_without_its_last_pass_is_damaged(num_whole: int, tmp_path: Path) -> None:
    # 2 x 2 greys: a pixel each in the first and the sixth pass, the lower row in the seventh.
    data = bytes([0, 50, 0, 60, 0, 70, 80])
    whole = png(2, 2, zlib.compress(data[:num_whole]))
    header = struct.pack(">IIBBBBB", 2, 2, 8, 0, 0, 0, 1)
    checksum = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    path = tmp_path / "x.png"
    path.write_bytes(whole[:16] + header + checksum + whole[33:])
    if num_whole > len(data):
        assert np.asarray(load_photograph(path))[..., 0].tolist() == [[50, 60], [70, 80]]
    else:
        with pytest.raises(PhotographError, match=r"damaged or cut short \(.*; copy it again"):
            load_photograph(path)


def tiff_with_one_tile(side: int) -> bytes:
    """Return a TIFF of 16 x 16 greys in one deflated tile of `side` x `side`."""
    data = zlib.compress(bytes(side * side))
    fields = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side}
    fields |= {324: 14 + 12 * 10, 325: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields.items())
    return b"II*\0" + struct.pack("<IH", 8, 10) + entries + bytes(4) + data


def test_a_tile_that_is_larger_than_its_tiff_counts(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    path.write_bytes(tiff_with_one_tile(2000))
    assert load_photograph(path).size == (16, 16)
    limit_decoded_memory("4MB")
    with pytest.raises(PhotographError, match="needs 32 MB to decode"):
        load_photograph(path)


@pytest.mark.parametrize("suffix", [".jp2", ".j2k"])
def test_a_jpeg_2000_counts_its_tiles(suffix: str, tmp_path: Path) -> None:
    """OpenJPEG keeps 12 KB for each: 130 KB of file, whose every pixel is one, take 770 MB."""
    path = tmp_path / f"x{suffix}"
    Image.new("RGB", (255, 255)).save(path, tile_size=(16, 16))
    limit_decoded_memory("10MB")
    assert load_photograph(path).size == (255, 255)
    content = bytearray(path.read_bytes())
    struct.pack_into(">2I", content, content.index(b"\xff\x4f\xff\x51") + 24, 1, 1)
    path.write_bytes(content)
    with pytest.raises(PhotographError, match="needs 912 MB to decode"):
        load_photograph(path)


def test_a_jpeg_in_several_scans_counts_its_coefficients(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    picture = Image.new("RGB", (1000, 1000))
    limit_decoded_memory("6MB")
    picture.save(path)
    assert load_photograph(path).size == (1000, 1000)
    # As if its first scan had the first channel alone.
    content = path.read_bytes()
    start = content.index(b"\xff\xda")
    several = content[:start] + b"\xff\xda\0\x08\1\1\0\0\x3f\0" + content[start + 14 :]
    path.write_bytes(several)
    with pytest.raises(PhotographError, match="needs 10 MB to decode"):
        load_photograph(path)
    picture.save(path, progressive=True)
    with pytest.raises(PhotographError, match="needs 10 MB to decode"):
        load_photograph(path)
