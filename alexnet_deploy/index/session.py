"""Find the indexed photographs that look most like others, in an index that stays open.

Krizhevsky et al. 2012, section 6.1 and figure 4 right, by the distance of FC7 vectors.
"""

import dataclasses
import hashlib
import itertools
import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np

from alexnet_deploy.choices import Metric
from alexnet_deploy.errors import ClosedError, PhotographError
from alexnet_deploy.index.filters import Filters, Selector
from alexnet_deploy.index.finder import Criteria, PhotographFinder
from alexnet_deploy.index.integrity import intact_rows
from alexnet_deploy.index.manifest import VectorSpace
from alexnet_deploy.index.model import ModelRequest, check_request, open_model_of
from alexnet_deploy.index.queries import PhotographQuery, VectorQuery, checked_queries, rounded
from alexnet_deploy.index.results import Neighbour, Query, SearchResult
from alexnet_deploy.index.rotations import ROTATIONS, TurningRunner, nearest_of
from alexnet_deploy.index.storage import ledger_id, open_storage
from alexnet_deploy.inference.run import RunSummary, run_batches
from alexnet_deploy.photographs.file_stamps import read_stamped
from alexnet_deploy.photographs.finding import check_not_photograph
from alexnet_deploy.photographs.pipeline import crop_loader, default_threads
from alexnet_deploy.runtimes.base import Runner
from alexnet_deploy.runtimes.gpu_driver import current_gpu

_QUERIES_AT_ONCE = 32
"""Enough to share a pass over all vectors and a batch of the network, few enough to wait for."""


