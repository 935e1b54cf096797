"""The ledger of an index: a SQLite file with a row for every input, failures included.

It owns the connection, transactions and error handling; its tables are in `schema`, and the modules
that read and write rows have their own SQL. Paths are raw file-system bytes (BLOB).
"""

import os
import re
import shutil
import sqlite3
import sys
import tempfile
import threading
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from alexnet_deploy.errors import (
    AlexNetDeployError,
    IncompatibleFileError,
    IndexLockedError,
    OutputError,
)
from alexnet_deploy.files.output_files import errors_of, sync_directory
from alexnet_deploy.files.regular_files import ForeignEntryError, open_regular, remove_file
from alexnet_deploy.index.schema import (
    MIGRATIONS,
    SCHEMAS,
    VERSION,
    check_schema,
    damaged_ledger,
)

LEDGER_NAME = "ledger.sqlite"
JOURNAL_NAME = "ledger.sqlite-journal"
PART_NAME = ".ledger.sqlite.part"
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
NUM_PARAMETERS = 500
"""Of a statement; SQLite before 3.32 allows 999."""
_BUSY_S = 120.0
"""How long a commit waits for a reading search, and a search for a commit."""

_FOREIGN = "unsupported file|Could not decode to UTF-8"  # of Python's, which have no name
_MAX_VALUE_BYTES = 2**20
_MAX_STEPS = 10**4
"""Steps of SQLite's machine to read the schema in; ours takes a few hundred."""
_STEPS_BETWEEN_SIGNALS = 10**6
_INTERRUPTED = "SQLITE_INTERRUPT"

# What a stored value may be. SQLite keeps any type in any column, so a damaged or forged ledger
# can hold others than its schema says.
INTEGER = frozenset({int})
REAL = frozenset({float})
TEXT = frozenset({str})
BLOB = frozenset({bytes})
NULL = frozenset({type(None)})
Kinds = Sequence[frozenset[type]]


