"""An index that a stranger made: nothing outside it is touched, and all else is told as damage."""

import dataclasses
import json
import os
import shutil
import sqlite3
import stat
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from alexnet_deploy.choices import Metric
from alexnet_deploy.errors import AlexNetDeployError, IncompatibleFileError, UsageError
from alexnet_deploy.index.ledger import JOURNAL_NAME, LEDGER_NAME, PART_NAME
from alexnet_deploy.index.lock import LOCK_NAME
from alexnet_deploy.index.model import ModelRequest
from alexnet_deploy.index.status import describe_index, readable_index
from tests.support.index_runner import (
    DIMENSION,
    REQUEST,
    Runners,
    save,
    save_colours,
    search,
    update,
)

pytestmark = pytest.mark.usefixtures("runners")

SECRET = b"private\n"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Return an index of four photographs."""
    save_colours(tmp_path / "photos", 4)
    update(tmp_path / "index", tmp_path / "photos")
    return tmp_path / "index"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """Return a file of somebody, beside the index."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "victim").write_bytes(SECRET)
    return tmp_path / "home" / "victim"


def use_in_every_way(index: Path) -> list[AlexNetDeployError]:
    """Search, describe, check, update and repair an index; return what was refused."""
    photos = index.with_name("photos")
    query = save(index.with_name("query.bmp"), (200, 3, 90))  # which has no vector yet
    uses: list[Callable[[], object]] = [
        lambda: list(search(index, [query])),
        lambda: describe_index(index, check=False),
        lambda: describe_index(index, check=True),
        lambda: update(index, photos),
        lambda: update(index, photos, repair=True),
        lambda: update(index, photos, prune=True),
    ]
    refusals = []
    for use in uses:
        try:
            use()
        except AlexNetDeployError as error:
            refusals.append(error)
    return refusals


def link(entry: Path, target: Path) -> None:
    if entry.is_dir():
        shutil.rmtree(entry)
    entry.unlink(missing_ok=True)
    entry.symlink_to(target)


def super_journal(index: Path, victim: Path) -> bytes:
    """Return a journal that changes no page and names a super-journal, as SQLite writes it."""
    num_pages = (index / LEDGER_NAME).stat().st_size // 4096
    magic = bytes.fromhex("d9d505f920a163d7")
    header = magic + struct.pack(">IIIII", 0, 0, num_pages, 512, 4096)
    name = os.fsencode(victim)
    lock_page = 2**30 // 4096 + 1
    record = struct.pack(">I", lock_page) + name + struct.pack(">II", len(name), sum(name)) + magic
    return header.ljust(512, b"\0") + record


def test_a_journal_cannot_name_a_file_to_delete(index: Path, victim: Path) -> None:
    (index / JOURNAL_NAME).write_bytes(super_journal(index, victim))
    refusals = use_in_every_way(index)
    assert len(refusals) == 6
    assert all("super-journal" in str(error) for error in refusals)
    assert victim.read_bytes() == SECRET


def test_sqlite_itself_would_delete_that_file(index: Path, victim: Path) -> None:
    """Guard the test above: the journal is one that does harm."""
    (index / JOURNAL_NAME).write_bytes(super_journal(index, victim))
    with closing(sqlite3.connect(index / LEDGER_NAME)) as connection:
        connection.execute("SELECT count(*) FROM settings").fetchone()
    assert not victim.exists()


def test_a_journal_cannot_restore_a_file_of_another_name(index: Path, victim: Path) -> None:
    """A journal that a crash left is SQLite's order to write pages, whatever they are."""
    page = b"evil\n".ljust(4096, b"#")
    checksum = sum(page[place] for place in range(4096 - 200, 0, -200))
    header = bytes.fromhex("d9d505f920a163d7") + struct.pack(">IIIII", 1, 0, 1, 512, 4096)
    record = struct.pack(">I", 1) + page + struct.pack(">I", checksum)
    (index / JOURNAL_NAME).write_bytes(header.ljust(512, b"\0") + record)
    victim.write_bytes(before := SECRET * 1000)
    (index / LEDGER_NAME).unlink()
    (index / LEDGER_NAME).hardlink_to(victim)
    assert len(use_in_every_way(index)) == 6
    assert victim.read_bytes() == before


