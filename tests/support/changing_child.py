"""Runs that change an index of made vectors and compress it, in a process of their own.

python changing_child.py DIRECTORY NUM_RUNS BITS_OF_CODES
"""

import random
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from alexnet_deploy.index.compressing import compress
from alexnet_deploy.index.exact_search import live_positions
from alexnet_deploy.index.maintenance import compact
from tests.support.made_index import add, remove, run_on


def main() -> None:
    """Add, remove, prune and compress."""
    directory, rng = Path(sys.argv[1]), random.Random(0)
    generator = np.random.default_rng(0)
    for number in range(int(sys.argv[2])):
        with run_on(directory) as index:
            live = live_positions(index).tolist()
            remove(index, rng.sample(live, len(live) // 2))
            if number % 3 == 2:
                compact(index)
            dimension = index.manifest.space.dimension
            add(
                index, generator.normal(0, 1, (rng.choice((10, 300)), dimension)).astype(np.float16)
            )
            compress(index, codes=int(sys.argv[3]), threads=1)
        time.sleep(0.02)  # whoever waits for a commit comes to search


if __name__ == "__main__":
    main()
