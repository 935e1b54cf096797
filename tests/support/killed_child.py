"""One change of an index, in a process of its own that says where it is, to be killed there.

    python killed_child.py '{"directory": "...", "folder": "...", "prune": false, ...}'

The package has no hooks for this: its functions are wrapped from outside. Each line on standard
output is written at once, and is a time (monotonic clock, ns), a word, and

    at       the step that goes on from this moment, with what it is a part of: prune/append
    through  the hashes of the photographs that go through the network next, one batch

The keys of the argument are the fields of `killed_runs.Run`.
"""

import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from alexnet_deploy.choices import ANNS
from alexnet_deploy.index import compressed_files, manifest, update, writer
from alexnet_deploy.index import model as index_runner
from alexnet_deploy.index.compressed_files import CompressedWriter
from alexnet_deploy.index.keeping import Keeper
from alexnet_deploy.index.ledger import Ledger
from alexnet_deploy.index.model import ModelRequest
from alexnet_deploy.index.named_folders import remember_folders
from alexnet_deploy.index.scan import Scan
from alexnet_deploy.index.segments import Segments
from alexnet_deploy.index.writer import BatchWriter
from alexnet_deploy.photographs.pipeline import Loaded
from alexnet_deploy.runtimes.base import Runner, RunnerOptions
from tests.support.fake_runner import FakeRunner
from tests.support.killed_runs import EXPORTED, Task

PIECE_BYTES, PAUSE_S = 4096, 2e-5
"""A disk may take less than it is given, and its time: a kill can come between the two halves of
a vector."""
LONG_PAUSE_S = 5e-3
"""For what takes less time than a kill needs to come."""
NUM_ROWS = 32
"""Committed at a time, or written into a file, where an index of millions has more."""