@pytest.mark.parametrize(
    "entry",
    [
        *("manifest.json", "lock", LEDGER_NAME, JOURNAL_NAME, "vectors", "vectors/00000.f16"),
        *(f"{LEDGER_NAME}-wal", f"{LEDGER_NAME}-shm"),
    ],
)
def test_no_link_is_followed(index: Path, victim: Path, entry: str) -> None:
    decoy = victim.with_name("00007.f16")
    decoy.write_bytes(SECRET)
    link(index / entry, victim.parent if entry == "vectors" else victim)
    refusals = use_in_every_way(index)
    assert refusals
    assert all(isinstance(error, IncompatibleFileError) for error in refusals), refusals
    assert victim.read_bytes() == decoy.read_bytes() == SECRET
    assert sorted(path.name for path in victim.parent.iterdir()) == ["00007.f16", "victim"]


def test_a_check_finds_a_path_that_leads_out_of_its_root(index: Path) -> None:
    with closing(sqlite3.connect(index / LEDGER_NAME)) as connection:
        connection.execute("UPDATE photographs SET path = ? WHERE id = 1", (b"../../secret",))
        connection.commit()
    (problem,) = describe_index(index, check=True)["problems"]
    assert "photograph 1 has the path b'../../secret'" in problem


def test_a_manifest_that_is_a_broken_link_is_not_written_through(index: Path, victim: Path) -> None:
    link(index / "manifest.json", victim.with_name("new"))
    assert len(use_in_every_way(index)) == 6
    assert not victim.with_name("new").exists()


@pytest.mark.parametrize(
    "entry", ["manifest.json", "lock", LEDGER_NAME, JOURNAL_NAME, "vectors/00000.f16"]
)
@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFDIR])
def test_neither_a_pipe_nor_a_folder_holds_anyone_up(index: Path, entry: str, kind: int) -> None:
    (index / entry).unlink(missing_ok=True)
    if kind == stat.S_IFIFO:
        os.mkfifo(index / entry)
    else:
        (index / entry).mkdir()
    refusals = use_in_every_way(index)
    assert isinstance(refusals[0], IncompatibleFileError)


@pytest.mark.parametrize("entry", ["lock", LEDGER_NAME, JOURNAL_NAME, "vectors/00000.f16"])
def test_a_file_with_another_name_is_not_written_to(index: Path, victim: Path, entry: str) -> None:
    """A hard link leads out of the directory as any other; archives hold both."""
    (index / entry).touch()
    victim.write_bytes((index / entry).read_bytes() or SECRET)
    (index / entry).unlink()
    (index / entry).hardlink_to(victim)
    before = victim.read_bytes()
    save(index.with_name("photos") / "new.bmp", (9, 9, 9))
    refusals = use_in_every_way(index)
    assert refusals
    assert all("another name" in str(error) for error in refusals)
    assert all(isinstance(error, IncompatibleFileError) for error in refusals), refusals
    assert victim.read_bytes() == before


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM photographs; END",
        "CREATE VIEW v AS SELECT 1",
        "DROP TABLE runs; CREATE VIEW runs AS WITH RECURSIVE r(started) AS (SELECT 1 UNION ALL "
        "SELECT started + 1 FROM r) SELECT 1 id, started, 1 finished, '' runner, 1 embedded, "
        "1 reused, 1 unchanged, 1 failed, 1 removed FROM r",
        "CREATE INDEX i ON photographs (reason)",
        "CREATE TABLE other (x)",
        "ALTER TABLE runs ADD COLUMN other",
        "DROP INDEX photographs_by_position",
        "PRAGMA journal_mode = WAL",
    ],
)
def test_a_ledger_has_our_tables_and_nothing_else(index: Path, sql: str) -> None:
    run_sql(index, sql)
    refusals = use_in_every_way(index)
    assert len(refusals) == 6
    assert all(type(error) is IncompatibleFileError for error in refusals)


