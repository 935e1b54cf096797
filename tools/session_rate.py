"""Measure the overhead of single searches in an open index, and of single classifications.

    python tools/session_rate.py INDEX FOLDER

INDEX is an index, FOLDER holds six or more photographs that are not in it. Each round opens new
sessions: six searches of one query each against one search of six; and one photograph against 32 in
a loaded network. Ratios are of medians.
"""

import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import alexnet_deploy as ad
from alexnet_deploy.timing import in_turns, seconds_of

NUM_ROUNDS, NUM_QUERIES, BATCH = 7, 6, 32


def main() -> None:
    """Print the medians and their ratios."""
    directory, folder = map(Path, sys.argv[1:])
    paths = list(ad.find_photographs(folder))[:BATCH]
    queries = paths[:NUM_QUERIES]

    def one_call() -> None:
        with ad.open_index(directory) as index:
            list(index.search(queries))

    def six_calls() -> None:
        with ad.open_index(directory) as index:
            for query in queries:
                list(index.search(query))

    _compare("six searches of one", six_calls, "one search of six", one_call)
    with ad.open_model() as model:
        list(model.classify(paths))
        _compare(
            *("one photograph", lambda: list(model.classify(paths[0]))),
            *(f"{len(paths)} photographs", lambda: list(model.classify(paths))),
        )


def _compare(
    name: str, run: Callable[[], object], other: str, run_other: Callable[[], object]
) -> None:
    """Time the two in turns."""
    timers = {name: lambda: seconds_of(run), other: lambda: seconds_of(run_other)}
    one, two = map(statistics.median, in_turns(timers, NUM_ROUNDS).values())
    print(f"{name} {one:.3f} s, {other} {two:.3f} s, ratio {one / two:.2f}")


if __name__ == "__main__":
    main()