class ColourRunner(FakeRunner):
    """A vector holds the colour of its photograph, again and again: another colour, another one."""

    def run(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        """Return the outputs of one batch."""
        colours = images[:, 0, 0].astype(np.float32)
        outputs = {}
        for name, array in super().run(images).items():
            outputs[name] = np.take(colours, np.arange(array[0].size) % 3, axis=1)
            outputs[name] = outputs[name].reshape(array.shape)
        return outputs


def open_colour_runner(
    model: Path | None, options: RunnerOptions, *, notify: Callable[[str], None]
) -> Runner:
    """Stand in for `opening.open_runner_of`."""
    return ColourRunner(options)


class Reporter:
    """Say where the process is: the steps that it is in, the outermost first."""

    def __init__(self) -> None:
        self._steps: list[str] = []
        self._waiting: list[str] = []

    def enter(self, step: str) -> None:
        """Say that a step begins."""
        self._steps.append(step)
        self._say("at", "/".join(self._steps))

    def leave(self) -> None:
        """Say that the last step has ended."""
        self._steps.pop()
        self._say("at", "/".join(self._steps))

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Say so when the block begins and ends."""
        self.enter(name)
        yield
        self.leave()

    def watch(self, owner: Any, function_name: str, name: str, pause_s: float = 0.0) -> None:
        """Let each call of a function be a step, which begins and ends with a pause."""
        function = getattr(owner, function_name)

        @functools.wraps(function)
        def watched(*arguments: Any, **keywords: Any) -> Any:
            with self.step(name):
                time.sleep(pause_s)
                result = function(*arguments, **keywords)
                time.sleep(pause_s)
                return result

        setattr(owner, function_name, watched)

    def watch_creation(self) -> None:
        """Let "creation" go from the moment that the runner is there to the index's."""
        new_manifest, create_index = manifest.new_manifest, index_runner.create_index

        def begun(*arguments: Any, **keywords: Any) -> Any:
            self.enter("creation")
            return new_manifest(*arguments, **keywords)

        def ended(*arguments: Any, **keywords: Any) -> Any:
            runner = create_index(*arguments, **keywords)
            self.leave()
            return runner

        vars(index_runner)["new_manifest"] = begun
        vars(update)["create_index"] = ended
        self.watch(Ledger, "create", "ledger")
        self.watch(index_runner, "_remember_model", "model")
        self.watch(index_runner, "write_manifest", "manifest")

    def watch_batches(self) -> None:
        """Let "insert" go from its first statement to the commit that ends it."""
        insert_vectors, commit = writer._insert_vectors, Ledger.commit

        def begun(*arguments: Any) -> None:
            self.enter("insert")
            time.sleep(LONG_PAUSE_S)
            insert_vectors(*arguments)

        def ended(*arguments: Any) -> None:
            is_batch = self._steps[-1] == "insert"
            if is_batch:
                self._steps.pop()
            with self.step("commit" if is_batch else "other commit"):
                commit(*arguments)

        vars(writer)["_insert_vectors"] = begun
        setattr(Ledger, "commit", ended)  # noqa: B010
        self.watch(Segments, "append", "append")
        self.watch(Segments, "sync", "sync")

    def watch_network(self) -> None:
        """Note of which photographs the network is to see a row, and say them when it does."""
        needs_row, open_runner_of = BatchWriter.needs_row, vars(index_runner)["open_runner_of"]

        def noted(batches: BatchWriter, loaded: Loaded) -> bool:
            is_needed = needs_row(batches, loaded)
            if is_needed and loaded.stamp is not None:
                self._waiting.append(loaded.stamp.sha256.hex())
            return is_needed

        def opened(*arguments: Any, **keywords: Any) -> Runner:
            with self.step("opening the runner"):
                runner: Runner = open_runner_of(*arguments, **keywords)
            run = runner.run

            def watched(images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
                self._say("through", " ".join(self._waiting))
                self._waiting.clear()
                with self.step("network"):
                    return run(images)

            vars(runner)["run"] = watched
            return runner

        setattr(BatchWriter, "needs_row", noted)  # noqa: B010
        vars(index_runner)["open_runner_of"] = opened

    def watch_compression(self, step: str) -> None:
        """Let what is done to the compressed vectors be a step, and each file of it a part."""
        self.watch(Keeper, "carry_out", step)
        for function_name, part in (
            ("begin", "axes"),
            ("append", "rows"),
            ("commit", "record"),
        ):
            self.watch(CompressedWriter, function_name, part, LONG_PAUSE_S)
        self.watch(compressed_files, "remove_file", "old file", LONG_PAUSE_S)

    def _say(self, word: str, rest: str) -> None:
        """Write a line in one call: a kill leaves all of it or nothing."""
        os.write(1, f"{time.monotonic_ns()} {word} {rest}\n".encode())


def write_slowly(
    write: Callable[[int, memoryview, int], int], file: int, data: memoryview, offset: int
) -> int:
    """Stand in for `os.pwrite`."""
    time.sleep(PAUSE_S)
    return write(file, data[:PIECE_BYTES], offset)


def index(run: Mapping[str, Any], reporter: Reporter) -> None:
    """Bring the index up to date with the folder."""
    is_coder = run["ann"] not in ANNS and isinstance(run["ann"], str)
    reporter.watch_network()
    reporter.watch_creation()
    reporter.watch(update._Run, "scan", "scan")
    if run["prune"]:
        reporter.watch(Scan, "remove_gone", "prune")
        reporter.watch(update, "compact", "prune")
    reporter.watch_compression(
        "coder" if is_coder else "removal" if run["ann"] == "exact" else "compress"
    )
    ann = Path(run["ann"]) if is_coder else run["ann"]
    with reporter.step("run"):
        update.bring_up_to_date(
            Path(run["directory"]),
            [Path(run["folder"])],
            ModelRequest(batch_size=run["batch_size"]),
            update.UpdateOptions(prune=run["prune"], ann=ann),
        )


def import_vectors(run: Mapping[str, Any], reporter: Reporter) -> None:
    """Import the files of vectors in the folder."""
    from alexnet_deploy.index import imported, imported_files

    vars(imported_files)["_BATCH_ROWS"] = run["batch_size"] or NUM_ROWS
    reporter.watch(imported, "create_empty", "creation")
    reporter.watch_creation()
    reporter.watch(imported, "_import", "import")
    reporter.watch_compression("compress")
    with reporter.step("run"):
        imported.import_files(
            Path(run["directory"]), [Path(run["folder"])], ModelRequest(), ann=run["ann"]
        )


def duplicates(run: Mapping[str, Any], reporter: Reporter) -> None:
    """Look for duplicates, for which perceptual hashes are stored."""
    from alexnet_deploy.index import duplicates, hashes

    vars(hashes)["_ROWS_PER_COMMIT"] = run["batch_size"] or NUM_ROWS
    reporter.watch(Ledger, "migrate", "migration")
    reporter.watch(duplicates, "store_hashes", "hash")
    reporter.watch(hashes, "_store", "rows")
    remember_folders(Path(run["directory"]), [Path(run["folder"])])
    with reporter.step("run"):
        duplicates.find_duplicates(Path(run["directory"]))


def export(run: Mapping[str, Any], reporter: Reporter) -> None:
    """Export the vectors into several files."""
    from alexnet_deploy.index import exported

    vars(exported)["_FILE_ROWS"] = run["batch_size"] or NUM_ROWS
    reporter.watch(exported, "_write", "file")
    reporter.watch(os, "replace", "rename", LONG_PAUSE_S)
    directory = Path(run["directory"])
    with reporter.step("run"), reporter.step("export"):
        exported.export_files(directory, directory / EXPORTED)


TASKS: Mapping[Task, Callable[[Mapping[str, Any], Reporter], None]] = {
    "index": index,
    "import": import_vectors,
    "duplicates": duplicates,
    "export": export,
}


def main() -> None:
    """Run once."""
    run = json.loads(sys.argv[1])
    manifest.SEGMENT_BYTES = run["segment_bytes"]
    vars(os)["pwrite"] = functools.partial(write_slowly, os.pwrite)
    if run["is_fake"]:
        vars(index_runner)["open_runner_of"] = open_colour_runner
    reporter = Reporter()
    reporter.watch_batches()
    TASKS[run["task"]](run, reporter)


if __name__ == "__main__":
    main()