def test_a_schema_without_end_is_damage(index: Path) -> None:
    views = (
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 5000) "
        "SELECT 'view', 'v' || n, 'v' || n, 0, 'CREATE VIEW v' || n || ' AS SELECT 1' FROM r"
    )
    run_sql(index, f"PRAGMA writable_schema = ON; INSERT INTO sqlite_schema {views}")
    with pytest.raises(IncompatibleFileError, match="its tables are not those of an index"):
        describe_index(index, check=False)


@pytest.mark.parametrize(
    ("field", "value"), [("layer", "fc9"), ("layer", "fc7 "), ("precision", "auto")]
)
def test_a_manifest_names_a_layer_and_a_precision_that_there_are(
    index: Path, field: str, value: str
) -> None:
    manifest = json.loads((index / "manifest.json").read_text())
    manifest["space"][field] = value
    (index / "manifest.json").write_text(json.dumps(manifest))
    refusals = use_in_every_way(index)
    assert len(refusals) == 6
    assert all(isinstance(error, IncompatibleFileError) for error in refusals), refusals


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE photographs SET path = CAST('../../private.jpg' AS BLOB) WHERE id = 1",
        "UPDATE photographs SET path = CAST('/etc/passwd' AS BLOB) WHERE id = 1",
        "UPDATE photographs SET path = X'6100' WHERE id = 1",
        "UPDATE photographs SET path = 'text' WHERE id = 1",
        "UPDATE photographs SET path = 7 WHERE id = 1",
        "PRAGMA foreign_keys = OFF; UPDATE photographs SET root = 99 WHERE id = 1",
        "PRAGMA foreign_keys = OFF; UPDATE photographs SET root = 'x' WHERE id = 1",
        "PRAGMA foreign_keys = OFF; UPDATE photographs SET position = 'x' WHERE id = 1",
        "PRAGMA foreign_keys = OFF; UPDATE photographs SET position = 4611686018427387904 "
        "WHERE id = 1",
        "PRAGMA foreign_keys = OFF; UPDATE photographs SET position = -1 WHERE id = 1",
        "PRAGMA foreign_keys = OFF; UPDATE photographs SET position = 0.5 WHERE id = 1",
        "UPDATE roots SET path = 7",
        "UPDATE roots SET path = CAST('relative' AS BLOB)",
        "UPDATE roots SET path = X'2F6100'",
        "UPDATE settings SET model = 7",
        "UPDATE settings SET model = X'2F6100'",
        "UPDATE settings SET next_position = 'x'",
        "UPDATE settings SET next_position = -5",
        "UPDATE settings SET next_position = 9223372036854775807",
        "UPDATE vectors SET checksum = 1",
        "UPDATE vectors SET checksum = CAST(X'EDA080' AS TEXT)",
        "UPDATE runs SET runner = CAST(X'FF' AS TEXT)",
        "UPDATE runs SET started = 'long ago'",
        "UPDATE runs SET finished = CAST('x' AS BLOB)",
        "UPDATE runs SET runner = X'00'",
        "UPDATE runs SET runner = CAST(zeroblob(2000000) AS TEXT)",
        "UPDATE runs SET embedded = 'many'",
        "UPDATE photographs SET status = 'failed', reason = CAST('x' AS BLOB), position = NULL",
        "INSERT INTO before_loss VALUES (1, 'x')",
        "DELETE FROM settings",
        "INSERT INTO settings VALUES (0, NULL)",
    ],
)
def test_what_no_run_writes_is_damage(index: Path, sql: str) -> None:
    run_sql(index, sql)
    refusals = use_in_every_way(index)
    assert refusals
    assert all(isinstance(error, IncompatibleFileError) for error in refusals), refusals


@pytest.mark.parametrize("name", ["9" * 30, "\u0663" * 5, "0", "000000", "x"])
def test_only_segments_by_their_own_names_are_any(index: Path, name: str) -> None:
    other = index / "vectors" / f"{name}.f16"
    other.write_bytes(SECRET)
    assert use_in_every_way(index) == []
    assert other.read_bytes() == SECRET