class Ledger:
    """An open ledger. `one` is thread-safe; everything else is for one thread at a time.

    Every method raises `IncompatibleFileError` for a damaged file, `IndexLockedError` if another
    program holds it for two minutes, `OutputError` if it cannot be written.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, stack: ExitStack) -> None:
        self._path = path
        self._connection = connection
        self._stack = stack
        self._mutex = threading.Lock()

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open the ledger of an index, to read or to write.

        If the directory is read-only and a killed writer left a commit unfinished, a copy in which
        that commit is rolled back is opened instead.
        """
        path = directory / LEDGER_NAME
        check_files(directory)
        with ExitStack() as stack, _errors_reported(path):
            try:
                connection = _opened(path, stack)
            except sqlite3.OperationalError as error:
                if not _is_half_committed(error, directory):
                    raise
                path = _copied(directory, stack)
                connection = _opened(path, stack)
            return cls(path, connection, stack.pop_all())

    @classmethod
    def create(cls, directory: Path) -> None:
        """Create an empty ledger atomically."""
        part = directory / PART_NAME
        for left in (part, Path(f"{part}-journal")):
            with errors_of(left), suppress(FileNotFoundError):
                remove_file(left)
        with _errors_reported(part):
            connection = _connect(part, "rwc")
            try:
                connection.executescript(
                    f"BEGIN; {SCHEMAS[VERSION]} PRAGMA user_version = {VERSION}; COMMIT;"
                )
            finally:
                connection.close()
        with errors_of(directory / LEDGER_NAME):
            part.rename(directory / LEDGER_NAME)
        sync_directory(directory)

    def version(self) -> int:
        """Return the version of its tables; an older ledger has its own until it is written to."""
        return int(self.one("PRAGMA user_version")[0])

    def migrate(self) -> None:
        """Give it today's tables, all or nothing."""
        if self.version() < VERSION:
            with self.transaction():
                for version in range(self.version(), VERSION):
                    self.execute(MIGRATIONS[version])
                self.execute(f"PRAGMA user_version = {VERSION}")

    def one(self, sql: str, parameters: Sequence[Any] = (), *, kinds: Kinds = ()) -> Any:
        """Return the first row, or None; see `rows`."""
        with self._mutex, _errors_reported(self._path):
            row = self._connection.execute(sql, parameters).fetchone()
        if row is not None:
            self._check_kinds([row], kinds)
        return row

    def rows(
        self, sql: str, parameters: Sequence[Any] = (), *, kinds: Kinds = ()
    ) -> Iterator[tuple[Any, ...]]:
        """Yield the rows one by one.

        Args:
            sql: one statement.
            parameters: its values.
            kinds: what each of the first columns may be; a statement that returns stored values
                names them.
        """
        with _errors_reported(self._path):
            cursor = self._connection.execute(sql, parameters)
        while True:
            try:
                with _errors_reported(self._path):
                    some = cursor.fetchmany(1000)
                self._check_kinds(some, kinds)
            except AlexNetDeployError:
                # Whoever keeps the error keeps this frame, and an open statement keeps its lock.
                cursor.close()
                raise
            if not some:
                return
            yield from some

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run one statement; return the number of affected rows."""
        with self._mutex, _errors_reported(self._path):
            return self._connection.execute(sql, parameters).rowcount

    def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each of `rows`."""
        with _errors_reported(self._path):
            self._connection.executemany(sql, rows)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit all or nothing of the block."""
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.commit()
        except BaseException:
            self._roll_back()
            raise

    def commit(self) -> None:
        """Commit the transaction; its work is durable from here on."""
        self.execute("COMMIT")

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all reads in the block see the same state; commits wait until it ends."""
        self.execute("BEGIN")
        try:
            yield
        finally:
            self._roll_back()

    def close(self) -> None:
        """Close the file; later calls from other threads raise an error."""
        with self._mutex:  # closing SQLite during a statement crashes
            self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def damaged(self, reason: str) -> IncompatibleFileError:
        """Return the error of a row that no run of ours has written."""
        return damaged_ledger(self._path, reason)

    def _check_kinds(self, rows: Sequence[tuple[Any, ...]], kinds: Kinds) -> None:
        for values, kind in zip(zip(*rows, strict=True), kinds, strict=False):
            if foreign := set(map(type, values)) - kind:
                names = " and ".join(sorted(kind.__name__ for kind in foreign))
                raise self.damaged(f"a value is of the type {names}, which none may be")

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self.execute("ROLLBACK")


