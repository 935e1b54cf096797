"""What a run on an index begins with, and what comes of it when nothing disturbs it."""

import dataclasses
import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.export.opening import open_runner_of
from alexnet_deploy.graph.coder_file import write_coder
from alexnet_deploy.index.compressed_check import compressed_problems
from alexnet_deploy.index.compressed_files import read_compressed
from alexnet_deploy.index.hashes import stored_hashes
from alexnet_deploy.index.imported_roots import imported_roots
from alexnet_deploy.index.integrity import problems
from alexnet_deploy.index.ledger import LEDGER_NAME
from alexnet_deploy.index.manifest import read_manifest
from alexnet_deploy.index.results import Query
from alexnet_deploy.index.roots import Roots
from alexnet_deploy.index.storage import Storage, open_storage
from alexnet_deploy.inference.embeddings import EmbedOptions, embed
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.runtimes.base import RunnerOptions
from tests.support.coders import random_coder
from tests.support.killed_child import open_colour_runner
from tests.support.killed_runs import EXPORTED, Log, Run, execute

_FIRST_TIME_S, _SECOND_TIME_S = 1_000_000_000, 1_100_000_000  # of files, and of changed ones


class Difference(AssertionError):
    """A killed index is not what it should be; the message says how to come there again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What counts in an index.

    Attributes:
        rows: by id: path, size, time, hash of the content, status, reason.
        vectors: by hash of the content, the bytes of the float16 row.
        names: of the files beside the vectors, but for a temporary one that a killed creation
            has left; of those in `ann` and `exported`, the suffixes.
        hashes: by hash of the content, its perceptual hashes.
        imported: by path of a file of vectors, its size, time, and how many rows were read.
        exported: by name, the bytes of the files in `exported`; none while the first is missing.
        coder_widths: of the layers that make binary codes.
        num_compressed: of the vectors, how many have a compressed form.
        num_idle_segments: segments in which no vector is and none will go.
    """

    rows: Mapping[int, tuple[Any, ...]] = field(default_factory=dict)
    vectors: Mapping[bytes, bytes] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    hashes: Mapping[bytes, bytes] = field(default_factory=dict)
    imported: Mapping[Path, tuple[int, int, int]] = field(default_factory=dict)
    exported: Mapping[str, bytes] = field(default_factory=dict)
    coder_widths: tuple[int, ...] = ()
    num_compressed: int = 0
    num_idle_segments: int = 0

    @classmethod
    def read(cls, directory: Path) -> "State":
        """Read an index and check that it is whole."""
        names = os.listdir(directory)
        for folder in ("ann", EXPORTED):
            names += [f"{folder}/*{path.suffix}" for path in directory.glob(f"{folder}/*")]
        with open_storage(directory) as index:
            damage = [*problems(index), *compressed_problems(index)]
            if damage:
                raise Difference(f"is damaged: {damage}")
            found = stored_hashes(index)
            roots = Roots(index.ledger)
            rows = index.ledger.rows(
                "SELECT id, root, path, size, mtime_ns, sha256, status, reason FROM photographs"
            )
            positions = list(index.ledger.rows("SELECT sha256, position FROM vectors"))
            (next_position,) = index.ledger.one("SELECT next_position FROM settings")
            used = [next_position, *(position for _, position in positions)]
            segments = {position // index.manifest.segment_rows for position in used}
            return cls(
                rows={key: (roots.file(root, path), *fields) for key, root, path, *fields in rows},
                vectors={
                    sha256: index.segments.take(np.array([position])).tobytes()
                    for sha256, position in positions
                },
                names=tuple(sorted(names)),
                hashes=dict(zip(found.sha256s, map(bytes, found.hashes), strict=True)),
                imported=_imported(index),
                exported=_exported(directory / EXPORTED),
                coder_widths=_coder_widths(index),
                num_compressed=_num_compressed(index, [position for _, position in positions]),
                num_idle_segments=len(set(index.segments.numbers()) - segments),
            )

    def vectors_by_path(self) -> dict[Path, NDArray[np.float64]]:
        """Return the vectors of the photographs that have one."""
        return {
            path: np.frombuffer(self.vectors[sha256], "<f2").astype(np.float64)
            for path, _, _, sha256, status, _ in self.rows.values()
            if status == "indexed"
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A run, what it begins with, and what comes of it when nothing disturbs it.

    Attributes:
        run: its directory is that of the undisturbed index.
        base: the index that it begins with; None for none.
        before: of `base`.
        after: of the undisturbed index.
        log: of the undisturbed run.
        query: a photograph that is indexed before and after, or a vector.
        stranger: one that never is.
    """

    run: Run
    base: Path | None
    before: State
    after: State
    log: Log
    query: Query
    stranger: Path

    @classmethod
    def make(cls, run: Run, base: Path | None, *, query: Query, stranger: Path) -> "Scenario":
        """Run it undisturbed."""
        directory = Path(run.directory)
        if base is not None:
            shutil.copytree(base, directory)
        return cls(
            run=run,
            base=base,
            before=State() if base is None else State.read(base),
            log=execute(run),
            after=State.read(directory),
            query=query,
            stranger=stranger,
        )

    def possible_cosines(self) -> dict[Path, list[float]]:
        """Return for each photograph the cosines that a search may show during the run."""
        found: dict[Path, list[float]] = {}
        for state in (self.before, self.after):
            for path, cosine in cosines(state, self.query).items():
                found.setdefault(path, []).append(cosine)
        return found


def _num_compressed(index: Storage, positions: Sequence[int]) -> int:
    """Count the vectors that have a compressed form, and check the binary codes, if there are."""
    found = read_compressed(index)
    if found is None:
        return 0
    rows = np.flatnonzero(np.isin(found.positions, positions))
    if found.coder is not None:
        codes = found.coder.codes(index.segments.take(found.positions[rows]))
        num_other_bits = np.unpackbits(codes ^ found.bits[rows], axis=1).sum(axis=1)
        if (num_other_bits > 2).any():  # a number next to 0 may round otherwise
            raise Difference("the binary code of a vector is another's")
    return len(rows)


def _coder_widths(index: Storage) -> tuple[int, ...]:
    found = read_compressed(index)
    return () if found is None or found.coder is None else tuple(map(len, found.coder.biases))


def _imported(index: Storage) -> dict[Path, tuple[int, int, int]]:
    """Return size, time and number of rows of what was imported, all of them there."""
    found = {}
    for root in imported_roots(index.ledger):
        (count,) = index.ledger.one("SELECT count(*) FROM photographs WHERE root = ?", (root.id,))
        if count != root.num_read:
            raise Difference(f"has {count} of {root.num_read} rows of {root.path}")
        found[root.path] = (root.size, root.mtime_ns, root.num_read)
    return found


def _exported(folder: Path) -> dict[str, bytes]:
    """Return the files of an export: with the first, which appears last, all are there."""
    files = sorted(folder.glob("*.parquet"))
    is_there = bool(files) and files[0].name == "photographs-00000.parquet"
    return {file.name: file.read_bytes() for file in files} if is_there else {}


def make_scenarios(
    run: Run,
    fill: Callable[[Path], Path],
    spare: Sequence[Path],
    rng: random.Random,
) -> dict[str, Scenario]:
    """Run all scenarios undisturbed, in the folder of `run`; tools/kill_index.py says which.

    Args:
        run: what all have in common; its directory is a folder for all of it.
        fill: puts photographs into a folder, and returns one, of the first batch.
        spare: photographs of other content, at least a fifth as many, and one.
        rng: decides what changes.
    """
    place, stranger, scenarios = Path(run.directory), spare[-1], dict[str, Scenario]()

    def add(name: str, base: Path | None, query: Query, **options: Any) -> Path:
        directory = place / f"{name}-index"
        scenarios[name] = Scenario.make(
            dataclasses.replace(run, directory=str(directory), **options),
            base,
            query=query,
            stranger=stranger,
        )
        return directory

    base, folder = place / "base", str(place / "changed")
    query = fill(Path(folder))
    # This run is also the one that exports the checkpoint into the cache.
    execute(dataclasses.replace(run, directory=str(base), folder=folder))
    execute(dataclasses.replace(run, directory=str(base), folder=folder, task="duplicates"))
    _change(Path(folder), query, spare[:-1], rng)
    changed = add("changed", base, query, folder=folder, prune=True)
    add("exact", changed, query, folder=folder, ann="exact")

    folder = str(place / "new")
    query = fill(Path(folder))
    new = add("new", None, query, folder=folder)
    write_coder(random_coder(read_manifest(new).space), place / "coder.onnx")
    add("coder", new, query, folder=folder, ann=str(place / "coder.onnx"))
    add("hashed", _older(new, place / "older"), query, folder=folder, task="duplicates")
    add("exported", new, query, task="export")

    paths = sorted(scenarios["changed"].after.vectors_by_path())
    vectors = place / "vectors"
    _embed(paths, vectors / "a.parquet", run, new)
    vector = scenarios["new"].after.vectors_by_path()[query]
    add("imported", None, vector, folder=str(vectors), task="import")

    base, half = place / "with-vectors", len(paths) // 2
    vectors = place / "more"
    _embed(paths[:half], vectors / "a.parquet", run, new)
    shutil.copytree(new, base)
    execute(dataclasses.replace(run, directory=str(base), folder=str(vectors), task="import"))
    _embed(paths[half // 2 : half], vectors / "a.parquet", run, new)
    _embed(paths[half:], vectors / "b.parquet", run, new)
    add("added", base, query, folder=str(vectors), task="import")
    return scenarios


def _older(directory: Path, copy: Path) -> Path:
    """Return a copy of an index as it was before perceptual hashes were stored."""
    shutil.copytree(directory, copy)
    with closing(sqlite3.connect(copy / LEDGER_NAME)) as connection:
        connection.executescript("DROP TABLE imported; DROP TABLE hashes; PRAGMA user_version = 5")
    return copy


def _embed(photographs: Sequence[Path], file: Path, run: Run, directory: Path) -> None:
    """Write vectors of photographs as `embed` does, in the space of an index."""
    file.parent.mkdir(exist_ok=True)
    options = RunnerOptions(outputs=("fc7",))
    open_runner = open_colour_runner if run.is_fake else open_runner_of
    with open_runner(bundled_checkpoint(), options, notify=lambda _: None) as runner:
        decode = read_manifest(directory).space.decode
        embed(runner, photographs, file, EmbedOptions(decode=decode))


def settle(path: Path, time_s: int = _FIRST_TIME_S) -> None:
    """Let a file be old enough for its time to count."""
    os.utime(path, (time_s, time_s))


def cosines(state: State, query: Query) -> dict[Path, float]:
    """Return the cosine of the query and each other photograph; nothing if it is not indexed."""
    vectors = state.vectors_by_path()
    own = vectors.pop(query, None) if isinstance(query, Path) else query
    if not isinstance(own, np.ndarray):
        return {}
    return {
        path: float(own @ vector / np.linalg.norm(own) / np.linalg.norm(vector))
        for path, vector in vectors.items()
    }


def _change(folder: Path, kept: Path, spare: Sequence[Path], rng: random.Random) -> None:
    """Remove half of the photographs; rename, replace and add a tenth each."""
    photographs = sorted(path for path in folder.rglob("*") if path.is_file() and path != kept)
    rng.shuffle(photographs)
    few = len(photographs) // 10
    for path in photographs[:few]:
        path.rename(path.with_name(f"renamed-{path.name}"))
    for path in photographs[few : few + len(photographs) // 2]:
        path.unlink()
    replaced = photographs[-few:]
    added = [folder / f"new-{number:03d}{path.suffix}" for number, path in enumerate(replaced)]
    for source, target in zip(spare, replaced + added, strict=False):
        shutil.copyfile(source, target)
        settle(target, _SECOND_TIME_S)
