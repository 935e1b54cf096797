"""Bring the compressed vectors of an index up to date, after a run has changed it.

N vectors, D numbers in each.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.index.axes_choice import NUM_QUERIES, fit_cheapest
from alexnet_deploy.index.binary_codes import BinaryCoder, can_be_fitted, check_bits
from alexnet_deploy.index.compressed_check import compressed_problems
from alexnet_deploy.index.compressed_files import (
    Compressed,
    CompressedWriter,
    compressed_writer,
    read_compressed,
    remove_compressed,
)
from alexnet_deploy.index.compressed_record import (
    EFFORTS,
    NUM_NEAREST,
    CompressedRecord,
    compressed_record,
)
from alexnet_deploy.index.compressed_scan import CompressedScan
from alexnet_deploy.index.compressed_search import Search
from alexnet_deploy.index.compression import Compression, has_direction
from alexnet_deploy.index.exact_search import live_positions
from alexnet_deploy.index.itq import fit_itq
from alexnet_deploy.index.ledger import INTEGER, REAL
from alexnet_deploy.index.storage import Storage

_SAMPLE_ROWS = 2**14
_SAMPLE_NUMBERS = 2**26
_BLOCK_NUMBERS = 2**22
_GROWTH_TO_FIT = 2.0
"""Rows for each that the axes were fitted on, or that still has a vector: then they are again."""
_GROWTH_TO_MEASURE = 1.1
"""Of the rows, since the search was measured."""
_DRIFT = 1.5
"""Of what the axes leave out, between the vectors they were fitted on and later ones."""
_LEAST_LOST = 0.01
"""Of their variance: less changes no search, and may be rounding."""

Codes: TypeAlias = int | BinaryCoder | None
"""Bits of codes that are fitted, 0 for none; what makes them; or None for those that are there."""


def compress(
    index: Storage,
    *,
    codes: Codes = None,
    check: bool = False,
    threads: int,
    notify: Callable[[str], None] = lambda _: None,
) -> None:
    """Give the vectors that have none a compressed form; those of all, where it no longer fits.

    Also those that no photograph has: one may return to its vector until a prune. The axes are
    fitted anew where the vectors have doubled since, or half of them are gone.

    Args:
        index: open for writing, after a run that has finished.
        codes: binary codes to add.
        check: compare those that are there with the vectors, and make them again where they differ.
        threads: that measure.
        notify: called with lines for a person.

    Raises:
        OutputError: `ann/` cannot be written.
        IncompatibleFileError: a segment is not there; the index needs a repair.
    """
    try:
        before = compressed_record(index)
    except IncompatibleFileError:
        before = None
    found = _usable(index, check, notify)
    record = _brought_up_to_date(index, before, found, codes, notify)
    if record is None:
        return
    live = live_positions(index)
    if len(live) and record.num_rows >= _GROWTH_TO_MEASURE * record.num_measured:
        record = _measured(index, record, live, threads)
        notify(record.line())
    num_later = record.num_rows - record.num_fitted
    if num_later and record.lost_later > max(_DRIFT * record.lost, _LEAST_LOST):
        notify(
            f"the axes leave out {record.lost_later:.0%} of the {num_later:,} later vectors, "
            f"of those they were fitted on {record.lost:.0%}: searches read more of them, until "
            "there are twice as many and the axes are fitted anew"
        )


def _brought_up_to_date(
    index: Storage,
    before: CompressedRecord | None,
    found: Compressed | None,
    codes: Codes,
    notify: Callable[[str], None],
) -> CompressedRecord | None:
    """Write the rows of vectors without one; return the record, None where there can be none."""
    positions = _all_positions(index)
    if found is not None and _is_kept(found, codes):
        record = found.record
        remove_compressed(index.directory, but=record.fit)  # as a killed run may have left some
        later = positions[positions >= record.next_position]
        num_rows = record.num_rows + len(later)
        if num_rows < _GROWTH_TO_FIT * min(record.num_fitted, len(positions)):
            return _extended(index, found, later) if len(later) else record
    sample = _sample(index, positions)
    if not len(sample):
        remove_compressed(index.directory)
        return None
    if codes is None and before is not None:
        codes = _codes_as(before, found, sample, notify)
    number = 0 if found is None else (found.record.fit + 1) % 10**5
    return _fitted(index, positions, sample, codes or 0, number)


def _usable(index: Storage, check: bool, notify: Callable[[str], None]) -> Compressed | None:
    """Return the compressed vectors; remove those that cannot be used."""
    try:
        found = read_compressed(index)
        problems = list(compressed_problems(index)) if check else []
    except IncompatibleFileError as error:
        found, problems = None, [str(error)]
    for problem in problems:
        notify(f"{problem}; they are compressed again")
        remove_compressed(index.directory)
        found = None
    return found


def _codes_as(
    before: CompressedRecord,
    found: Compressed | None,
    sample: NDArray[np.float16],
    notify: Callable[[str], None],
) -> Codes:
    """Return such binary codes as there were, where there can be any; say it where not."""
    if before.coder != "given" and can_be_fitted(before.bits, *sample.shape):
        return before.bits
    if found is not None:
        return found.coder  # also where too few vectors are left to fit one anew
    notify(f"codes of {before.bits} bits cannot be made again without their coder")
    return 0


def _is_kept(found: Compressed, codes: Codes) -> bool:
    """Return whether there are the binary codes that are asked for."""
    if isinstance(codes, BinaryCoder):
        return found.coder is not None and found.coder.is_same(codes)
    return codes is None or (codes == found.record.bits and found.record.coder != "given")


def _all_positions(index: Storage) -> NDArray[np.int64]:
    """Return where vectors are, ascending, whether photographs have them or not."""
    rows = index.ledger.rows("SELECT position FROM vectors ORDER BY position", kinds=(INTEGER,))
    return np.fromiter(itertools.chain.from_iterable(rows), np.int64)


def _sample(index: Storage, positions: NDArray[np.int64]) -> NDArray[np.float16]:
    """Return some vectors, at even distances, that have a direction."""
    dimension = index.manifest.space.dimension
    sample = index.segments.take(
        _evenly(positions, min(_SAMPLE_ROWS, max(1, _SAMPLE_NUMBERS // dimension)))
    )
    return sample[has_direction(sample)]


def _evenly(positions: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return at most `count` of some positions, at even distances."""
    chosen = np.linspace(0, len(positions) - 1, min(len(positions), count)).astype(np.intp)
    return positions[chosen]


