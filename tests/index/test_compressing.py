"""Compressed vectors over the life of an index: made, extended, fitted anew, dropped, told of."""

import itertools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet_deploy.errors import ArgumentError, UsageError
from alexnet_deploy.index.binary_codes import BinaryCoder
from alexnet_deploy.index.compressed_record import CompressedRecord, compressed_record
from alexnet_deploy.index.compression import points_of
from alexnet_deploy.index.itq import fit_itq
from alexnet_deploy.index.maintenance import compact
from alexnet_deploy.index.plan import plan
from alexnet_deploy.index.status import describe_index, readable_index
from alexnet_deploy.index.storage import open_storage
from alexnet_deploy.index.update import UpdateOptions
from tests.support.index_runner import Runners, save_colours, search, update
from tests.support.made_index import add, clustered, live, make_index, remove, run_on


def compressed(directory: Path, *, codes: Any = None) -> tuple[CompressedRecord | None, list[str]]:
    """Compress as a run does; return the record, and what was told."""
    from alexnet_deploy.index.compressing import compress

    told: list[str] = []
    with run_on(directory) as index:
        compress(index, codes=codes, threads=1, notify=told.append)
        return compressed_record(index), told


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Return an index of 400 vectors of 96 numbers."""
    make_index(tmp_path / "made", 96)
    with run_on(tmp_path / "made") as index:
        add(index, clustered(400, 96))
    return tmp_path / "made"


def test_later_vectors_are_added_until_there_are_twice_as_many(made: Path) -> None:
    first, told = compressed(made)
    assert first is not None
    assert "400 vectors are compressed" in told[0]
    size = (made / "ann" / "00000.rows").stat().st_size
    with run_on(made) as index:
        add(index, clustered(40, 96, seed=1))
    second, _ = compressed(made)
    assert second is not None
    assert (second.fit, second.num_rows, second.num_fitted) == (0, 440, 400)
    assert (made / "ann" / "00000.rows").stat().st_size == size * 440 // 400
    with run_on(made) as index:
        add(index, clustered(360, 96, seed=2))
    third, _ = compressed(made)
    assert third is not None
    assert (third.fit, third.num_rows, third.num_fitted) == (1, 800, 800)
    assert {path.name[:5] for path in (made / "ann").glob("0*")} == {"00001"}


def test_they_are_fitted_anew_when_a_prune_has_left_half_of_them(made: Path) -> None:
    compressed(made)
    with run_on(made) as index:
        remove(index, range(0, 400, 5))  # the segments are full enough to stay
        compact(index)
    assert (after := compressed(made)[0]) is not None
    assert after.fit == 0
    with run_on(made) as index:
        remove(index, live(index)[::2].tolist())
        compact(index)
    assert (after := compressed(made)[0]) is not None
    assert (after.fit, after.num_rows) == (1, 160)


def test_vectors_unlike_those_before_are_told_of(made: Path) -> None:
    compressed(made)
    with run_on(made) as index:
        add(index, np.random.default_rng(0).normal(0, 1, (50, 96)).astype(np.float16))
    _, told = compressed(made)
    assert any("later vectors" in line and "index again" in line for line in told)
    with run_on(made) as index:
        add(index, clustered(5, 96, seed=5))
    assert "later vectors" in compressed(made)[1][-1]


def test_an_older_copy_of_the_ledger_makes_them_void(made: Path, tmp_path: Path) -> None:
    compressed(made)
    shutil.copy(made / "ledger.sqlite", tmp_path / "older.sqlite")
    with run_on(made) as index:
        add(index, clustered(10, 96, seed=1))
    compressed(made)
    shutil.copy(tmp_path / "older.sqlite", made / "ledger.sqlite")
    with run_on(made) as index:
        add(index, clustered(10, 96, seed=2))  # where the others were
    told = describe_index(made, check=False)["compressed"]["error"]
    assert "copy" in told
    record, lines = compressed(made)
    assert record is not None
    assert record.num_rows == 410
    assert "compressed again" in lines[0]


def test_codes_are_added_kept_and_dropped(made: Path) -> None:
    plain, _ = compressed(made)
    with_codes, told = compressed(made, codes=64)
    assert "and 64 bits" in told[-1]
    assert "64 bits each" in readable_index(describe_index(made, check=False))
    with run_on(made) as index:
        add(index, clustered(30, 96, seed=1))
    kept, _ = compressed(made)
    dropped, _ = compressed(made, codes=0)
    records = [plain, with_codes, kept, dropped]
    assert [one and (one.fit, one.bits, one.num_rows) for one in records] == [
        (0, 0, 400),
        (1, 64, 400),
        (1, 64, 430),
        (2, 0, 430),
    ]


def test_too_few_vectors_or_numbers_for_the_bits_are_refused(made: Path) -> None:
    with pytest.raises(UsageError, match=r"more than 128 vectors of at least 128 numbers"):
        compressed(made, codes=128)
    assert compressed(made)[0] is not None


def test_codes_come_back_with_what_was_damaged(made: Path) -> None:
    compressed(made, codes=64)
    (made / "ann" / "00001.rows").unlink(missing_ok=True)
    (made / "ann" / "00000.rows").unlink(missing_ok=True)
    record, told = compressed(made)
    assert "compressed again" in told[0]
    assert record is not None
    assert record.bits == 64


def test_codes_of_a_coder_that_are_damaged_are_told_of(made: Path) -> None:
    coder = BinaryCoder.of_itq(fit_itq(clustered(200, 96), 64))
    compressed(made, codes=coder)
    os.truncate(made / "ann" / "00000.rows", 10)
    record, told = compressed(made)
    assert "codes of 64 bits came from a coder" in told[1]
    assert record is not None
    assert record.bits == 0


def test_too_few_photographs_for_the_bits_are_refused_before_the_work(
    tmp_path: Path, runners: Runners
) -> None:
    save_colours(tmp_path / "colours", 12)
    with pytest.raises(UsageError, match=r"more than 64 vectors .* the index has 12 of 8"):
        update(tmp_path / "index", tmp_path / "colours", ann=64)
    assert describe_index(tmp_path / "index", check=False)["photographs"]["indexed"] == 0


def test_an_effort_that_cannot_be_kept_is_told_of(tmp_path: Path, runners: Runners) -> None:
    paths = save_colours(tmp_path / "colours", 3)
    told: list[str] = []
    update(tmp_path / "index", tmp_path / "colours")
    list(search(tmp_path / "index", paths, k=1, effort=2, notify=told.append))
    assert told[-1] == "no vectors are compressed: all were compared, whatever the effort"


def test_one_vector_has_no_recall_to_tell_of(tmp_path: Path) -> None:
    make_index(tmp_path / "one", 96)
    with run_on(tmp_path / "one") as index:
        add(index, clustered(1, 96))
    compressed(tmp_path / "one")
    told = readable_index(describe_index(tmp_path / "one", check=False))
    assert "1 vectors to 16 bytes each; the proof of a search reads 100.00%\n" in told


def test_a_coder_of_one_layer_gives_the_codes_of_itq() -> None:
    vectors = clustered(500, 96)
    itq = fit_itq(vectors, 64)
    coder = BinaryCoder.of_itq(itq)
    assert coder.widths == (96, 64)
    coordinates = points_of(vectors, itq.mean, itq.axes).coordinates[:, :-1]
    bits = np.unpackbits(coder.codes(vectors), axis=1, bitorder="little")
    # A float32 sum of 96 products of numbers below 1.
    clear = np.abs(coordinates) > 96 * 2.0**-24
    assert (bits == (coordinates > 0))[clear].all()
    assert clear.mean() > 0.99


def test_a_coder_of_layers_is_the_network_that_they_make() -> None:
    generator = np.random.default_rng(0)
    widths = (20, 30, 64)
    weights = tuple(
        generator.normal(0, 1, (after, before)).astype(np.float32)
        for before, after in itertools.pairwise(widths)
    )
    biases = tuple(generator.normal(0, 1, width).astype(np.float32) for width in widths[1:])
    vectors = generator.normal(0, 3, (50, 20)).astype(np.float16)
    codes = BinaryCoder(weights=weights, biases=biases).codes(vectors)
    for vector, code in zip(vectors.astype(np.float64), codes, strict=True):
        hidden = np.maximum(weights[0] @ (vector / np.linalg.norm(vector)) + biases[0], 0)
        logits = weights[1] @ hidden + biases[1]
        assert [(code[n // 8] >> n % 8) & 1 for n in range(64)] == (logits > 0).tolist()


def test_a_small_index_is_compressed_where_it_is_asked_for(
    tmp_path: Path, runners: Runners
) -> None:
    index = tmp_path / "colours index"
    paths = save_colours(tmp_path / "colours", 12)
    update(index, tmp_path / "colours")
    assert describe_index(index, check=False)["compressed"] is None
    expected = [result.neighbours for result in search(index, paths, k=5)]
    update(index, tmp_path / "colours", ann="compressed")
    told: list[str] = []
    assert [one.neighbours for one in search(index, paths, k=5, notify=told.append)] == expected
    assert "of 12 vectors were compared" in told[-1]
    assert "no other is nearer" in told[-1]
    list(search(index, paths, k=1, effort=2, notify=told.append))
    assert "recall was" in told[-1]
    list(search(index, paths, k=2, effort=3, notify=told.append))
    assert "no other is nearer" in told[-1]
    assert "12 vectors to 9 bytes each" in readable_index(describe_index(index, check=True))
    save_colours(tmp_path / "colours", 14)
    update(index, tmp_path / "colours")
    assert describe_index(index, check=False)["compressed"]["vectors"] == 14
    update(index, tmp_path / "colours", ann="exact")
    assert describe_index(index, check=False)["compressed"] is None
    assert not list((index / "ann").iterdir())


def test_damaged_ones_are_told_of_and_every_vector_is_compared(
    tmp_path: Path, runners: Runners
) -> None:
    index = tmp_path / "colours index"
    paths = save_colours(tmp_path / "colours", 12)
    update(index, tmp_path / "colours", ann="compressed")
    expected = [result.neighbours for result in search(index, paths, k=5)]
    record = index / "ann" / "compressed.json"
    fields = json.loads(record.read_text())
    record.write_text(json.dumps(fields | {"num_rows": 99}))
    told: list[str] = []
    assert [one.neighbours for one in search(index, paths, k=5, notify=told.append)] == expected
    assert "damaged" in told[0]
    assert "every vector is compared" in told[0]
    update(index, tmp_path / "colours")
    assert describe_index(index, check=False)["compressed"]["vectors"] == 12


def test_what_says_how_to_compress_is_checked_at_once() -> None:
    for ann in (0, 65, "often", True):
        with pytest.raises(ArgumentError, match="ann"):
            UpdateOptions(ann=ann)  # type: ignore[arg-type]


def test_a_plan_grows_with_the_vectors_and_does_as_it_is_told() -> None:
    small, large = plan(10, 4096, "auto", 2), plan(10**7, 4096, "auto", 2)
    assert (small.is_compressed, large.is_compressed) == (False, True)
    assert large.compressed_bytes == 10**7 * 140
    assert "10,000,000 vectors" in large.line()
    assert plan(10, 4096, "compressed", 2).is_compressed
    assert plan(10, 4096, 64, 2).is_compressed
    assert not plan(10**7, 4096, "exact", 2).is_compressed


def test_an_index_can_be_searched_without_its_compressed_vectors(made: Path) -> None:
    compressed(made)
    shutil.rmtree(made / "ann")
    with open_storage(made) as index:
        assert compressed_record(index) is None
