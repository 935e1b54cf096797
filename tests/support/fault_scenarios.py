"""What writes files, what must be true after it has failed, and that it succeeds the next time.

Each scenario prepares a place once. Then, again and again in a copy of it, it runs with a fault, is
checked, and runs once more without one.
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

import alexnet_deploy.index.model
from alexnet_deploy.files.output_files import errors_of
from alexnet_deploy.index import manifest
from alexnet_deploy.index.integrity import problems
from alexnet_deploy.index.storage import is_index, open_storage
from alexnet_deploy.index.update import UpdateOptions, bring_up_to_date
from alexnet_deploy.inference import embeddings
from alexnet_deploy.inference.embeddings import EmbedOptions, embed, files_of
from alexnet_deploy.inference.provenance import Provenance, provenance_of
from alexnet_deploy.inference.run import PhotographResult
from alexnet_deploy.model.spec import preset_spec
from alexnet_deploy.runtimes.base import RunnerOptions
from tests.support.fake_runner import FakeRunner
from tests.support.index_runner import (
    DIMENSION,
    REQUEST,
    Colour,
    Row,
    Runners,
    photograph,
    rows_of,
    save,
    search,
    vector_of,
)
from tests.support.killed_scenarios import State

_NUM_COLOURS = 6
_ROWS_PER_SEGMENT = 4  # a batch of three crosses into the next one


class Scenario(Protocol):
    """See the module; the place is a folder of any path."""

    def prepare(self, place: Path) -> None:
        """Make what a run begins with, in an empty folder."""

    def run(self, place: Path) -> None:
        """Do what writes."""

    def check(self, place: Path) -> None:
        """Raise an `AssertionError` unless all is well after a run that has failed."""

    def check_done(self, place: Path) -> None:
        """Raise an `AssertionError` unless the run has done all that it should."""


class IndexScenario:
    """An update of an index with a runner that sees colours.

    Args:
        kind: "new" makes the index; "changed" prunes one most of whose photographs are gone, with
            one replaced and one new; "repaired" repairs one with damaged vectors.
    """

    def __init__(self, kind: Literal["new", "changed", "repaired"]) -> None:
        self._kind = kind
        self._options = UpdateOptions(prune=kind == "changed", repair=kind == "repaired")
        self._before: Mapping[Path, Row] = {}
        self.committed: list[Path] = []
        self.harmless: set[str] = set()  # files that may be left over

    def prepare(self, place: Path) -> None:
        vars(alexnet_deploy.index.model)["open_runner_of"] = Runners().open
        manifest.SEGMENT_BYTES = _ROWS_PER_SEGMENT * 2 * DIMENSION
        photos = place / "photos"
        save(photos / "bad.bmp", b"no photograph")
        for number in range(_NUM_COLOURS):
            save(photos / f"{number}.bmp", self._colour(number))
        save(photos / "copy.bmp", self._colour(3))
        if self._kind == "new":
            return
        self._update(place, UpdateOptions())
        self._before = rows_of(place / "index")
        if self._kind == "changed":
            for number in (0, 1, 2, 4):
                (photos / f"{number}.bmp").unlink()
            save(photos / "5.bmp", photograph(self._colour(16)))
            save(photos / "new.bmp", self._colour(8))
        else:
            with open(place / "index" / "vectors" / "00000.f16", "r+b") as file:
                file.write(b"damage")
            (place / "index" / "vectors" / "00001.f16").write_bytes(b"short")

    def run(self, place: Path) -> None:
        self._update(place, self._options)

    def _update(self, place: Path, options: UpdateOptions) -> None:
        self.committed = []
        directory, folder = place / "index", place / "photos"
        bring_up_to_date(directory, [folder], REQUEST, options, on_result=self.note)

    def note(self, result: PhotographResult[Path]) -> None:
        """Remember that the index has promised to keep a photograph."""
        self.committed.append(result.source)

    def check(self, place: Path) -> None:
        directory = place / "index"
        if not is_index(directory):
            assert self._kind == "new", "the index is gone"
            assert not self.committed, f"{self.committed} were committed to no index"
            return
        with open_storage(directory) as index:
            found = list(problems(index))
        # A repair has forgotten vectors, or has yet to.
        is_damaged = self._kind == "repaired"
        assert is_damaged or found == [], found
        rows = self._statuses(directory) if is_damaged else rows_of(directory)
        photos = place / "photos"
        for path in self.committed:
            assert path in rows, f"{path} was committed"
            expected = "failed" if path.name == "bad.bmp" else "indexed"
            assert rows[path].status == expected, rows[path]
        for path in self._before.keys() - self.committed:
            assert path in rows or not path.exists(), f"{path} was indexed before"
        for path, row in rows.items():
            self._check_vector(path, row)
        if not is_damaged:
            (result,) = search(directory, [photos / "3.bmp"])
            assert result.error is None, result.error

    def check_done(self, place: Path) -> None:
        directory, photos = place / "index", place / "photos"
        state = State.read(directory)  # which finds all problems
        # A repair leaves the segment that it gave up to the next run.
        assert state.num_idle_segments == 0 or self._kind == "repaired"
        names = {"ledger.sqlite", "lock", "manifest.json", "vectors"}
        assert set(state.names) - self.harmless == names, state.names
        rows = rows_of(directory)
        assert set(rows) == set(photos.iterdir()), sorted(rows)
        for path, row in rows.items():
            assert row.status == ("failed" if path.name == "bad.bmp" else "indexed"), (path, row)
            self._check_vector(path, row, may_be_old=False)

    def _statuses(self, directory: Path) -> dict[Path, Row]:
        """Return the rows without their vectors, some of which cannot be read."""
        state = {}
        with open_storage(directory) as index:
            sql = "SELECT r.path, p.path, p.id, status, reason FROM photographs p " + (
                "JOIN roots r ON r.id = p.root"
            )
            for root, path, key, status, reason in index.ledger.rows(sql):
                row = Row(id=key, status=status, reason=reason, vector=None)
                state[Path(os.fsdecode(root), os.fsdecode(path))] = row
        return state

    def _check_vector(self, path: Path, row: Row, *, may_be_old: bool = True) -> None:
        if row.vector is None:
            return
        stem = "3" if path.stem == "copy" else path.stem
        number = 8 if stem == "new" else int(stem)
        numbers = {number}
        if number == 5 and self._kind == "changed":
            numbers = {5, 16} if may_be_old else {16}
        vectors = [tuple(vector_of(self._colour(each)).tolist()) for each in numbers]
        assert row.vector in vectors, f"{path} has another vector"

    def _colour(self, number: int) -> Colour:
        return (number + 1, 99, 7)


class Files:
    """Output files that are replaced: old or new as a whole, or, of several, some missing.

    Attributes:
        names: of the files.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self._old: dict[str, bytes] = {}
        self._new: dict[str, bytes] = {}

    def remember(self, place: Path, *, are_new: bool) -> None:
        """Take the files as they are for the old ones, or for the new ones."""
        contents = {name: (place / name).read_bytes() for name in self.names}
        if are_new:
            self._new = contents
            for name in self.names:
                (place / name).write_bytes(self._old[name])
        else:
            self._old = contents

    def check(self, place: Path) -> None:
        """Raise unless no file is in part, and no new one beside an old one."""
        there = {name: self._version(place / name) for name in self.names}
        versions = set(there.values()) - {"missing"}
        assert versions <= {"old"} or versions <= {"new"}, there
        assert len(self.names) > 1 or "missing" not in there.values(), there

    def check_done(self, place: Path) -> None:
        """Raise unless all files are the new ones."""
        there = {name: self._version(place / name) for name in self.names}
        assert set(there.values()) == {"new"}, there

    def _version(self, path: Path) -> str:
        if not path.exists():
            return "missing"
        content = path.read_bytes()
        if content == self._old[path.name]:
            return "old"
        return "new" if content == self._new[path.name] else "neither"