@pytest.mark.parametrize(
    "name", [".alexnet-deploy-0123456789abcdef.part", "vectors/00001.f16", LOCK_NAME, JOURNAL_NAME]
)
def test_a_folder_in_place_of_a_file_is_damage(index: Path, name: str) -> None:
    shutil.rmtree(index / name, ignore_errors=True)
    (index / name).unlink(missing_ok=True)
    (index / name).mkdir()
    refusals = use_in_every_way(index)
    assert refusals
    assert all(isinstance(error, IncompatibleFileError) for error in refusals), refusals
    assert (index / name).is_dir()


def test_a_folder_in_place_of_a_ledger_to_be_is_damage(tmp_path: Path) -> None:
    save_colours(tmp_path / "photos", 1)
    (tmp_path / "index" / PART_NAME).mkdir(parents=True)
    with pytest.raises(IncompatibleFileError, match="is a folder, expected a file; remove it"):
        update(tmp_path / "index", tmp_path / "photos")


@pytest.mark.parametrize(("table", "start"), [("roots", "/"), ("photographs", "")])
def test_a_path_that_no_disk_has_does_not_fill_the_terminal(
    index: Path, table: str, start: str
) -> None:
    path = f"CAST('{start}' || hex(zeroblob(450000)) AS BLOB)"
    run_sql(index, f"UPDATE {table} SET path = {path} WHERE id = 1")
    (index / "vectors" / "00000.f16").unlink()
    text = readable_index(describe_index(index, check=True))
    assert len(text) < 60_000
    assert "000 ... 000" in text


def test_a_place_that_is_taken_is_damage(index: Path) -> None:
    run_sql(index, "UPDATE settings SET next_position = 0")
    save(index.with_name("photos") / "new.bmp", (200, 3, 90))
    with pytest.raises(IncompatibleFileError, match=r"UNIQUE constraint failed: vectors\.position"):
        update(index, index.with_name("photos"))


def test_a_run_of_the_far_future_is_described(index: Path) -> None:
    run_sql(index, "UPDATE runs SET started = 1e300")
    assert "1e+300" in readable_index(describe_index(index, check=True))


def run_sql(index: Path, sql: str) -> None:
    with closing(sqlite3.connect(index / LEDGER_NAME, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.executescript(sql)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_a_vector_that_is_not_finite_is_damage_until_it_is_repaired(
    index: Path, value: float, metric: Metric
) -> None:
    segment = np.memmap(index / "vectors" / "00000.f16", np.float16)
    segment[DIMENSION] = value  # of the second vector
    segment.flush()
    photos = index.with_name("photos")
    with pytest.raises(IncompatibleFileError, match=r"position 1 is not finite.*repair=True"):
        list(search(index, [photos / "00.bmp"], metric=metric))
    update(index, photos, repair=True)
    (result,) = search(index, [photos / "00.bmp"], metric=metric)
    assert len(result.neighbours) == 3


@pytest.mark.parametrize("name", ["model.engine", "model.pt", "index/model.onnx"])
def test_a_model_is_not_opened_because_an_index_names_it(
    index: Path, runners: Runners, name: str
) -> None:
    model = index.parent / name
    model.write_bytes(b"a program")
    with closing(sqlite3.connect(index / LEDGER_NAME, isolation_level=None)) as connection:
        connection.execute("UPDATE settings SET model = ?", (os.fsencode(model),))
    query = save(index.with_name("query.bmp"), (200, 3, 90))
    runners.models.clear()
    with pytest.raises(UsageError, match="if you trust that file, name it with model"):
        list(search(index, [query]))
    assert runners.models == []
    assert len(list(search(index, [query], ModelRequest(model=model)))) == 1


@pytest.mark.parametrize("name", ["model.onnx", "model.safetensors"])
def test_plain_weights_beside_an_index_are(index: Path, runners: Runners, name: str) -> None:
    model = index.with_name(name)
    model.write_bytes(b"weights")
    update(index, index.with_name("photos"), request=dataclasses.replace(REQUEST, model=model))
    runners.models.clear()
    list(search(index, [save(index.with_name("query.bmp"), (200, 3, 90))]))
    assert runners.models == [model]