class Index:
    """An index that is open for searching; several threads may search at once.

    Ledger, mapped vectors, FAISS and network stay open. Each search sees what has been committed
    when it begins, also by other processes. Searches take turns, but one that does not need the
    network does not wait for it to be loaded. Open it anew in each process.

    Args:
        directory: of the index.
        request: the model and how to run it; what it leaves open is the index's own.
        notify: called with lines for a person.

    Attributes:
        directory: of the index.
        space: what its vectors are: layer, dimension, precision, preprocessing.
        metric: the measure of a search that names none.
    """

    def __init__(
        self,
        directory: Path,
        request: ModelRequest | None = None,
        *,
        notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Open the index, and the model if `request` names one.

        Raises:
            UsageError: there is no such index.
            IncompatibleFileError: it is damaged, or `request` is not of its vector space.
            MissingPackageError: without faiss.
            DeviceError: `request` is for a GPU, and there is none; or faiss cannot be used.
        """
        # A missing package shows before any work is done.
        from alexnet_deploy.index.compressed_search import CompressedRanker
        from alexnet_deploy.index.exact_search import ExactRanker

        self.directory = directory
        self._request = request or ModelRequest()
        self._notify = notify
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._process = os.getpid()
        self._runner: Runner | None = None
        with ExitStack() as stack:
            self._storage = stack.enter_context(open_storage(directory))
            self._ledger_id = ledger_id(directory)
            self.space: VectorSpace = self._storage.manifest.space
            self.metric: Metric = self._storage.manifest.metric
            check_request(self._storage, self._request)
            self._selector = Selector(self._storage.ledger)
            exact = ExactRanker(self._storage, self._faiss_gpu())
            self._ranker = CompressedRanker(self._storage, exact, notify)
            self._stack: ExitStack | None = stack
            if self._request.model is not None:
                self._open_runner()
            self._stack = stack.pop_all()

    def search(
        self,
        queries: Query | Iterable[Query],
        k: int = 10,
        *,
        metric: Metric | None = None,
        max_distance: float | None = None,
        within: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
        glob: str | Sequence[str] = (),
        since: str | date | None = None,
        rotations: bool = False,
        effort: int | None = None,
        summary: RunSummary | None = None,
    ) -> Generator[SearchResult, None, None]:
        """Yield what each query finds, in the order of the queries.

        Without `effort` the search is exact: every vector is compared that `within`, `glob` and
        `since` leave, or of compressed ones every one that can be among the nearest. A query whose
        bytes are indexed has its vector there already, and so has, where another program made the
        vectors, the path or URL of what was imported; the network is loaded and run only for
        others. The query's own file is not a neighbour of itself; a copy elsewhere is, at distance
        0, and identical. Equally near photographs come in the order in which they were indexed.

        Up to 32 queries share a pass over the vectors, and are taken before the first is answered.

        Args:
            queries: one or any iterable, which is read lazily: photographs as for
                `Model.classify`, or vectors, (D,), which are rounded to float16 as those stored.
                An empty one yields nothing.
            k: how many neighbours; fewer where the index has fewer.
            metric: "cosine" or "l2"; None for the index's.
            max_distance: leave out what is farther: 1 - cosine similarity, or the L2 distance.
            within: folders; only photographs in one of them are compared.
            glob: patterns as of `update_index`'s `exclude`; only what matches one is compared.
            since: a `datetime` or a `date`, or one in ISO 8601, local time unless it says its zone;
                only files modified then or later are compared, by their time when indexed.
            rotations: search for each photograph also turned by 90, 180 and 270 degrees; of what is
                found, the nearest counts. Vectors cannot be turned.
            effort: compare only so many vectors, whose compressed forms are the nearest; below
                2 `k` it is not enough, and without compressed vectors not needed.
            summary: counts and times, updated while the results are taken.

        Raises:
            UsageError: k below 1, a negative distance, an unknown metric, a query that is neither,
                a folder that the index does not have, a pattern or a time that is none.
            IncompatibleFileError: the index is damaged, or its model has changed since.
            ClosedError: the index is closed, or was deleted or replaced since it was opened.
        """
        criteria = Criteria.of(
            k,
            self.metric if metric is None else metric,
            max_distance,
            Filters.of(within, glob, since),
            effort,
        )
        self._check_open()
        self._check_filters(criteria.filters)
        summary = RunSummary() if summary is None else summary
        checked = checked_queries(queries, self.space)
        return self._results(checked, criteria, rotations, summary)

    def check_not_photograph(self, output: Path, queries: Iterable[object]) -> None:
        """Refuse to write over a query or an indexed photograph.

        Raises:
            UsageError: `output` is one of them.
        """
        self._check_open()
        with self._lock, self._storage.ledger.snapshot():
            is_one = PhotographFinder(self._storage).own_ids(output, None)
        check_not_photograph(output, [output] if is_one else queries)

    def close(self) -> None:
        """Close ledger, vectors and network, after the current search."""
        if self._process != os.getpid():
            return  # they are the other process's to close
        with self._loading, self._lock:
            stack, self._stack = self._stack, None
            if stack is not None:
                stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise TypeError("an index cannot be sent to another process; open it there")

    def _check_open(self) -> ExitStack:
        if self._process != os.getpid():
            raise ClosedError(
                f"index {self.directory}: was opened before this process was forked; open it in "
                "each process"
            )
        if self._stack is None:
            raise ClosedError(f"index {self.directory}: is closed; open it again")
        if ledger_id(self.directory) != self._ledger_id:  # open files would go on answering
            raise ClosedError(
                f"index {self.directory}: was deleted or replaced since it was opened; "
                "open it again"
            )
        return self._stack

    def _check_filters(self, filters: Filters) -> None:
        """Refuse filters that cannot be meant; tell a person if nothing passes them."""
        if not filters:
            return
        with self._lock, self._storage.ledger.snapshot():
            selection = self._selector.select(filters)
        if selection is not None and not len(selection.positions):
            self._notify("no indexed photograph passes the filters, so that nothing will be found")

    def _faiss_gpu(self) -> Any:
        """Return what FAISS scans on a GPU with, None for the CPU; refuse a GPU that is not there.

        Whether the network will be needed as well is not known yet.
        """
        from alexnet_deploy.index.exact_scan import gpu_resources

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

    def _results(
        self,
        queries: Iterator[PhotographQuery | VectorQuery],
        criteria: Criteria,
        rotations: bool,
        summary: RunSummary,
    ) -> Generator[SearchResult, None, None]:
        """Do the work of `search`; apart from it, so that a wrong argument fails at the call."""
        counts: list[int] = []
        while some := list(islice(queries, _QUERIES_AT_ONCE)):
            self._check_open()
            vectors = self._with_vectors(some, rotations, summary)
            with self._lock:
                self._check_open()
                # While it lasts no commit can end, so none of the vectors can move.
                with self._storage.ledger.snapshot():
                    results = self._ranked(vectors, criteria, counts)
            yield from results
        summary.stop_clock()
        if (account := self._ranker.account(counts, criteria.effort)) is not None:
            self._notify(account)

    def _with_vectors(
        self,
        queries: Sequence[PhotographQuery | VectorQuery],
        rotations: bool,
        summary: RunSummary,
    ) -> list[VectorQuery]:
        """Take vectors that were given or that the index has, compute the others."""
        num_done, num_failed = summary.num_done, summary.num_failed
        known = [self._known(query) for query in queries]
        unknown = [
            query
            for query, found in zip(queries, known, strict=True)
            if isinstance(query, PhotographQuery) and (found is None or rotations)
        ]
        embedded: dict[object, VectorQuery] = dict(
            zip(unknown, self._embedded(unknown, rotations, summary), strict=True)
        )
        vectors = [
            _together(found, embedded.get(query))
            for query, found in zip(queries, known, strict=True)
        ]
        failed = sum(one.error is not None for one in vectors)
        summary.num_done, summary.num_failed = num_done + len(vectors) - failed, num_failed + failed
        return vectors

    def _known(self, query: PhotographQuery | VectorQuery) -> VectorQuery | None:
        """Return the vector, where it was given or the index has it of a file's bytes.

        Or of its name, where the vectors are another program's: no network makes them again.
        """
        sha256: bytes | None
        if isinstance(query, VectorQuery):
            return query
        if isinstance(query.source, bytes):
            sha256 = hashlib.sha256(query.source).digest()
        elif isinstance(query.source, Path):
            try:
                sha256 = read_stamped(query.source)[1].sha256
            except PhotographError:
                sha256 = None  # computing its vector will find the reason again
        else:
            return None
        with self._lock:
            self._check_open()
            # While it lasts the vector cannot move, and a segment that is not there is damage.
            with self._storage.ledger.snapshot():
                position = self._storage.position_of(sha256)
                if position is None and self.space.is_foreign and isinstance(query.source, Path):
                    position = PhotographFinder(self._storage).imported_position(query.source)
                if position is None:
                    return None
                vectors = intact_rows(self._storage, [position])
        return VectorQuery(query=query.query, sha256=sha256, vectors=vectors)

    def _embedded(
        self, photographs: Sequence[PhotographQuery], rotations: bool, summary: RunSummary
    ) -> list[VectorQuery]:
        """Send photographs through the network."""
        if not photographs:
            return []
        runner, layer = self._open_runner(), self.space.layer
        crop, vectors = crop_loader(runner.spec, self.space.decode), []
        batches = run_batches(
            TurningRunner(runner) if rotations else runner,
            photographs,
            load=lambda photograph: crop(photograph.source),
            threads=self._request.threads,
            summary=summary,
        )
        with closing(batches):
            for result in itertools.chain.from_iterable(batches):
                query = result.source.query
                if result.outputs is None:
                    vectors.append(VectorQuery(query=query, error=result.error))
                else:
                    outputs = result.outputs[layer]
                    vectors.append(rounded(query, outputs if rotations else outputs[None], layer))
        return vectors

    def _open_runner(self) -> Runner:
        # A lock of its own: searches that need no network go on while it is loaded.
        with self._loading:
            stack = self._check_open()
            if self._runner is None:
                runner = open_model_of(self._storage, self._request, self._notify)
                self._runner = stack.enter_context(runner)
                self._notify(runner.description)
            return self._runner

    def _ranked(
        self, queries: Sequence[VectorQuery], criteria: Criteria, counts: list[int]
    ) -> list[SearchResult]:
        """Search for those queries that have a vector, in one snapshot of the index.

        Of each vector it is added to `counts` how many were compared with it.
        """
        selection = self._selector.select(criteria.filters)
        finder = PhotographFinder(self._storage, selection)
        own = [finder.own_ids(query.query, query.sha256) for query in queries]
        vectors = [query.vectors for query in queries if query.vectors is not None]
        rankings = []
        if vectors:
            rankings = self._ranker.rank(
                np.concatenate(vectors),
                criteria.k + max(map(len, own)),
                metric=criteria.metric,
                threads=self._request.threads or default_threads(),
                among=None if selection is None else selection.positions,
                effort=criteria.effort,
            )
        counts += (ranking.num_compared for ranking in rankings)
        ranked = iter(rankings)
        results = []
        for query, ids in zip(queries, own, strict=True):
            neighbours: Iterable[Neighbour] = ()
            if query.vectors is not None:
                turned = list(islice(ranked, len(query.vectors)))
                ranking, numbers = nearest_of(turned, criteria.metric)
                neighbours = finder.neighbours(
                    ranking,
                    ids,
                    criteria,
                    sha256=query.sha256,
                    rotations=np.take(ROTATIONS, numbers),
                )
            some = tuple(islice(neighbours, criteria.k))
            results.append(SearchResult(query=query.query, neighbours=some, error=query.error))
        return results


def _together(known: VectorQuery | None, embedded: VectorQuery | None) -> VectorQuery:
    """Return the vectors of a query: as the index has it, turned only as the network saw it."""
    if known is None or embedded is None or embedded.vectors is None or known.vectors is None:
        query = known or embedded
        assert query is not None
        return query
    vectors = np.concatenate([known.vectors, embedded.vectors[1:]])
    return dataclasses.replace(known, vectors=vectors)
