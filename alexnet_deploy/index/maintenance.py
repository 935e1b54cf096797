"""Maintenance of committed vectors: compact segments, forget damaged vectors."""

from alexnet_deploy.index.integrity import damaged_vectors, intact_rows
from alexnet_deploy.index.ledger import INTEGER
from alexnet_deploy.index.storage import Storage

_BLOCK_ROWS = 1024


def remove_unnamed_segments(index: Storage) -> None:
    """Delete segments without a vector in the ledger, except the one being filled.

    No search reads them: the commit that dropped their vectors waited for running searches.
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
    """Forget vectors without a photograph, and reclaim the space of sparse segments.

    If less than three quarters of a segment are in use, its vectors are appended again, block by
    block; each block is committed separately, so a killed run loses nothing.

    Raises:
        IncompatibleFileError: one of them is damaged; so it stays where it is, to be found.
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
        next_position = index.next_position()  # moves advance it
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
    """Mark the photographs of damaged vectors as pending; return the number of vectors.

    They are not found until they are embedded again.
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
    """Append the rows at `positions`, all of one segment, again."""
    next_position = index.next_position()
    if next_position // index.manifest.segment_rows == segment:
        with index.ledger.transaction():
            _leave_segment(index, segment)
    for first in range(0, len(positions), _BLOCK_ROWS):
        some = positions[first : first + _BLOCK_ROWS]
        start = index.next_position()
        rows = intact_rows(index, some)
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
