"""Find the indexed photographs that look most like a query: `alexnet-deploy search`.

Krizhevsky et al. 2012, section 6.1 and figure 4 right, by the distance of FC7 vectors.
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import PhotographError, UsageError
from alexnet_deploy.index.finder import Criteria, PhotographFinder
from alexnet_deploy.index.manifest import Metric, read_manifest
from alexnet_deploy.index.model import ModelRequest, check_request, open_model_of
from alexnet_deploy.index.results import STDIN, Neighbour, SearchResult
from alexnet_deploy.index.segments import SegmentUnreadableError, float16_vector
from alexnet_deploy.index.storage import Index, open_index
from alexnet_deploy.inference.failures import no_photographs
from alexnet_deploy.inference.run import RunSummary, run_batches
from alexnet_deploy.photographs.decoding import decode_photograph, load_photograph
from alexnet_deploy.photographs.file_stamps import read_stamped
from alexnet_deploy.photographs.pipeline import Loaded, default_threads
from alexnet_deploy.photographs.preprocessing import preprocess
from alexnet_deploy.runtimes.base import Runner
from alexnet_deploy.runtimes.gpu_driver import current_gpu

if TYPE_CHECKING:
    from alexnet_deploy.index.exact_search import Ranking

_QUERIES_AT_ONCE = 32


def search(
    directory: Path,
    queries: Iterable[Path],
    request: ModelRequest | None = None,
    *,
    k: int = 10,
    metric: Metric | None = None,
    max_distance: float | None = None,
    stdin: bytes | None = None,
    summary: RunSummary | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> Iterator[SearchResult]:
    """Yield what each query finds in an index, in the order of the queries.

    The search is exact: every vector is looked at. A query whose bytes are indexed has its
    vector there already; the network runs, and is loaded, for others only. The query's own file
    is no neighbour of itself; a copy elsewhere is, at distance 0. Equally near photographs come
    in the order in which they were indexed.

    Args:
        directory: of the index.
        queries: photographs; `STDIN` for the bytes in `stdin`.
        request: the runner; what it leaves open is the index's own.
        k: how many neighbours; fewer where the index has fewer.
        metric: "cosine" or "l2"; None for the manifest's.
        max_distance: leave out what is farther: 1 - cosine similarity, or the L2 distance.
        stdin: the file that standard input held.
        summary: counted up during the run.
        notify: called with lines for a person.

    Raises:
        UsageError: no such index, k below 1, a negative distance.
        NoPhotographsError: there is no query.
        IncompatibleFileError: the index is damaged, or `request` is not of its vector space.
        MissingPackageError: without faiss.
        DeviceError: `request` is for a GPU, and there is none; or faiss cannot be used.
    """
    if k < 1:
        raise UsageError(f"-k is {k}, expected 1 or more")
    if max_distance is not None and not max_distance >= 0:
        raise UsageError(f"--max-distance is {max_distance:g}, expected 0 or more")
    manifest = read_manifest(directory)
    # No index has more, and NumPy and FAISS count in 64 bits.
    criteria = Criteria(
        k=min(k, 2**31), metric=metric or manifest.metric, max_distance=max_distance
    )
    summary = RunSummary() if summary is None else summary
    request = request or ModelRequest()
    return _search(directory, iter(queries), request, criteria, stdin, summary, notify)


def check_not_photograph(directory: Path, output: Path, queries: Iterable[Path]) -> None:
    """Refuse to write over a query or an indexed photograph.

    Raises:
        UsageError: `output` is one of them.
    """
    real = os.path.realpath(output)
    with open_index(directory) as index:
        is_one = PhotographFinder(index).own_ids(output, None)
    if is_one or any(os.path.realpath(query) == real for query in queries if query != STDIN):
        raise UsageError(f"{output}: is one of the photographs; name another file")


def _search(
    directory: Path,
    queries: Iterator[Path],
    request: ModelRequest,
    criteria: Criteria,
    stdin: bytes | None,
    summary: RunSummary,
    notify: Callable[[str], None],
) -> Iterator[SearchResult]:
    """Do the work of `search`; apart from it, so that a wrong argument fails at the call."""
    # A missing package shows before any work is done.
    import alexnet_deploy.index.exact_search  # noqa: F401

    with open_index(directory) as index, ExitStack() as stack:
        searcher = _Searcher(index, request, stdin, summary, stack, notify)
        is_empty = True
        while some := list(islice(queries, _QUERIES_AT_ONCE)):
            is_empty = False
            yield from searcher.answers(some, criteria)
        if is_empty:
            raise no_photographs()
    summary.stop_clock()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Query:
    """A query with its vector, rounded as stored vectors are, or with the reason why not."""

    path: Path
    sha256: bytes | None = None  # of its file, where the index has it
    vector: NDArray[np.float16] | None = None
    error: str | None = None


class _Searcher:
    """One search: the open index, and the runner once it is needed."""

    def __init__(
        self,
        index: Index,
        request: ModelRequest,
        stdin: bytes | None,
        summary: RunSummary,
        stack: ExitStack,
        notify: Callable[[str], None],
    ) -> None:
        check_request(index, request)
        self._summary = summary
        self._index = index
        self._request = request
        self._stdin = stdin
        self._stack = stack
        self._notify = notify
        self._runner: Runner | None = None
        self._gpu = self._faiss_gpu()
        if request.model is not None:
            self._open_model(_QUERIES_AT_ONCE)

    def _faiss_gpu(self) -> Any:
        """Return what FAISS scans on a GPU with, None for the CPU; refuse a GPU that is not there.

        Whether a runner will be needed, too, is not known yet.
        """
        from alexnet_deploy.index.exact_search import gpu_resources

        device = self._request.device
        if device == "cpu":
            return None
        if device == "cuda":
            current_gpu()
        resources = gpu_resources()
        if resources is None and device == "cuda":
            self._notify(
                "FAISS compares the vectors on the CPU: it is a build for CPUs, or finds no GPU; "
                "one for GPUs: pip uninstall faiss-cpu, then pip install faiss-gpu"
            )
        return resources

    def answers(self, paths: Sequence[Path], criteria: Criteria) -> list[SearchResult]:
        """Return the results of a few queries, in their order."""
        queries = self._with_vectors(paths)
        # While it lasts no commit can end, so none of the vectors can move.
        with self._index.ledger.snapshot():
            return self._ranked(queries, criteria)

    def _with_vectors(self, paths: Sequence[Path]) -> list[_Query]:
        """Take vectors that the index has, compute the others."""
        stored = [self._stored(path) for path in paths]
        unknown = [path for path, query in zip(paths, stored, strict=True) if query is None]
        # A full chunk may not be the last, and the batch size is chosen once.
        is_all = len(paths) < _QUERIES_AT_ONCE
        embedded = self._embedded(unknown, len(unknown) if is_all else _QUERIES_AT_ONCE)
        queries = [next(embedded) if query is None else query for query in stored]
        self._summary.num_done += len(paths) - len(unknown)
        return queries

    def _stored(self, path: Path) -> _Query | None:
        """Return the query with the vector that the index has of its file's bytes."""
        if path == STDIN and self._stdin is not None:
            sha256 = hashlib.sha256(self._stdin).digest()
        else:
            try:
                sha256 = read_stamped(path)[1].sha256
            except PhotographError:
                return None  # computing its vector will find the reason again
        row = self._index.ledger.one("SELECT position FROM vectors WHERE sha256 = ?", (sha256,))
        if row is None:
            return None
        try:
            (vector,) = self._index.segments.take(np.array(row, np.int64))
            return _Query(path=path, sha256=sha256, vector=vector)
        except SegmentUnreadableError:
            return None

    def _embedded(self, paths: Sequence[Path], num_images: int) -> Iterator[_Query]:
        """Yield queries that go through the network."""
        if not paths:
            return
        runner = self._runner or self._open_model(num_images)
        layer = self._index.manifest.space.layer
        threads = self._request.threads
        for batch in run_batches(
            runner, paths, load=self._load, threads=threads, summary=self._summary
        ):
            for result in batch:
                if result.outputs is None:
                    yield _Query(path=result.path, error=result.error)
                else:
                    vector, error = float16_vector(result.outputs[layer], layer)
                    if error is not None:
                        self._summary.num_done -= 1
                        self._summary.num_failed += 1
                    yield _Query(path=result.path, vector=vector, error=error)

    def _load(self, path: Path) -> Loaded:
        """Load one query. Runs in threads."""
        assert self._runner is not None
        if path == STDIN and self._stdin is not None:
            photograph = decode_photograph(io.BytesIO(self._stdin))
        else:
            photograph = load_photograph(path)
        return Loaded(crop=preprocess(photograph, self._runner.spec))

    def _open_model(self, num_images: int) -> Runner:
        runner = open_model_of(self._index, self._request, self._notify, num_images=num_images)
        self._runner = self._stack.enter_context(runner)
        self._notify(runner.description)
        return runner

    def _ranked(self, queries: Sequence[_Query], criteria: Criteria) -> list[SearchResult]:
        """Search for those queries that have a vector, in one snapshot of the index."""
        from alexnet_deploy.index.exact_search import live_positions, nearest

        finder = PhotographFinder(self._index)
        own = [finder.own_ids(query.path, query.sha256) for query in queries]
        positions = live_positions(self._index)
        vectors = [query.vector for query in queries if query.vector is not None]
        rankings: Iterator[Ranking] = iter(())
        if vectors and len(positions):
            found = nearest(
                self._index,
                positions,
                np.stack(vectors),
                criteria.k + max(map(len, own)),
                metric=criteria.metric,
                threads=self._request.threads or default_threads(),
                gpu=self._gpu,
            )
            rankings = iter(found)
        results = []
        for query, ids in zip(queries, own, strict=True):
            neighbours: Iterable[Neighbour] = ()
            if query.vector is not None and len(positions):
                neighbours = finder.neighbours(next(rankings), ids, criteria)
            some = tuple(islice(neighbours, criteria.k))
            results.append(SearchResult(query=query.path, neighbours=some, error=query.error))
        return results
