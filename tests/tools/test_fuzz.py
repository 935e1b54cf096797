"""tools/fuzz.py: its first attempts find nothing, and it does find what is planted."""

import ctypes
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzz import Account, fuzz, in_turn
from fuzzing.cage import Cage, Verdict
from fuzzing.images import image_kind, seeds
from fuzzing.indexes import index_kinds
from fuzzing.kinds import Kind, check
from fuzzing.mutations import changed_bytes, changed_json, changed_rows

from alexnet_deploy.errors import IncompatibleFileError, PhotographError
from alexnet_deploy.index import model
from alexnet_deploy.index.compressed_check import compressed_problems
from alexnet_deploy.index.compressed_files import read_compressed
from alexnet_deploy.index.storage import open_storage
from alexnet_deploy.photographs.decoding import load_photograph

TOOL = Path(__file__).resolve().parents[2] / "tools" / "fuzz.py"


def test_its_first_attempts_find_nothing(tmp_path: Path) -> None:
    """In a process of its own, which may fork: no library has started threads in it."""
    done = subprocess.run(
        [sys.executable, TOOL, "--attempts", "46", "--seed", "1", "-o", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all        46" in done.stdout


def test_the_compressed_vectors_that_it_changes_are_good_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard the fuzzer: changes of what is refused anyway would find nothing."""
    monkeypatch.setitem(
        vars(model), "open_runner_of", vars(model)["open_runner_of"]
    )  # put back after
    names = [kind.name for kind in index_kinds(tmp_path)]
    assert "compressed" in names
    with open_storage(tmp_path / "index") as index:
        found = read_compressed(index)
        assert found is not None
        assert (found.record.num_rows, found.record.bits) == (3, 64)
        assert list(compressed_problems(index)) == []


def missing_key(_: Path) -> None:
    raise KeyError("planted")


def endless(_: Path) -> None:
    while True:
        time.sleep(1)


def crashing(_: Path) -> None:
    ctypes.string_at(0)


def greedy(_: Path) -> None:
    bytearray(2**33)


def touching(folder: Path) -> None:
    (folder.parent / "outside" / "canary.txt").write_bytes(b"touched")


def touching_as_a_library_does(folder: Path) -> None:
    libc = ctypes.CDLL(None)
    libc.rename(os.fsencode(folder / "input"), os.fsencode(folder.parent / "elsewhere"))


def writing_elsewhere(folder: Path) -> None:
    with open(folder.parents[1] / "new", "wb"):
        pass


def starting_a_program(_: Path) -> None:
    subprocess.run(["true"], check=True)


def wrong(_: Path) -> None:
    check(1 > 2, "1 is not more than 2")


def refusing(_: Path) -> None:
    raise IncompatibleFileError("damaged")


def refusing_a_photograph(_: Path) -> None:
    raise PhotographError("damaged")


@pytest.mark.parametrize(
    ("reader", "verdict"),
    [
        (missing_key, "traceback"),
        (endless, "hang"),
        (crashing, "crash"),
        (greedy, "traceback"),
        (touching, "outside"),
        (touching_as_a_library_does, "outside"),
        (writing_elsewhere, "outside"),
        (starting_a_program, "outside"),
        (wrong, "wrong result"),
        (refusing, "refused"),
        (refusing_a_photograph, "refused"),
        (os.listdir, "result"),
    ],
)
def test_what_is_planted_is_found(
    reader: Callable[[Path], None], verdict: Verdict, tmp_path: Path
) -> None:
    (tmp_path / "cage").mkdir()
    cage = Cage(tmp_path / "cage", limit_s=0.5 if reader is endless else 10)
    (cage.inside / "input").write_bytes(b"input")
    outcome = cage.run(reader)
    assert outcome.verdict == verdict, outcome.text


def test_a_finding_is_kept_with_its_input_and_counted(tmp_path: Path) -> None:
    def write(folder: Path, rng: random.Random) -> None:
        (folder / "input").write_bytes(rng.randbytes(8))

    def read(folder: Path) -> None:
        assert len((folder / "input").read_bytes()) == 8
        (folder / "input").unlink()
        missing_key(folder)

    account = Account()
    for name in ("place", "kept"):
        (tmp_path / name).mkdir()
    fuzz(
        [Kind(name=".x", write=write, read=read)],
        [(".x", 5)],
        seed=7,
        place=tmp_path / "place",
        kept=tmp_path / "kept",
        account=account,
    )
    (finding,) = (tmp_path / "kept").iterdir()
    told = json.loads((finding / "finding.json").read_text("utf-8"))
    assert (told["seed"], told["attempt"], told["verdict"]) == (7, ".x:5", "traceback")
    assert "KeyError: 'planted'" in told["text"]
    assert (finding / "input").read_bytes() == random.Random("7 .x 5").randbytes(8)
    assert account.num_findings() == 1
    assert account.table().splitlines()[-1].split()[:5] == ["all", "1", "0", "0", "1"]


def test_a_seed_gives_the_same_input_again(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        image_kind().write(tmp_path / name, random.Random("1"))
    first, second = ((tmp_path / name / "photograph").read_bytes() for name in ("a", "b"))
    assert first == second
    value = {"a": [1, 2.5, "x"], "b": {"c": None}}
    columns = [("t", "a"), ("t", "b")]
    for number in range(50):
        assert len({changed_json(value, random.Random(number)) for _ in range(2)}) == 1
        assert len({changed_rows(columns, random.Random(number)) for _ in range(2)}) == 1
        assert len({changed_bytes(first, random.Random(number)) for _ in range(2)}) == 1


def test_kinds_take_turns() -> None:
    kinds = [Kind(name=name, write=image_kind().write, read=missing_key) for name in ("rows", "x")]
    attempts = in_turn(kinds, iter([False] * 5 + [True]).__next__)
    assert list(attempts) == [("rows", 0), ("rows", 1), ("x", 0), ("rows", 2), ("rows", 3)]


def test_every_seed_is_a_photograph_of_another_format_or_a_named_refusal(tmp_path: Path) -> None:
    """Guard the fuzzer: changes of files that are not opened at all would find nothing."""
    refusals = []
    for data in seeds():
        path = tmp_path / "photograph"
        path.write_bytes(data)
        try:
            load_photograph(path)
        except PhotographError as error:
            refusals.append(str(error))
    assert len(seeds()) > 35
    assert len(refusals) == 1
    assert "floating-point greys" in refusals[0]
