"""What a run on an index begins with, and what comes of it when nothing disturbs it."""

import dataclasses
import os
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.index.compressed_check import compressed_problems
from alexnet_deploy.index.compressed_files import read_compressed
from alexnet_deploy.index.integrity import problems
from alexnet_deploy.index.storage import Storage, open_storage
from tests.support.killed_runs import Log, Run, execute

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
            has left; of those in `ann`, the suffixes.
        num_compressed: of the vectors, how many have a compressed form.
        num_idle_segments: segments in which no vector is and none will go.
    """

    rows: Mapping[int, tuple[Any, ...]] = field(default_factory=dict)
    vectors: Mapping[bytes, bytes] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    num_compressed: int = 0
    num_idle_segments: int = 0

    @classmethod
    def read(cls, directory: Path) -> "State":
        """Read an index and check that it is whole."""
        names = os.listdir(directory)
        names += [f"ann/*{path.suffix}" for path in directory.glob("ann/*")]
        with open_storage(directory) as index:
            found = [*problems(index), *compressed_problems(index)]
            if found:
                raise Difference(f"is damaged: {found}")
            rows = index.ledger.rows(
                "SELECT p.id, CAST(r.path || '/' || p.path AS BLOB), size, mtime_ns, sha256, "
                "status, reason FROM photographs p JOIN roots r ON r.id = p.root"
            )
            positions = list(index.ledger.rows("SELECT sha256, position FROM vectors"))
            (next_position,) = index.ledger.one("SELECT next_position FROM settings")
            used = [next_position, *(position for _, position in positions)]
            segments = {position // index.manifest.segment_rows for position in used}
            return cls(
                rows={key: tuple(fields) for key, *fields in rows},
                vectors={
                    sha256: index.segments.take(np.array([position])).tobytes()
                    for sha256, position in positions
                },
                names=tuple(sorted(names)),
                num_compressed=_num_compressed(index, [position for _, position in positions]),
                num_idle_segments=len(set(index.segments.numbers()) - segments),
            )

    def vectors_by_path(self) -> dict[Path, NDArray[np.float64]]:
        """Return the vectors of the photographs that have one."""
        return {
            Path(os.fsdecode(path)): np.frombuffer(self.vectors[sha256], "<f2").astype(np.float64)
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
        query: a photograph that is indexed before and after.
        stranger: one that never is.
    """

    run: Run
    base: Path | None
    before: State
    after: State
    log: Log
    query: Path
    stranger: Path

    @classmethod
    def make(cls, run: Run, base: Path | None, *, query: Path, stranger: Path) -> "Scenario":
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


def make_scenarios(
    run: Run,
    fill: Callable[[Path], Path],
    spare: Sequence[Path],
    rng: random.Random,
) -> tuple[Scenario, Scenario, Scenario]:
    """Run three scenarios undisturbed, in the folder of `run`.

    A new index; one that changes; and one whose compressed vectors are removed.

    Args:
        run: what both have in common; its directory is a folder for all of it.
        fill: puts photographs into a folder, and returns one, of the first batch.
        spare: photographs of other content, at least a fifth as many, and one.
        rng: decides what changes.
    """
    place = Path(run.directory)
    stranger, base, folder = spare[-1], place / "base", place / "changed"
    query = fill(folder)
    # This run is also the one that exports the checkpoint into the cache.
    execute(dataclasses.replace(run, directory=str(base), folder=str(folder)))
    _change(folder, query, spare[:-1], rng)
    changing = dataclasses.replace(
        run, directory=str(place / "changed-index"), folder=str(folder), prune=True
    )
    changed = Scenario.make(changing, base, query=query, stranger=stranger)
    removing = dataclasses.replace(
        run, directory=str(place / "exact-index"), folder=str(folder), ann="exact"
    )
    exact = Scenario.make(removing, Path(changing.directory), query=query, stranger=stranger)
    query = fill(place / "new")
    making = dataclasses.replace(run, directory=str(place / "new-index"), folder=str(place / "new"))
    return Scenario.make(making, None, query=query, stranger=stranger), changed, exact


def settle(path: Path, time_s: int = _FIRST_TIME_S) -> None:
    """Let a file be old enough for its time to count."""
    os.utime(path, (time_s, time_s))


def cosines(state: State, query: Path) -> dict[Path, float]:
    """Return the cosine of the query and each other photograph; nothing if it is not indexed."""
    vectors = state.vectors_by_path()
    own = vectors.pop(query, None)
    if own is None:
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