def check_files(directory: Path) -> None:
    """Refuse files by which SQLite would reach out of the directory, before it opens any.

    It follows links, and writes what a journal holds to the ledger, whatever other name that has. A
    journal may name a super-journal, which SQLite reads and then deletes, wherever it is; one
    process with one file never makes one.

    Raises:
        IncompatibleFileError: naming the file and what is wrong with it.
    """
    path, journal = directory / LEDGER_NAME, directory / JOURNAL_NAME
    for other in ("-wal", "-shm"):
        if os.path.lexists(f"{path}{other}"):
            raise damaged_ledger(Path(f"{path}{other}"), "no index has such a file")
    with errors_of(path):
        try:
            os.close(open_regular(path, os.O_RDONLY, to_write=True))
        except FileNotFoundError as error:
            raise IncompatibleFileError(
                f"{path}: does not exist; restore it from a copy, or index again into another "
                "directory"
            ) from error
        except ForeignEntryError as error:
            raise damaged_ledger(path, str(error.strerror)) from error
    with errors_of(journal):
        try:
            with open(open_regular(journal, os.O_RDONLY, to_write=True), "rb") as file:
                file.seek(-min(len(_JOURNAL_MAGIC), os.fstat(file.fileno()).st_size), os.SEEK_END)
                if file.read() == _JOURNAL_MAGIC and file.tell() > len(_JOURNAL_MAGIC):
                    raise damaged_ledger(
                        journal, "it names a super-journal, which an index never has"
                    )
        except FileNotFoundError:  # as usual: it is there during a commit, or after a crash
            return
        except ForeignEntryError as error:
            raise damaged_ledger(journal, str(error.strerror)) from error


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    """Connect by URI, whose escapes allow names of any bytes; "rw" does not create the file.

    A read-only file is opened for reading.
    """
    quoted = urllib.parse.quote(os.fsencode(path.absolute()))
    connection = sqlite3.connect(
        f"file:{quoted}?mode={mode}",
        uri=True,
        timeout=_BUSY_S,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
    if sys.version_info >= (3, 12):
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute("PRAGMA foreign_keys = ON")
    # A commit ends with the removal of its journal, which must be durable too: segments are deleted
    # after it.
    connection.execute("PRAGMA synchronous = EXTRA")
    return connection


def _opened(path: Path, stack: ExitStack) -> sqlite3.Connection:
    """Connect to a ledger and check it with a first read."""
    try:
        connection = _connect(path, "rw")
        stack.callback(connection.close)
        connection.set_progress_handler(lambda: True, _MAX_STEPS)
        check_schema(path, connection)
        if len(connection.execute("SELECT 1 FROM settings LIMIT 2").fetchall()) != 1:
            raise damaged_ledger(path, "its settings are missing")
        # Called, it lets Python handle signals: a forged tree can keep one statement busy for ever.
        connection.set_progress_handler(lambda: False, _STEPS_BETWEEN_SIGNALS)
    except UnicodeDecodeError as error:  # in SQLite's own message about the schema
        raise damaged_ledger(path, "its schema is not text") from error
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname != _INTERRUPTED:
            raise
        raise damaged_ledger(path, "its tables are not those of an index") from error
    return connection


def _is_half_committed(error: sqlite3.OperationalError, directory: Path) -> bool:
    """Return whether a killed writer's commit needs a rollback that this process may not write.

    SQLite distinguishes this from a live writer's journal by its lock.
    """
    name = error.sqlite_errorname
    is_refused = name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN"))
    return is_refused and (directory / JOURNAL_NAME).exists()


def _copied(directory: Path, stack: ExitStack) -> Path:
    """Copy ledger and journal to a place where SQLite can roll back the unfinished commit."""
    place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="alexnet-deploy-")))
    with errors_of(place):
        for name in (LEDGER_NAME, JOURNAL_NAME):
            shutil.copyfile(directory / name, place / name)
    return place / LEDGER_NAME


@contextmanager
def _errors_reported(path: Path) -> Iterator[None]:
    """Translate file errors into our own; a wrong statement remains a bug."""
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", "") == _INTERRUPTED:
            # By a signal: its handler raised this within SQLite, which does not pass it on.
            raise KeyboardInterrupt from error
        ours = _translated(path, error)
        if ours is None:
            raise
        raise ours from error


def _translated(path: Path, error: sqlite3.Error) -> AlexNetDeployError | None:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith("SQLITE_FULL"):
        return OutputError(
            f"{path}: cannot be written (disk full); free some space and run it again: what was "
            "committed stays"
        )
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return IndexLockedError(
            f"{path}: another program has held it for {_BUSY_S:.0f} s; wait until it has finished"
        )
    if name.startswith(("SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH")):
        return OutputError(
            f"{path}: cannot be written ({error}); get write permission for it and its folder"
        )
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_IOERR")):
        return OutputError(
            f"{path}: cannot be opened, read or written ({error}); check that the file is there, "
            "that its disk works and has space, and that you have permission"
        )
    # A value beyond our limit, a row that our statements do not make, or a schema of more steps
    # than ours is a stranger's.
    is_damage = name.startswith(
        (
            "SQLITE_NOTADB",
            "SQLITE_CORRUPT",
            "SQLITE_TOOBIG",
            "SQLITE_CONSTRAINT",
        )
    )
    if is_damage or re.search(_FOREIGN, str(error)):
        return damaged_ledger(path, str(error))
    return None