def _undated(*arguments: Any, **keywords: Any) -> Provenance:
    """Return a record that is the same in every run."""
    return dataclasses.replace(provenance_of(*arguments, **keywords), date="2012-12-03T00:00:00Z")


class EmbedScenario:
    """`embed` over the files of another run.

    Args:
        name: of the output.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._layers = ("logits", "probabilities")
        self._files = Files(tuple(path.name for path in files_of(Path(name), self._layers)))

    def prepare(self, place: Path) -> None:
        vars(embeddings)["provenance_of"] = _undated
        for number in range(5):
            save(place / "photos" / f"{number}.bmp", (number + 1, 99, 7))
        self._embed(place, 2)
        self._files.remember(place, are_new=False)
        self._embed(place, 5)
        self._files.remember(place, are_new=True)

    def run(self, place: Path) -> None:
        self._embed(place, 5)

    def _embed(self, place: Path, num_photographs: int) -> None:
        options = RunnerOptions(batch_size=2, outputs=self._layers)
        photographs = sorted((place / "photos").iterdir())[:num_photographs]
        kept = EmbedOptions(layers=self._layers)
        embed(FakeRunner(options), photographs, place / self._name, kept, threads=1)

    def check(self, place: Path) -> None:
        self._files.check(place)

    def check_done(self, place: Path) -> None:
        self._files.check_done(place)


class ExportScenario:
    """An export of a checkpoint to `.onnx`, and of an engine with its sidecar."""

    def __init__(self) -> None:
        self._file = Files(("m.onnx",))
        self._pair = Files(("m.engine.json", "m.engine"))

    def prepare(self, place: Path) -> None:
        for seed in (1, 2):
            self._write(place, seed)
            for files in (self._file, self._pair):
                files.remember(place, are_new=seed == 2)

    def run(self, place: Path) -> None:
        self._write(place, 2)

    def _write(self, place: Path, seed: int) -> None:
        from alexnet_deploy.export.onnx import export_onnx
        from alexnet_deploy.model.checkpoints import Checkpoint
        from alexnet_deploy.runtimes.engine_file import write_engine
        from tests.support.trt_stub.fake_runtime import FILE

        spec = preset_spec("paper", num_classes=2)
        spec = dataclasses.replace(spec, widths=(2, 2, 2, 2, 2), provenance={"seed": seed})
        rng = np.random.default_rng(seed)
        arrays: dict[str, NDArray[np.float32]] = {}
        for name, (rows, *columns) in spec.array_shapes().items():
            parts = {name: (rows, *columns)}
            if name in ("fc6.weight", "fc7.weight"):
                parts = {f"{name}.left": (rows, 1), f"{name}.right": (1, columns[0])}
            arrays |= {
                part: rng.standard_normal(shape, np.float32) for part, shape in parts.items()
            }
        checkpoint = Checkpoint(spec=spec, arrays=arrays)
        export_onnx(checkpoint, place / "m.onnx", photographs=None)
        plan = bytes([seed]) * 20_000
        write_engine(dataclasses.replace(FILE, plan=plan), place / "m.engine")

    def check(self, place: Path) -> None:
        self._file.check(place)
        self._pair.check(place)

    def check_done(self, place: Path) -> None:
        self._file.check_done(place)
        self._pair.check_done(place)


class CarelessScenario:
    """A planted fault: a file is replaced in place."""

    def __init__(self) -> None:
        self._files = Files(("file",))

    def prepare(self, place: Path) -> None:
        (place / "file").write_bytes(b"old")
        self._files.remember(place, are_new=False)
        (place / "file").write_bytes(b"new")
        self._files.remember(place, are_new=True)

    def run(self, place: Path) -> None:
        with errors_of(place / "file"):
            (place / "file").write_bytes(b"new")

    def check(self, place: Path) -> None:
        self._files.check(place)

    def check_done(self, place: Path) -> None:
        self._files.check_done(place)


def scenarios() -> Iterator[tuple[str, Scenario]]:
    """Yield all of them by name, but the trainer's, which imports torch."""
    yield "new", IndexScenario("new")
    yield "changed", IndexScenario("changed")
    yield "repaired", IndexScenario("repaired")
    yield "npy", EmbedScenario("vectors.npy")
    yield "parquet", EmbedScenario("vectors.parquet")
    yield "export", ExportScenario()
    yield "careless", CarelessScenario()
