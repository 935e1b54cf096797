"""Bring an index up to date with folders of photographs: `alexnet-deploy index`.

Photographs are embedded in batches. A batch is committed as a whole: its vectors are appended and
synced, then one transaction of the ledger names them. A killed run loses only the current batch;
running it again continues from there, with the same batches.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from alexnet_deploy.choices import Ann
from alexnet_deploy.errors import Argument, UsageError
from alexnet_deploy.index.exclusions import Patterns, within
from alexnet_deploy.index.keeping import Keeper, check_ann
from alexnet_deploy.index.maintenance import compact, forget_damaged, remove_unnamed_segments
from alexnet_deploy.index.model import (
    ModelRequest,
    check_is_own,
    check_model,
    check_request,
    create_index,
    open_model_of,
    remember_model,
)
from alexnet_deploy.index.report import IndexReport
from alexnet_deploy.index.roots import Root, move_root
from alexnet_deploy.index.scan import Scan, photographs_in
from alexnet_deploy.index.scopes import Scope, check_folders, remove_folder, scopes
from alexnet_deploy.index.storage import Storage, is_index, open_storage_to_write, remove_parts
from alexnet_deploy.index.writer import BatchCounts, BatchWriter
from alexnet_deploy.inference.failures import no_photographs
from alexnet_deploy.inference.run import PhotographResult, run_batches
from alexnet_deploy.photographs.suffixes import LeftOut
from alexnet_deploy.runtimes.base import Runner


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateOptions:
    """What a run does besides indexing new and changed photographs.

    Attributes:
        include_hidden: include hidden files of the given folders, from now on.
        retry_failed: retry what failed in an earlier run.
        prune: remove the photographs that are gone, however many, with their vectors.
        repair: check all vectors, re-embed the damaged ones, and compress them again if what is
            compressed is of others.
        moved_roots: "OLD=NEW" for each root that has moved.
        exclude: patterns, see `exclusions`, that the roots of the given folders leave out from now
            on; None for those that they have.
        remove: folders to take out of the index; where none are given to index, nothing else is
            done.
        ann: whether the vectors are compressed, see `keeping.Keeper`.
    """

    include_hidden: bool = False
    retry_failed: bool = False
    prune: bool = False
    repair: bool = False
    moved_roots: tuple[str, ...] = ()
    exclude: tuple[str, ...] | None = None
    remove: tuple[Path, ...] = ()
    ann: Ann | int | Path = "auto"

    def __post_init__(self) -> None:
        """Check `ann`; raises `ArgumentError`."""
        check_ann(self.ann)


def bring_up_to_date(
    directory: Path,
    folders: Sequence[Path],
    request: ModelRequest | None = None,
    options: UpdateOptions | None = None,
    *,
    report: IndexReport | None = None,
    on_plan: Callable[[int], None] = lambda _: None,
    on_result: Callable[[PhotographResult[Path]], None] = lambda _: None,
    notify: Callable[[str], None] = lambda _: None,
) -> IndexReport:
    """Index new and changed photographs in `folders`; remove those that are gone.

    A photograph whose content is indexed reuses that vector, under whatever name. If a root would
    lose more than a fifth of its photographs, they are kept and reported, unless `options.prune`.

    Args:
        directory: of the index; created if it does not exist.
        folders: of photographs; empty for all roots of the index, see `named_folders`.
        request: the model; what it leaves open is the index's own.
        options: what else to do.
        report: updated during the run.
        on_plan: called once with the number of photographs to read.
        on_result: called for each of these, failures included, once committed.
        notify: called with human-readable lines.

    Returns:
        `report`; call its `check_losses`.

    Raises:
        NoPhotographsError: there are no photographs, and the index knows none there.
        UsageError: a folder that does not exist, an index directory that is not an index.
        IncompatibleFileError: the index is damaged, or `request` is not of its vector space.
        IndexLockedError: another process writes to it.
        OutputError: it cannot be written; what was committed stays.
    """
    request, options = request or ModelRequest(), options or UpdateOptions()
    report = report or IndexReport(directory=directory)
    with ExitStack() as stack:
        runner = None
        if not is_index(directory):
            found = _photographs_to_come(folders, options)
            runner = stack.enter_context(create_index(directory, request, found, notify))
        index = stack.enter_context(open_storage_to_write(directory))
        check_request(index, request)
        _tell_kept(index, request, runner, notify)
        if runner is not None:
            check_model(index, runner, request.model)
        elif request.model is not None:
            runner = stack.enter_context(open_model_of(index, request, notify))
            remember_model(index, request.model)
        run = _Run(index, request, options, report, notify)
        run.prepare()
        scan = run.scan(folders)
        on_plan(scan.num_tasks)
        if scan.num_tasks:
            runner = runner or stack.enter_context(open_model_of(index, request, notify))
            run.embed(scan, runner, on_result)
        run.finish(scan)
    return report


def _tell_kept(
    index: Storage, request: ModelRequest, new: Runner | None, notify: Callable[[str], None]
) -> None:
    """Say that there was nothing to choose, where an index was there already."""
    if request.fast and new is None:
        space = index.manifest.space
        notify(
            f"fast: {space.precision} and {space.decode.scale} decoding, as chosen when the index "
            "was made"
        )


def _photographs_to_come(folders: Sequence[Path], options: UpdateOptions) -> Iterator[Path]:
    """Return the photographs of a new index; raise rather than create an empty one."""
    for name, values in (("moved_roots", options.moved_roots), ("remove", options.remove)):
        if values:
            raise UsageError(
                Argument(name, values[0]), ": the index does not exist yet, so it has no folders"
            )
    check_folders(folders)
    left_out = LeftOut()
    if next(_photographs(folders, options, left_out), None) is None:
        raise no_photographs(left_out)
    return _photographs(folders, options)


def _photographs(
    folders: Sequence[Path],
    options: UpdateOptions,
    left_out: Callable[[str], None] = lambda path: None,
) -> Iterator[Path]:
    for folder in folders:
        path = Path(os.path.realpath(folder))
        root = Root(id=0, path=path, include_hidden=options.include_hidden)
        inside = (within(pattern, path) for pattern in options.exclude or ())
        exclusions = Patterns(pattern for pattern in inside if pattern is not None)
        yield from photographs_in(path, root, exclusions, left_out=left_out)


class _Run:
    """The steps of one run on an open, locked index."""

    def __init__(
        self,
        index: Storage,
        request: ModelRequest,
        options: UpdateOptions,
        report: IndexReport,
        notify: Callable[[str], None],
    ) -> None:
        self._index = index
        self._request = request
        self._options = options
        self._report = report
        self._notify = notify
        self._runner_description: str | None = None
        self._run_id = 0
        self._keeper = Keeper(index, options.ann, request.threads, notify)

    def prepare(self) -> None:
        """Clean up after a killed run; forget damaged vectors if requested."""
        remove_parts(self._index.directory)
        remove_unnamed_segments(self._index)
        if self._options.repair:
            num_damaged = forget_damaged(self._index)
            again = "; their folders' next run embeds them, or their files' next import takes them"
            remedy = f"{again} again" if num_damaged else ""
            self._notify(f"{num_damaged:,} damaged vectors{remedy}")

    def scan(self, folders: Sequence[Path]) -> Scan:
        """Determine the scopes and compare them with the ledger."""
        if folders:
            check_is_own(self._index)
        ledger = self._index.ledger
        with ledger.transaction():
            for old_and_new in self._options.moved_roots:
                move_root(ledger, old_and_new, directory=self._index.directory)
            for folder in self._options.remove:
                self._report.num_removed += remove_folder(ledger, folder)
            found: list[Scope] = []
            if folders or not self._options.remove:
                found = scopes(
                    ledger,
                    folders,
                    include_hidden=self._options.include_hidden,
                    exclude=self._options.exclude,
                    directory=self._index.directory,
                )
            scan = Scan(
                ledger,
                found,
                directory=self._index.directory,
                retry_failed=self._options.retry_failed,
                left_out=self._report.summary.left_out,
            )
            known = scan.num_found or scan.num_gone or scan.num_waiting
            if found and not (known or self._options.remove):
                raise no_photographs(self._report.summary.left_out)
            self._tell_unmatched(scan, found)
            ledger.execute("INSERT INTO runs (started) VALUES (?)", (time.time(),))
            (self._run_id,) = ledger.one("SELECT max(id) FROM runs")
        self._keeper.plan(scan.num_tasks)
        self._report.num_failed_before = scan.num_failed_before
        self._report.num_unchanged = scan.num_found - scan.num_tasks - scan.num_failed_before
        return scan

    def _tell_unmatched(self, scan: Scan, scopes: Sequence[Scope]) -> None:
        """Say which of the patterns that were given now may be a slip."""
        for scope in scopes:
            if self._options.exclude is not None and not scope.prefix:
                for pattern in sorted(scan.unmatched(scope.root)):
                    self._notify(f"{scope.root.path}: nothing in it matches {pattern}")

    def embed(
        self, scan: Scan, runner: Runner, on_result: Callable[[PhotographResult[Path]], None]
    ) -> None:
        """Read the scan's tasks, and commit them batch by batch."""
        self._notify(runner.description)
        self._runner_description = runner.description
        writer = BatchWriter(self._index, runner.spec)
        batches = run_batches(
            runner,
            writer.following(scan.tasks()),
            load=writer.load,
            needs_row=writer.needs_row,
            threads=self._request.threads,
            summary=self._report.summary,
        )
        try:
            with closing(batches):
                for results in batches:
                    self._count(writer.commit(results), on_result)
        except KeyboardInterrupt:
            num_committed = self._report.num_embedded + self._report.num_reused
            self._notify(f"{num_committed:,} photographs are indexed; run it again to continue")
            raise

    def _count(
        self, counts: BatchCounts, on_result: Callable[[PhotographResult[Path]], None]
    ) -> None:
        self._report.num_embedded += counts.num_embedded
        self._report.num_reused += counts.num_reused
        self._report.num_unchanged += counts.num_unchanged
        self._report.num_failed += counts.num_failed
        for result in counts.results:
            on_result(result)

    def finish(self, scan: Scan) -> None:
        """Remove what is gone, and record the run; what is compressed then names it."""
        losses = scan.losses()
        kept = () if self._options.prune else tuple(loss for loss in losses if loss.is_suspicious)
        self._report.losses = kept
        self._report.num_removed += scan.remove_gone([loss for loss in losses if loss not in kept])
        if self._options.prune:
            compact(self._index)
        report = self._report
        with self._index.ledger.transaction():
            self._index.ledger.execute(
                "UPDATE runs SET finished = ?, runner = ?, embedded = ?, reused = ?, "
                "unchanged = ?, failed = ?, removed = ? WHERE id = ?",
                (
                    *(time.time(), self._runner_description, report.num_embedded),
                    *(report.num_reused, report.num_unchanged, report.num_failed),
                    *(report.num_removed, self._run_id),
                ),
            )
        self._keeper.carry_out(repair=self._options.repair)
        report.summary.stop_clock()
