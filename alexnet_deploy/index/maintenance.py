"""What is done to vectors that are committed: move them together, forget those that are damaged."""

import numpy as np

from alexnet_deploy.index.integrity import damaged_vectors
from alexnet_deploy.index.ledger import INTEGER
from alexnet_deploy.index.storage import Storage

_BLOCK_ROWS = 1024


def remove_unnamed_segments(index: Storage) -> None:
    """Delete the segments in which the ledger names no vector, but the one that is filled now.

    No search reads them: the commit that stopped naming them waited for those that had begun.
    """
    next_position = index.next_position()
    segment_rows = index.manifest.segment_rows
    for segment in index.segments.numbers():
        start = segment * segment_rows
        named = index.ledger.one(
            "SELECT 1 FROM vectors WHERE position >= ? AND position < ? LIMIT 1",
            (start, start + segment_rows),
        )
        if named is None and segment != next_position // segment_rows:
            index.segments.remove(segment)


def compact(index: Storage) -> None:
    """Forget vectors of no photograph, and give back the space of segments that they leave thin.

    The vectors of a segment of which less than three quarters are in use are appended anew,
    block by block; each block is committed by itself, so a killed run has lost nothing.
    """
    ledger = index.ledger
    with ledger.transaction():
        ledger.execute(
            "DELETE FROM vectors WHERE NOT EXISTS "
            "(SELECT 1 FROM photographs p WHERE p.position = vectors.position)"
        )
    segment_rows = index.manifest.segment_rows
    for segment in index.segments.numbers():
        start = segment * segment_rows
        next_position = index.next_position()  # moves shift it
        num_used = min(segment_rows, next_position - start)
        positions = [
            position
            for (position,) in ledger.rows(
                "SELECT position FROM vectors WHERE position >= ? AND position < ? "
                "ORDER BY position",
                (start, start + segment_rows),
                kinds=(INTEGER,),
            )
        ]
        if 4 * len(positions) < 3 * num_used:
            _move(index, segment, positions)
    remove_unnamed_segments(index)


def forget_damaged(index: Storage) -> int:
    """Let the photographs of damaged vectors be embedded again; return how many vectors.

    They are out of the results until then.
    """
    positions = [position for position, _ in damaged_vectors(index)]
    with index.ledger.transaction():
        for position in positions:
            index.ledger.execute(
                "UPDATE photographs SET status = 'pending', position = NULL WHERE position = ?",
                (position,),
            )
            index.ledger.execute("DELETE FROM vectors WHERE position = ?", (position,))
        next_position = index.next_position()
        segment, row = divmod(next_position, index.manifest.segment_rows)
        if index.segments.num_whole_rows(segment) < row:
            _leave_segment(index, segment)
    return len(positions)


def _move(index: Storage, segment: int, positions: list[int]) -> None:
    """Append the rows at `positions`, all of one segment, anew."""
    next_position = index.next_position()
    if next_position // index.manifest.segment_rows == segment:
        with index.ledger.transaction():
            _leave_segment(index, segment)
    for first in range(0, len(positions), _BLOCK_ROWS):
        some = positions[first : first + _BLOCK_ROWS]
        start = index.next_position()
        rows = index.segments.take(np.array(some, np.int64))
        stop = start + len(rows)
        index.segments.append(start, rows)
        index.segments.sync(start, stop)
        with index.ledger.transaction():
            index.ledger.execute_many(
                "UPDATE vectors SET position = ? WHERE position = ?",
                zip(range(start, stop), some, strict=True),
            )
            index.ledger.execute("UPDATE settings SET next_position = ?", (stop,))


def _leave_segment(index: Storage, segment: int) -> None:
    """Let the next vector go to the segment after this one."""
    position = (segment + 1) * index.manifest.segment_rows
    index.ledger.execute("UPDATE settings SET next_position = ?", (position,))