def _fitted(
    index: Storage,
    positions: NDArray[np.int64],
    sample: NDArray[np.float16],
    codes: int | BinaryCoder,
    fit: int,
) -> CompressedRecord:
    """Compress all vectors by axes, and binary codes, that are fitted to a sample."""
    coder: BinaryCoder | None = codes if isinstance(codes, BinaryCoder) else None
    if isinstance(codes, int) and codes:
        check_bits(codes, *sample.shape)
        coder = fit_itq(sample, codes)
    compression = fit_cheapest(sample, len(positions))
    space, (run, started) = index.manifest.space, _last_run(index)
    with compressed_writer(index.directory, fit) as writer:
        writer.begin(compression, coder)
        lost = _append(index, compression, coder, positions, writer, 0)
        record = CompressedRecord(
            identity=space.identity,
            layer=space.layer,
            run=run,
            started=started,
            fit=fit,
            num_axes=len(compression.axes),
            error=compression.error,
            num_rows=len(positions),
            next_position=index.next_position(),
            num_fitted=len(positions),
            lost=lost,
            coder="none" if coder is None else "given" if coder is codes else "itq",
            coder_widths=() if coder is None else coder.widths,
        )
        writer.commit(record)
    return record


def _extended(index: Storage, found: Compressed, later: NDArray[np.int64]) -> CompressedRecord:
    """Compress more vectors by the same axes."""
    record, (run, started) = found.record, _last_run(index)
    num_before = record.num_rows - record.num_fitted
    with compressed_writer(index.directory, record.fit) as writer:
        lost = _append(index, found.compression, found.coder, later, writer, record.num_rows)
        lost = num_before * record.lost_later + len(later) * lost
        record = dataclasses.replace(
            record,
            run=run,
            started=started,
            num_rows=record.num_rows + len(later),
            next_position=index.next_position(),
            lost_later=lost / (num_before + len(later)),
        )
        writer.commit(record)
    return record


def _append(
    index: Storage,
    compression: Compression,
    coder: BinaryCoder | None,
    positions: NDArray[np.int64],
    writer: CompressedWriter,
    num_before: int,
) -> float:
    """Write rows after others; return the share that the axes leave out of their variance."""
    num_at_once = max(1, _BLOCK_NUMBERS // index.manifest.space.dimension)
    lost, of_all = 0.0, 0.0
    for start in range(0, len(positions), num_at_once):
        some = positions[start : start + num_at_once]
        vectors = index.segments.take(some)
        points = compression.points(vectors)
        bits = np.empty((len(some), 0), np.uint8) if coder is None else coder.codes(vectors)
        writer.append(num_before + start, compression.rows(some, points), bits)
        squares = np.square(np.nan_to_num(points.coordinates))
        lost, of_all = lost + float(squares[:, -1].sum()), of_all + float(squares.sum())
    return lost / of_all if of_all else 0.0


def _measured(
    index: Storage, record: CompressedRecord, live: NDArray[np.int64], threads: int
) -> CompressedRecord:
    """Search for some of the vectors that photographs have, and record what that takes."""
    found = read_compressed(index)
    assert found is not None
    scan = CompressedScan(found)
    chosen = _evenly(live, NUM_QUERIES)
    queries = index.segments.take(chosen)
    search = Search(index, scan, live[:0], NUM_NEAREST + 1, "cosine", threads, among=live)
    rankings = search.proved(queries)
    first = scan.first(queries, max(EFFORTS) + 1, threads, np.isin(found.positions, live))
    shares = [1.0] * (len(queries) - len(rankings))
    hits: list[list[NDArray[np.bool_]]] = []
    for number, ranking in rankings.items():
        shares.append(ranking.num_compared / len(live))
        order = found.positions[first[number]]
        # It is its own nearest, and counts for nothing.
        order = order[order != chosen[number]]
        nearest = ranking.positions[ranking.positions != chosen[number]][:NUM_NEAREST]
        hits.append([np.isin(nearest, order[:effort]) for effort in EFFORTS])
    recall = [np.concatenate(one) for one in zip(*hits, strict=True)]
    record = dataclasses.replace(
        record,
        num_measured=record.num_rows,
        share_read=min(1.0, float(np.median(shares))),
        recall=tuple(float(one.mean()) for one in recall if len(one)),
    )
    with compressed_writer(index.directory, record.fit) as writer:
        writer.commit(record)
    return record


def _last_run(index: Storage) -> tuple[int, float]:
    """Return id and start of the last run, by which this state of the index is recognised."""
    sql = "SELECT id, started FROM runs ORDER BY id DESC LIMIT 1"
    run, started = index.ledger.one(sql, kinds=(INTEGER, REAL))
    return int(run), float(started)
